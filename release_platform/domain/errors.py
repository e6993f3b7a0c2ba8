"""Every failure that the platform names, each with its remedy and its exit code.

```
ReleaseError                     exit code
├── SpecError                    2   the YAML of a model is wrong
├── DataError                    3   data cannot be read or used
│   ├── SourceError                  ... reading failed, at a source, row and column
│   └── ContractError                ... the data breaks its contract
├── TrainingError                3   the estimator could not be built or fitted
├── GatesNotPassed               4   a blocking gate did not pass
├── Refused                      5   a transition is not allowed now
│   ├── StaleEpoch                   ... another transition was first
│   └── NotFound                     ... there is no such model, version or request
├── Unavailable                  6   an outside system does not answer, or has no room
└── IntegrityError               7   bytes are not those that were registered, or answers differ
    └── VerificationFailed           ... live answers are not the registry model's
```

Exit code 0 is success, 1 an error that nobody foresaw.
"""

from collections.abc import Sequence
from typing import ClassVar


class ReleaseError(Exception):
    """A failure with a remedy.

    Args:
        problem: What is wrong, in one sentence that names the thing.
        remedy: What to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  -> {self.remedy}"


class SpecError(ReleaseError):
    """A model's `defs.yaml` is wrong: `file`, `field` and what to write instead."""

    exit_code = 2

    def __init__(self, problem: str, *, remedy: str, file: str = "", field: str = "") -> None:
        where = ": ".join(part for part in (file, field) if part)
        super().__init__(f"{where}: {problem}" if where else problem, remedy=remedy)
        self.file = file
        self.field = field


class DataError(ReleaseError):
    """Data cannot be used to train or judge a model."""

    exit_code = 3


class SourceError(DataError):
    """A source could not be read.

    Args:
        source: What was read: a path, an address without its password, a callable.
        row: 1-based row of the data (the header is not counted), where known.
        column: Name of the column, where known.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str,
        source: str,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        place = [source]
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column '{column}'")
        super().__init__(f"{', '.join(place)}: {problem}", remedy=remedy)
        self.source = source
        self.row = row
        self.column = column


class ContractError(DataError):
    """Data breaks its contract; `violations` has one sentence for each broken rule."""

    def __init__(self, source: str, violations: Sequence[str]) -> None:
        listed = "\n".join(f"  - {violation}" for violation in violations)
        super().__init__(
            f"{source}: the data breaks its contract in {len(violations)} place(s):\n{listed}",
            remedy="correct the data at its source, or change `contract` in the model's defs.yaml if the rule is wrong",
        )
        self.violations = tuple(violations)


class TrainingError(ReleaseError):
    """An estimator could not be built, fitted or packaged."""

    exit_code = 3


class GatesNotPassed(ReleaseError):
    """Blocking gates did not pass for exactly this evaluation; `gates` names them with their reasons."""

    exit_code = 4

    def __init__(self, model: str, gates: Sequence[str]) -> None:
        listed = "\n".join(f"  - {gate}" for gate in gates)
        super().__init__(
            f"{model}: {len(gates)} blocking gate(s) did not pass, so nothing is registered:\n{listed}",
            remedy=f"read the checks of {model}/evaluation_report, improve it, then `release run {model}` again",
        )
        self.gates = tuple(gates)


class Refused(ReleaseError):
    """A transition that is not allowed in the present state."""

    exit_code = 5


class StaleEpoch(Refused):
    """The head moved between reading and committing; the other transition stands."""

    def __init__(self, model: str, *, expected: int, found: int, first: str = "") -> None:
        super().__init__(
            f"{model}: expected epoch {expected}, but the head is at epoch {found}: another transition was first"
            + (f": {first}" if first else ""),
            remedy=f"look at `release history {model}`, then decide again",
        )
        self.expected = expected
        self.found = found


class NotFound(Refused):
    """There is no such model, version or request."""


class Unavailable(ReleaseError):
    """An outside system does not answer, or has no room left."""

    exit_code = 6


class IntegrityError(ReleaseError):
    """Bytes are not the ones that were registered, or may not be loaded."""

    exit_code = 7


class VerificationFailed(IntegrityError):
    """A live server's answers are not those of the registry's model."""
