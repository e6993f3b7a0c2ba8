"""Are the gates proven to bite? Models that are spoilt on purpose must be stopped by a gate, and a clean one pass."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from release_platform.domain.attestation import STATEMENT
from release_platform.domain.errors import IntegrityError
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.identity import digest_of

SELFTEST_RESULT = "https://model-release-platform/selftest/v1"
"""The kind of the statement that is signed of a selftest."""
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
    def became(self) -> str:
        """What became of it in a word: `stopped`, `passed` or `skipped`."""
        if self.skipped:
            return "skipped"
        return "stopped" if self.stopped_by else "passed"

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
class Binding:
    """What a selftest proves; when it changes, the proof is void.

    Attributes:
        spec: Digest of the gates, and of what of the spec makes the model that they judge.
        code: Digest of the model's own Python files, the module of its source, and the platform's version.
    """

    spec: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selftest:
    """What became of all twins of a model.

    Attributes:
        model: The model.
        binding: What was proven.
        n_rows: How many rows were used.
        results: One for each twin.
    """

    model: str
    binding: Binding
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

    @property
    def digest(self) -> str:
        """Digest of all the evidence: each twin, what was done to it, and which gates stopped it for which reason."""
        return digest_of(self.to_json())

    def to_statement(self, at: str) -> dict[str, Any]:
        """Returns the in-toto statement that is signed of it: only who has the signing key can say it.

        Args:
            at: When it was kept, ISO 8601.
        """
        return {
            "_type": STATEMENT,
            "subject": [
                {"name": f"{self.model}/{SELFTEST}", "digest": {"sha256": self.digest.removeprefix("sha256:")}}
            ],
            "predicateType": SELFTEST_RESULT,
            "predicate": {
                "model": self.model,
                "at": at,
                "spec": self.binding.spec,
                "code": self.binding.code,
                "n_rows": self.n_rows,
                "twins": {result.twin.value: result.became for result in self.results},
                "verdict": self.gate.verdict.value,
            },
        }

    def check_statement(self, statement: Mapping[str, Any], at: str) -> None:
        """Checks that a statement, whose signature was verified, is of exactly this selftest.

        Raises:
            IntegrityError: It is of something else.
        """
        if statement != self.to_statement(at):
            raise IntegrityError(
                f"the signature is not of this selftest of {self.model}",
                remedy=f"somebody changed the release store; run `release gate selftest {self.model}` again",
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the selftest as a JSON value."""
        return {
            "model": self.model,
            "passed": self.passed,
            "said": self.said,
            "binding": asdict(self.binding),
            "n_rows": self.n_rows,
            "twins": [result.to_json() for result in self.results],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Selftest":
        """Returns the selftest that `to_json` wrote."""
        return Selftest(
            model=value["model"],
            binding=Binding(**value["binding"]),
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
