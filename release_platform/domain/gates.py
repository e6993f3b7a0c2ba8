"""Gates: one rule over one metric, judged from an evaluation report.

No data, NaN and a missing metric never pass. A gate against Production is a non-inferiority test: it passes when the
lower bound of the improvement is at or above `-margin`, fails when even the upper bound is below it, and is
inconclusive between the two.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, assert_never

from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.gate_spec import Against, GateSpec
from release_platform.domain.metrics import METRICS, Direction


class Verdict(StrEnum):
    """The outcome of a gate, in order from good to bad."""

    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    ERRORED = "errored"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate found.

    Attributes:
        gate: The gate's name.
        metric: Its metric.
        verdict: The outcome.
        reason: One sentence for people.
        value: What was judged; None when there was nothing.
        limit: The limit it was held to.
        direction: `at least` or `at most` the limit.
        blocking: Whether it decides.
    """

    gate: str
    metric: str
    verdict: Verdict
    reason: str
    value: float | None
    limit: float | None
    direction: str
    blocking: bool

    @property
    def passed(self) -> bool:
        """Whether the verdict is `passed`."""
        return self.verdict is Verdict.PASSED

    def to_json(self) -> dict[str, Any]:
        """Returns the result as a JSON value."""
        return {**asdict(self), "verdict": self.verdict.value}


def judge(gate: GateSpec, report: EvaluationReport) -> GateResult:
    """Returns the result of one gate over a report."""
    match gate.against:
        case Against.PRODUCTION:
            return _judge_against_production(gate, report)
        case None:
            return _judge_slices(gate, report) if gate.slice is not None else _judge_limit(gate, report)
        case _:
            assert_never(gate.against)


def judge_all(gates: tuple[GateSpec, ...], report: EvaluationReport) -> tuple[GateResult, ...]:
    """Returns the result of each gate, in order."""
    return tuple(judge(gate, report) for gate in gates)


def _result(
    gate: GateSpec, verdict: Verdict, reason: str, value: float | None, limit: float | None = None
) -> GateResult:
    at_least = gate.maximum is None or (gate.minimum is not None and limit == gate.minimum)
    return GateResult(
        gate=gate.name,
        metric=gate.metric,
        verdict=verdict,
        reason=reason,
        value=value,
        limit=limit,
        direction="at least" if at_least else "at most",
        blocking=gate.blocking,
    )


def _judge_limit(gate: GateSpec, report: EvaluationReport) -> GateResult:
    if METRICS[gate.metric].quality:
        found = report.quality.get(gate.metric)
        value = None if found is None else found.value
    else:
        value = report.operational.get(gate.metric)
    return _bounded(gate, value, of=gate.metric)


def _bounded(gate: GateSpec, value: float | None, *, of: str) -> GateResult:
    limit = gate.minimum if gate.minimum is not None else gate.maximum
    if value is None or not isfinite(value):
        return _result(gate, Verdict.INCONCLUSIVE, f"{of} was not measured, so it cannot pass", None, limit)
    if gate.minimum is not None and value < gate.minimum:
        reason = f"{of} is {value:.6g}, below the minimum {gate.minimum:g}{_leak_hint(gate, Direction.LOWER)}"
        return _result(gate, Verdict.FAILED, reason, value, gate.minimum)
    if gate.maximum is not None and value > gate.maximum:
        reason = f"{of} is {value:.6g}, above the maximum {gate.maximum:g}{_leak_hint(gate, Direction.HIGHER)}"
        return _result(gate, Verdict.FAILED, reason, value, gate.maximum)
    return _result(gate, Verdict.PASSED, f"{of} is {value:.6g}, within the limit", value, limit)


def _leak_hint(gate: GateSpec, crossed: Direction) -> str:
    metric = METRICS[gate.metric]
    return "; better than plausible, look for a leak" if metric.quality and metric.direction is crossed else ""


def _judge_slices(gate: GateSpec, report: EvaluationReport) -> GateResult:
    values = report.slices.get(gate.slice or "", {})
    found = {key: of.get(gate.metric) for key, of in values.items()}
    small = sorted(key for key, m in found.items() if m is not None and m.n_rows < gate.minimum_rows)
    judged = [
        _bounded(gate, None if m is None else m.value, of=f"{gate.metric} of {gate.slice}={key}")
        for key, m in found.items()
        if key not in small
    ]
    named = ", ".join(small[:5])
    left_out = f"; {len(small)} slice(s) under {gate.minimum_rows} rows not judged: {named}" if small else ""
    if not judged:
        reason = f"no value of '{gate.slice}' has {gate.minimum_rows} held-out rows{left_out}"
        return _result(gate, Verdict.INCONCLUSIVE, reason, None)
    order = list(Verdict)
    worst = max(judged, key=lambda r: (order.index(r.verdict), _badness(gate, r.value)))
    reason = f"worst of {len(judged)} slice(s): {worst.reason}{left_out}"
    return _result(gate, worst.verdict, reason, worst.value, worst.limit)


def _badness(gate: GateSpec, value: float | None) -> float:
    if value is None:
        return 0.0
    return -value if gate.minimum is not None else value


def _judge_against_production(gate: GateSpec, report: EvaluationReport) -> GateResult:
    if gate.metric not in report.quality or report.quality[gate.metric].value is None:
        reason = f"{gate.metric} was not measured, so it cannot pass"
        return _result(gate, Verdict.INCONCLUSIVE, reason, None, -gate.margin)
    if report.baseline is None:
        reason = "first release: nothing is in Production to compare with; the other gates decide"
        return _result(gate, Verdict.PASSED, reason, report.quality[gate.metric].value, None)
    comparison = report.baseline.comparisons.get(gate.metric)
    if comparison is None:
        reason = f"{gate.metric} could not be compared with {report.baseline.named}"
        return _result(gate, Verdict.INCONCLUSIVE, reason, None, -gate.margin)
    lower, upper = comparison.bound(1 - gate.confidence), comparison.bound(gate.confidence)
    if lower is None or upper is None:
        reason = f"a confidence of {gate.confidence:g} cannot be judged: bootstrap bounds go up to 0.995"
        return _result(gate, Verdict.INCONCLUSIVE, reason, comparison.improvement, -gate.margin)
    said = (
        f"{gate.metric} {comparison.candidate:.6g} against {comparison.production:.6g} of {report.baseline.named}: "
        f"improvement {comparison.improvement + 0.0:+.6g}, "
        f"{gate.confidence:.0%} bounds {lower:+.6g} to {upper:+.6g}, accepted from {-gate.margin:+g}"
    )
    if lower >= -gate.margin:
        return _result(gate, Verdict.PASSED, said, comparison.improvement, -gate.margin)
    if upper < -gate.margin:
        return _result(gate, Verdict.FAILED, said, comparison.improvement, -gate.margin)
    reason = f"{said}; more held-out rows would decide"
    return _result(gate, Verdict.INCONCLUSIVE, reason, comparison.improvement, -gate.margin)
