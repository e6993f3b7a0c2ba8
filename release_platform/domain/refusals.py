"""Calls that a version was asked and that were refused, by what was wrong with them: drift that no recorded row shows.

A server answers what fits the inputs of the version, and refuses the rest before anything is computed. So a client that
forgets a column, or sends text for a number, is in no recording. Servers count such calls, by the input and the reason.
An input counts by its name only if the version has it; all else is `OTHER`, so there are never many counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from release_platform.domain.json_form import exactly

OTHER = "other"
"""What is no input of the version: a member that it does not know, or the body as a whole."""
_SHOWN = 3


class Reason(StrEnum):
    """What was wrong."""

    MISSING = "missing"  # the input was not there
    VALUE = "value"  # it was of another type, or no value that the version takes
    UNKNOWN = "unknown"  # there was something that the version does not know
    BODY = "body"  # the body could not be read


_SAID = {
    Reason.MISSING: "lacked '{field}'",
    Reason.VALUE: "had no value of the type of '{field}'",
    Reason.UNKNOWN: "had what is no input",
    Reason.BODY: "could not be read",
}

Fault = tuple[str, Reason]
"""An input of the version, or `OTHER`, and what was wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls that came for a version.

    Attributes:
        answered: How many were answered.
        refused: How many were refused.
        faults: How many of the refused ones had each fault; one call may have several.
    """

    answered: int = 0
    refused: int = 0
    faults: Mapping[Fault, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.answered, self.refused, *self.faults.values()) < 0:
            raise ValueError("calls are counted from 0")

    @property
    def n_calls(self) -> int:
        """All of them."""
        return self.answered + self.refused

    @property
    def share(self) -> float:
        """The share that was refused, 0 to 1; 0 without calls."""
        return self.refused / self.n_calls if self.n_calls else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The share of all calls that had each fault, the most frequent first, as `input: reason`."""
        return {f"{name}: {reason.value}": share for (name, reason), share in self._ordered}

    @property
    def said(self) -> str:
        """It in a sentence; empty where no call was refused."""
        if not self.refused:
            return ""
        ordered = self._ordered
        each = [f"{share:.1%} {_SAID[reason].format(field=name)}" for (name, reason), share in ordered[:_SHOWN]]
        more = f", and {len(ordered) - _SHOWN} faults more" if len(ordered) > _SHOWN else ""
        return f"{self.share:.1%} of {self.n_calls:,} calls were refused: {', '.join(each)}{more}"

    @property
    def _ordered(self) -> list[tuple[Fault, float]]:
        """The share of all calls that had each fault, the most frequent first."""
        ordered = sorted(self.faults.items(), key=lambda one: (-one[1], one[0]))
        return [(fault, n / self.n_calls) for fault, n in ordered]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsOfMinute:
    """What one process counted for a version in one minute.

    Attributes:
        model: The model's name.
        version: The version.
        minute: When, in minutes since 1970.
        replica: The process.
        calls: The calls.
    """

    model: str
    version: str
    minute: int
    replica: str
    calls: Calls

    @staticmethod
    def from_json(value: object, replica: str) -> "CallsOfMinute":
        """Returns what a process tells; raises ValueError when it is none."""
        of = exactly(
            value, "count of calls", model=str, version=str, minute=int, answered=int, refused=int, faults=list
        )
        return CallsOfMinute(
            model=of["model"],
            version=of["version"],
            minute=of["minute"],
            replica=replica,
            calls=Calls(
                answered=of["answered"],
                refused=of["refused"],
                faults={(str(name), Reason(reason)): int(n) for name, reason, n in of["faults"]},
            ),
        )


def added(several: Iterable[Calls]) -> Calls:
    """Returns all calls together."""
    answered = refused = 0
    faults = Counter[Fault]()
    for one in several:
        answered, refused = answered + one.answered, refused + one.refused
        faults.update(dict(one.faults))
    return Calls(answered=answered, refused=refused, faults=dict(faults))
