"""Are the gates proven to bite? Models that are spoilt on purpose must be stopped by a gate, and a clean one pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from release_platform.domain.gates import GateResult, Verdict

SELFTEST = "selftest"
"""Name of the result that stands among a version's gates where the policy demands a selftest."""
STOPPED = "stopped_twins"
"""Its metric: how many spoilt twins were stopped. No `defs.yaml` can name it, so no gate of a model can pose as it."""
TRAINING = "training"
"""What stops a twin that cannot even be trained or packaged."""


class Twin(StrEnum):
    """A model like the one that is released, but for one defect; `clean` has none."""

    CLEAN = "clean"
    SHUFFLED_LABELS = "shuffled_labels"
    LEAKED_TARGET = "leaked_target"
    STALE_DATA = "stale_data"
    WORSE_SLICE = "worse_slice"
    NAN_FEATURES = "nan_features"
    CONSTANT = "constant"
    SLOW = "slow"
    UNCALIBRATED = "uncalibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinResult:
    """What became of one twin.

    Attributes:
        twin: Which.
        detail: What was done to it.
        stopped_by: The blocking gates that did not pass, with their reasons; `training` where there was no model.
        skipped: Why it does not apply to this model; empty where it does.
    """

    twin: Twin
    detail: str
    stopped_by: Mapping[str, str]
    skipped: str = ""

    @property
    def as_it_should_be(self) -> bool:
        """Whether a spoilt twin was stopped, and the clean one was not."""
        return bool(self.skipped) or bool(self.stopped_by) is (self.twin is not Twin.CLEAN)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as a JSON value."""
        return {
            "twin": self.twin.value,
            "detail": self.detail,
            "stopped_by": dict(self.stopped_by),
            "skipped": self.skipped,
            "as_it_should_be": self.as_it_should_be,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Selftest:
    """What became of all twins of a model.

    Attributes:
        model: The model.
        binding: Digest of what was proven: the gates, and what of the spec makes the model that they judge.
        n_rows: How many rows were used.
        results: One for each twin.
    """

    model: str
    binding: str
    n_rows: int
    results: tuple[TwinResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every spoilt twin that applies was stopped, the clean one passed, and there was one of each."""
        applied = {result.twin for result in self.results if not result.skipped}
        both = Twin.CLEAN in applied and len(applied) > 1
        return both and all(result.as_it_should_be for result in self.results)

    @property
    def n_spoilt(self) -> int:
        """How many spoilt twins apply to the model."""
        return sum(result.twin is not Twin.CLEAN and not result.skipped for result in self.results)

    @property
    def n_stopped(self) -> int:
        """How many of these were stopped."""
        return sum(result.twin is not Twin.CLEAN and bool(result.stopped_by) for result in self.results)

    @property
    def said(self) -> str:
        """The outcome in a sentence."""
        wrong = [result for result in self.results if not result.as_it_should_be]
        if self.passed:
            return f"{self.n_stopped} of {self.n_spoilt} spoilt twins were stopped, the clean one passed"
        if not wrong:
            return "no twin could be judged"
        named = "; ".join(
            f"clean was stopped by {', '.join(result.stopped_by)}"
            if result.twin is Twin.CLEAN
            else f"{result.twin} was stopped by no gate"
            for result in wrong
        )
        return f"{self.n_stopped} of {self.n_spoilt} spoilt twins were stopped: {named}"

    @property
    def gate(self) -> GateResult:
        """The selftest as a result that stands among the gates of a version."""
        return GateResult(
            gate=SELFTEST,
            metric=STOPPED,
            verdict=Verdict.PASSED if self.passed else Verdict.FAILED,
            reason=self.said,
            value=float(self.n_stopped),
            limit=float(self.n_spoilt),
            direction="at least",
            blocking=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the selftest as a JSON value."""
        return {
            "model": self.model,
            "passed": self.passed,
            "said": self.said,
            "binding": self.binding,
            "n_rows": self.n_rows,
            "twins": [result.to_json() for result in self.results],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Selftest":
        """Returns the selftest that `to_json` wrote."""
        return Selftest(
            model=value["model"],
            binding=value["binding"],
            n_rows=int(value["n_rows"]),
            results=tuple(
                TwinResult(
                    twin=Twin(twin["twin"]),
                    detail=twin["detail"],
                    stopped_by=dict(twin["stopped_by"]),
                    skipped=twin["skipped"],
                )
                for twin in value["twins"]
            ),
        )
