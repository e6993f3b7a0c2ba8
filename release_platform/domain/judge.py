"""Judges a candidate on live traffic against the stable version in the same minutes: plan, measure, assess.

Every live metric is a share of bad requests, and every gate one rule: the candidate's share is at most the margin above
the stable version's. Two e-processes (see `sequential`) collect evidence against each side of it:

- **failed**: the evidence that the candidate is worse than accepted reached `1 / level`. The levels of all gates and
  stages add up to `false_abort` (Bonferroni over e-values, which holds however the metrics depend on each other): a
  version that is in no minute worse than accepted is aborted with at most that probability, at whatever times and
  however often one looks.
- **passed**: the evidence that it is *not* worse than accepted reached `1 / false_pass`. A stage passes when all its
  blocking gates have; each of them must, so there is nothing to add up: a version that is in every minute worse than a
  blocking gate accepts passes the stage with at most that probability. Requests without a failure are evidence as any
  other; their mere number is none.
- **inconclusive**: neither yet; the reason says how many more requests would do. No data, an empty arm, holes in what
  is measured and windows that stopped coming are inconclusive whatever the evidence, and after the stage's maximum time
  an inconclusive stage is aborted (`rollout`).

A minute of which not all was handed in is such a hole (`coverage`). What was handed in of it is evidence that the
candidate is worse, and none that it is not: what is lacking may be what was bad.

Each stage is judged on its own windows. Evidence once reached stays: what counts is its maximum over the looks.

What is usual is taken from earlier windows of the stage; its first window is no evidence yet.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from math import ceil, exp, log
from typing import Any

import numpy as np

from release_platform.domain.coverage import Holes
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.live_metrics import Arms, is_measured, tables_of
from release_platform.domain.percent import percent, points
from release_platform.domain.rollout import Assessed, Rollout
from release_platform.domain.sequential import Counts, Floats, evidence_fine, evidence_worse, growth_if_fine
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, StageKind
from release_platform.domain.windows import EVERY_SLICE, Route, Window, merged

SETTLE_S = 15.0
"""A minute is judged when it has been over for so long. Whoever keeps the windows leaves out what comes in later, so
that what was judged never changes."""
STALE_MINUTES = 3
"""So many minutes without a window of both arms, up to now, and nothing passes."""
MOST_HOLES = 0.1
"""Largest share of the stage's minutes without a window of both arms with which a gate may pass."""
ONLY_USUAL = "the minutes so far only show what is usual; the next ones are judged by it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be judged in a stage.

    Attributes:
        model: The model's name.
        candidate: The version that comes.
        stable: The version that it is compared with.
        route: Where the candidate answers.
        stage: Index of the stage.
        first_minute: The first whole minute of the stage, since 1970.
        gates: The rules that this stage can measure.
        level_worse: Probability of a false abort of each blocking gate.
        level_fine: Probability of a false pass.
    """

    model: str
    candidate: str
    stable: str
    route: Route
    stage: int
    first_minute: int
    gates: tuple[LiveGateSpec, ...]
    level_worse: float
    level_fine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the windows of a stage say.

    Attributes:
        n: Requests (of a shadow: pairs) that the candidate answered.
        missing: For each gate's name why it cannot pass, whatever its tables say; empty when nothing is in the way.
        tables: For each gate's name, shape (questions, windows, 4 or 2), as `sequential` takes them.
        whole: For each window whether all of its minute was handed in.
    """

    n: int
    missing: Mapping[str, str]
    tables: Mapping[str, Counts]
    whole: Sequence[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a gate found, and on what evidence.

    Attributes:
        result: The gate's result: `value` is the largest difference of shares, `limit` the margin.
        worse: Evidence that the candidate is worse than accepted, in natural logarithms.
        fine: Evidence that it is not.
        n_more: About how many more requests of the candidate would pass it if both arms are alike; 0 once it passed.
    """

    result: GateResult
    worse: float
    fine: float
    n_more: int


def plan(rollout: Rollout) -> Plan | None:
    """Returns what is to be judged in the present stage; None when it has no concurrent control, or all is over."""
    kind = rollout.present.kind
    if rollout.ended or kind is StageKind.FULL:
        return None
    assert rollout.stable is not None
    judged = [rollout.plan.gates_in(stage.kind) for stage in rollout.plan.stages]
    n_tests = sum(gate.blocking for gates in judged for gate in gates)
    return Plan(
        model=rollout.model,
        candidate=rollout.candidate,
        stable=rollout.stable,
        route=Route.CANARY if kind is StageKind.CANARY else Route.SHADOW,
        stage=rollout.stage,
        first_minute=ceil(rollout.since.timestamp() / 60),
        gates=rollout.plan.gates_in(kind),
        level_worse=rollout.plan.false_abort / n_tests,
        level_fine=rollout.plan.false_pass,
    )


def settled_minute(at: datetime) -> int:
    """Returns the last minute, since 1970, that may be judged at a moment."""
    return int((at.timestamp() - SETTLE_S) // 60) - 1


def measure(planned: Plan, windows: Iterable[Window], *, until: int, holes: Holes) -> Measured:
    """Returns what the windows say, from the stage's first minute to `until`, both included.

    Windows of other models, versions, routes and minutes are left out; those of several replicas are added up.
    `holes` are the minutes of which not all was handed in.
    """
    period = range(planned.first_minute, until + 1)
    arms = arms_of(planned, windows, until=until)
    shadow = planned.route is Route.SHADOW
    n = sum(w.pairs.get(EVERY_SLICE, 0) if shadow else w.requests for w, _ in arms)
    return Measured(
        n=n,
        missing={gate.name: _missing(gate, period, arms, holes) for gate in planned.gates},
        tables={gate.name: tables_of(gate, arms, since=planned.first_minute) for gate in planned.gates},
        whole=[candidate.key.minute not in holes for candidate, _ in arms],
    )


def arms_of(planned: Plan, windows: Iterable[Window], *, until: int) -> list[Arms]:
    """Returns the windows of both versions in each minute that has both, from the stage's first minute to `until`."""
    period = range(planned.first_minute, until + 1)
    found = merged(w for w in windows if w.key.model == planned.model and w.key.minute in period)
    candidate = {w.key.minute: w for w in found if (w.key.version, w.key.route) == (planned.candidate, planned.route)}
    stable = {w.key.minute: w for w in found if (w.key.version, w.key.route) == (planned.stable, Route.STABLE)}
    return [(candidate[minute], stable[minute]) for minute in sorted(candidate.keys() & stable.keys())]


def assess(gate: LiveGateSpec, measured: Measured, planned: Plan) -> Assessment:
    """Returns what one gate found. It passes on evidence only, and never while something is missing."""
    tables, missing = measured.tables[gate.name], measured.missing[gate.name]
    if not tables[..., 0].sum() or (tables.shape[-1] == 4 and not tables[..., 2].sum()):
        nothing = missing or _nothing(gate, measured)
        return _assessment(gate, Verdict.INCONCLUSIVE, f"{nothing}, so it cannot pass", None, (0.0, 0.0), 0)
    worse = float(_worse_over_time(gate, tables)[-1])
    fine = float(_fine_over_time(gate, tables * np.array(measured.whole, dtype=np.int64)[:, None])[-1])
    difference, said = _difference(tables)
    n_more = _more(tables, gate.accepted, log(1 / planned.level_fine) - fine)
    accepted = percent(gate.accepted) if tables.shape[-1] == 2 else f"{gate.accepted * 100:.4g}"
    evidence = (worse, fine)
    if worse >= log(1 / planned.level_worse):
        reason = f"{said}, more than the {accepted} accepted"
        return _assessment(gate, Verdict.FAILED, reason, difference, evidence, n_more)
    if missing:
        return _assessment(gate, Verdict.INCONCLUSIVE, f"{said}; {missing}", difference, evidence, n_more)
    if n_more == 0:
        reason = f"{said}, not more than the {accepted} accepted"
        return _assessment(gate, Verdict.PASSED, reason, difference, evidence, 0)
    if tables.shape[-1] == 4 and np.count_nonzero(tables[..., 2].sum(axis=0)) == 1:
        return _assessment(gate, Verdict.INCONCLUSIVE, f"{said}; {ONLY_USUAL}", difference, evidence, n_more)
    what = "pairs" if tables.shape[-1] == 2 else "requests"
    reason = f"{said}; about {n_more:,} more {what} to see whether it is more than {accepted}"
    return _assessment(gate, Verdict.INCONCLUSIVE, reason, difference, evidence, n_more)


def _nothing(gate: LiveGateSpec, measured: Measured) -> str:
    of_past = gate.metric is LiveMetric.PREDICTIONS or (gate.metric is LiveMetric.LATENCY and gate.limit is None)
    if of_past and measured.n and len(measured.whole) == 1:
        return ONLY_USUAL
    return "an arm has nothing to be measured"


def evidence_over_time(gate: LiveGateSpec, tables: Counts) -> tuple[Floats, Floats]:
    """Returns the evidence reached by each window that the candidate is worse than accepted, and that it is not.

    Both have shape (windows,), in natural logarithms, 0 and up, and never fall. A gate that asks several questions
    fails on the average of their evidence, which is evidence too, and passes when the last of them has passed.
    """
    return _worse_over_time(gate, tables), _fine_over_time(gate, tables)


def _worse_over_time(gate: LiveGateSpec, tables: Counts) -> Floats:
    worse = evidence_worse(tables, gate.accepted)
    average = np.logaddexp.reduce(worse, axis=0) - np.log(len(worse))
    return np.maximum(np.maximum.accumulate(average), 0.0)


def _fine_over_time(gate: LiveGateSpec, tables: Counts) -> Floats:
    last: Floats = np.maximum.accumulate(evidence_fine(tables, gate.accepted), axis=-1).min(axis=0)
    return np.maximum(last, 0.0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What there is to judge of a stage, and what it comes to. It is measured and judged once, when it is asked for.

    Attributes:
        planned: What is asked.
        windows: The windows of the stage; others are left out.
        until: The last minute, that one included.
        holes: The minutes of which not all was handed in.
    """

    planned: Plan
    windows: tuple[Window, ...]
    until: int
    holes: Holes

    @cached_property
    def measured(self) -> Measured:
        """What each gate counts."""
        return measure(self.planned, self.windows, until=self.until, holes=self.holes)

    @cached_property
    def found(self) -> tuple[Assessment, ...]:
        """What each gate finds, in order."""
        return tuple(assess(gate, self.measured, self.planned) for gate in self.planned.gates)

    @property
    def verdict(self) -> Verdict:
        """What the blocking gates found together: failed where one did, passed where all of them did."""
        blocking = [one.result for one in self.found if one.result.blocking]
        failed = any(result.verdict is Verdict.FAILED for result in blocking)
        passed = bool(blocking) and all(result.passed for result in blocking)
        return Verdict.FAILED if failed else Verdict.PASSED if passed else Verdict.INCONCLUSIVE

    def event(self, at: datetime) -> Assessed:
        """Returns the event for `rollout.advance`, with the reasons of the gates that decide."""
        waiting = [one.result for one in self.found if one.result.blocking and not one.result.passed]
        deciding = [result for result in waiting if result.verdict is Verdict.FAILED] or waiting
        reason = "; ".join(f"{result.gate}: {result.reason}" for result in deciding) or "every blocking gate passed"
        return Assessed(
            stage=self.planned.stage, minute=self.until, verdict=self.verdict, n=self.measured.n, reason=reason, at=at
        )

    def to_json(self) -> dict[str, Any]:
        """Returns all that each gate counted, minute by minute, and what it found, as a JSON value."""
        return {
            "first_minute": self.planned.first_minute,
            "last_minute": self.until,
            "holes": {str(minute): list(urls) for minute, urls in self.holes.items()},
            "whole": list(self.measured.whole),
            "gates": [
                {
                    **asdict(one.result),
                    "worse": one.worse,
                    "fine": one.fine,
                    "counts": self.measured.tables[one.result.gate].tolist(),
                }
                for one in self.found
            ],
        }


def _missing(gate: LiveGateSpec, period: range, arms: Sequence[Arms], holes: Holes) -> str:
    if not any(candidate.requests for candidate, _ in arms) or not any(stable.requests for _, stable in arms):
        return "there are no requests of both versions in the same minutes"
    measured = {c.key.minute for c, s in arms if is_measured(gate, c) and is_measured(gate, s)} - holes.keys()
    missing = [minute for minute in period if minute not in measured]
    silent = period[-1] - max(measured, default=period[0] - 1)
    if silent >= STALE_MINUTES:
        return f"the last {silent} minutes were not measured on both versions{_who(missing[-silent:], holes)}"
    if len(missing) > MOST_HOLES * len(period):
        return f"{len(missing)} of {len(period)} minutes were not measured on both versions{_who(missing, holes)}"
    return ""


def _who(minutes: Collection[int], holes: Holes) -> str:
    lacking = sorted({url for minute in minutes for url in holes.get(minute, ())})
    if not lacking:
        return ""
    return f": not all that {' and '.join(lacking)} counted was handed in, or not by the share that the version has"


def worst_question(tables: Counts) -> int:
    """Returns which question shows the largest difference of shares; the first one of pairs, which ask one only.

    Args:
        tables: Shape (questions, windows, 4 or 2), as `sequential` takes them.
    """
    if tables.shape[-1] == 2:
        return 0
    total = tables.sum(axis=1)
    return int((total[:, 1] / np.maximum(total[:, 0], 1) - total[:, 3] / np.maximum(total[:, 2], 1)).argmax())


def _difference(tables: Counts) -> tuple[float, str]:
    """Returns the largest difference of shares over a gate's questions, and the sentence that says it."""
    total = tables[worst_question(tables)].sum(axis=0)
    if tables.shape[-1] == 2:
        n, k = total
        return float(k / n), f"{percent(k / n)} of {n:,} pairs differ"
    n_c, k_c, n_s, k_s = total
    c, s = float(k_c / max(n_c, 1)), float(k_s / max(n_s, 1))
    return c - s, f"{percent(c)} of {n_c:,} bad against {percent(s)} of {n_s:,} stable: {points(c - s)}"


def _more(tables: Counts, margin: float, lacking: float) -> int:
    """Returns about how many more of the candidate's requests bring the lacking evidence if both arms are alike."""
    if lacking <= 0:
        return 0
    total = tables.sum(axis=1)
    if tables.shape[-1] == 2:
        n, k = total[0]
        growth = growth_if_fine(min((k + 0.5) / (n + 1), margin / 2), None, margin)
    else:
        hardest = total[(abs(total[:, 3] / np.maximum(total[:, 2], 1) - 0.5)).argmin()]
        n_c, _, n_s, k_s = (int(count) for count in hardest)
        growth = growth_if_fine((k_s + 0.5) / (n_s + 1), n_s / max(n_c, 1), margin)
    return max(ceil(min(lacking / growth, exp(40))), 1)


def _assessment(
    gate: LiveGateSpec, verdict: Verdict, reason: str, value: float | None, evidence: tuple[float, float], n_more: int
) -> Assessment:
    result = GateResult(
        gate=gate.name,
        metric=gate.metric.value,
        verdict=verdict,
        reason=reason,
        value=value,
        limit=gate.accepted,
        direction="at most",
        blocking=gate.blocking,
    )
    worse, fine = evidence
    return Assessment(result=result, worse=worse, fine=fine, n_more=n_more)
