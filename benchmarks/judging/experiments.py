"""How often the judge is wrong, and how soon it is right, beside three other rules on the same streams.

- A/A: streams of two versions that are alike, looked at after every window. How many are aborted?
- At the margin: streams of a version that is exactly as much worse as the gate accepts. How many are aborted, how many
  pass? Here the stated levels are all that protects.
- Regressions: how many are found within the hour, and after how many of the candidate's requests?
- Holes: streams in which a blocking metric is missing in some way. How many pass?

The others: the same question at the same level asked by a z-test once, at a horizon fixed before (the first window at
which nine in ten are found); by the z-test after every window (peeking); by one for any difference at all, as it is
most often done (naive); and Kayenta's rule after every window.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil, log

import numpy as np
from scipy.stats import beta

from benchmarks.judging.late_labels import ALIKE, WORSE, Labelled, late_stream
from benchmarks.judging.peers import calls, kayenta
from benchmarks.judging.streams import (
    BOUGHT,
    START,
    START_MINUTE,
    Pair,
    Traffic,
    Version,
    stream,
    without,
)
from release_platform.domain.coverage import Holes
from release_platform.domain.gates import Verdict
from release_platform.domain.judge import SETTLE_S, Evidence, Plan, evidence_over_time, measure, plan, settled_minute
from release_platform.domain.rollout import Begun, Rollout, advance, begin
from release_platform.domain.sequential import FINE_AT, Counts, growth_if_fine
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, StepSpec, Strategy
from release_platform.domain.windows import Window

GATES = (
    LiveGateSpec(metric=LiveMetric.ERRORS),
    LiveGateSpec(metric=LiveMetric.LATENCY),
    LiveGateSpec(metric=LiveMetric.PREDICTIONS),
    LiveGateSpec(metric=LiveMetric.LABEL_QUALITY),
    LiveGateSpec(metric=LiveMetric.OUTCOME, outcome=BOUGHT, limit=1.0),
)
PAIRED = (LiveGateSpec(metric=LiveMetric.DISAGREEMENT),)
RULES = ("judge", "peeking", "naive", "kayenta")
POWER = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A version that is worse in one metric: which gate must find it, what it is, and what it is at the margin.

    `at_margin` is None where no version is at the margin in every minute.
    """

    name: str
    gate: str
    worse: Version
    at_margin: Version | None
    said: str


CASES = (
    Case(
        name="errors", gate="errors", worse=Version(errors=0.03), at_margin=None,
        said="1 % fail -> 3 %",
    ),
    Case(
        name="NaN", gate="errors", worse=Version(not_finite=0.03), at_margin=Version(not_finite=0.0101),
        said="0 % of answers NaN -> 3 %",
    ),
    Case(
        name="latency", gate="latency", worse=Version(slower=1.5), at_margin=None,
        said="every request 50 % slower",
    ),
    Case(
        name="drift", gate="predictions", worse=Version(shift=0.6), at_margin=None,
        said="log-odds of all predictions + 0.6",
    ),
    Case(
        name="label quality", gate="label_quality", worse=Version(wrong=0.2), at_margin=Version(wrong=0.15),
        said="10 % wrong -> 20 %",
    ),
    Case(
        name="business outcome", gate=f"outcome_{BOUGHT}", worse=Version(bought=0.1), at_margin=Version(bought=0.15),
        said="20 % buy -> 10 %",
    ),
    Case(
        name="disagreement", gate="disagreement", worse=Version(differing=0.2), at_margin=Version(differing=0.1),
        said="20 % of pairs differ",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What each rule said of one stream of one gate, each after how many of the candidate's requests; None: never."""

    failed: Mapping[str, int | None]
    passed: int | None
    requests: tuple[int, ...]
    at_once: tuple[bool, ...]


def rollout_of(gates: tuple[LiveGateSpec, ...], *, shadow: bool = False) -> Rollout:
    """Returns a rollout of version 2 against version 1 in its first stage."""
    strategy = Strategy.SHADOW if shadow else Strategy.CANARY
    return begun(RolloutSpec(strategy=strategy, canary=(StepSpec(weight=0.25, minimum_s=60),), gates=gates))


def begun(spec: RolloutSpec) -> Rollout:
    """Returns a rollout of version 2 against version 1 whose first stage has begun."""
    entered, _ = begin(rollout_id="r", model="churn", candidate="2", stable="1", plan=spec, at=START)
    return advance(entered, Begun(stage=0, at=START))[0]


def evidence_of(rollout: Rollout, windows: Iterable[Window], *, at: datetime, holes: Holes | None = None) -> Evidence:
    """Returns what there is to judge of a rollout's present stage, which is not full traffic, at a moment."""
    planned = plan(rollout)
    assert planned is not None
    return Evidence(planned=planned, windows=tuple(windows), until=settled_minute(at), holes=holes or {})


def seen(seed: int, version: Version, gates: Iterable[str], *, others: bool = True) -> dict[str, Seen]:
    """Returns what the rules say of one stream, for each of these gates."""
    wanted = set(gates)
    shadow = wanted == {"disagreement"}
    pairs = stream(seed, version, shadow=shadow)
    planned = plan(rollout_of(PAIRED if shadow else GATES, shadow=shadow))
    assert planned is not None
    planned = replace(planned, gates=tuple(gate for gate in planned.gates if gate.name in wanted))
    measured = measure(planned, (w for pair in pairs for w in pair), until=START_MINUTE + len(pairs) - 1, holes={})
    requests = tuple(int(n) for n in np.cumsum([candidate.requests for candidate, _ in pairs]))
    return {
        gate.name: _seen(gate, planned, measured.tables[gate.name], requests, others=others and not shadow)
        for gate in planned.gates
    }


def _seen(gate: LiveGateSpec, planned: Plan, tables: Counts, requests: tuple[int, ...], *, others: bool) -> Seen:
    worse, fine = evidence_over_time(gate, tables)
    found = {"judge": worse >= log(1 / planned.level_worse)}
    once = np.zeros(len(requests), dtype=bool)
    if others:
        middle = tables[[2, 7]] if len(tables) > 2 else tables  # Kayenta takes one number a minute, both directions
        once = calls(tables, gate.accepted, planned.level_worse)
        naive = calls(tables, 0.0, planned.level_worse)
        found |= {"peeking": once, "naive": naive, "kayenta": kayenta(middle)}
    first = {rule: _first(said, requests) for rule, said in found.items()}
    passed = _first(fine >= log(1 / planned.level_fine), requests)
    return Seen(failed=first, passed=passed, requests=requests, at_once=tuple(bool(said) for said in once))


def _first(said: np.ndarray, requests: tuple[int, ...]) -> int | None:
    return requests[int(said.argmax())] if said.any() else None


def at_most(k: int, n: int) -> float:
    """Returns the upper end of the one-sided 95 % interval of a share (Clopper, Pearson)."""
    return 1.0 if k == n else float(beta.ppf(0.95, k + 1, n - k))


def alike(n: int, *, seed: int = 0) -> dict[str, dict[str, int]]:
    """Returns for each gate how many of n A/A streams each rule aborts; `any` counts a stream once, whatever gate."""
    aborted = {gate.name: dict.fromkeys(RULES, 0) for gate in GATES} | {"any": dict.fromkeys(RULES, 0)}
    for at in range(n):
        found = seen(seed + at, Version(), [gate.name for gate in GATES])
        for rule in RULES:
            gates = [name for name, one in found.items() if one.failed[rule] is not None]
            for name in gates:
                aborted[name][rule] += 1
            aborted["any"][rule] += bool(gates)
    paired = [seen(seed + at, Version(), ["disagreement"])["disagreement"] for at in range(n)]
    return aborted | {"disagreement": {"judge": sum(one.failed["judge"] is not None for one in paired)}}


def late_labels(n_alike: int, n_worse: int, *, seed: int = 6_000_000) -> dict[str, int]:
    """Returns what the judge says of versions whose labels come late: a good one, and one that is worse."""
    (gate,) = (gate for gate in GATES if gate.metric is LiveMetric.LABEL_QUALITY)
    planned = plan(rollout_of((gate,)))
    assert planned is not None

    def ended(at: int, version: Labelled) -> tuple[bool, bool]:
        pairs = late_stream(seed + at, version)
        measured = measure(planned, (w for pair in pairs for w in pair), until=START_MINUTE + len(pairs) - 1, holes={})
        worse, fine = evidence_over_time(gate, measured.tables[gate.name])
        failed, passed = worse >= log(1 / planned.level_worse), fine >= log(1 / planned.level_fine)
        first = len(pairs) if not failed.any() else int(failed.argmax())
        return bool(failed.any()), bool(passed[:first].any())

    alike, worse = ([ended(at, one) for at in range(n)] for one, n in ((ALIKE, n_alike), (WORSE, n_worse)))
    return {
        "aborted": sum(failed and not passed for failed, passed in alike),
        "passed": sum(passed for _, passed in worse),
        "found": sum(failed and not passed for failed, passed in worse),
    }


def at_margin(case: Case, n: int, *, seed: int = 1_000_000) -> dict[str, float]:
    """Returns how many of n streams at the margin the judge and the peeking test abort, and how many pass."""
    assert case.at_margin is not None
    found = [seen(seed + at, case.at_margin, [case.gate])[case.gate] for at in range(n)]
    counted = {rule: sum(one.failed.get(rule) is not None for one in found) for rule in ("judge", "peeking")}
    shadow = case.gate == "disagreement"
    planned = plan(rollout_of(PAIRED if shadow else GATES, shadow=shadow))
    assert planned is not None
    levels = {"level_worse": planned.level_worse, "level_fine": planned.level_fine}
    return counted | {"passed": sum(one.passed is not None for one in found)} | levels


def regressions(case: Case, n: int, *, seed: int = 2_000_000) -> dict[str, dict[str, float | None]]:
    """Returns how much of n streams each rule finds, and after how many of the candidate's requests: median, 90 %."""
    found = [seen(seed + at, case.worse, [case.gate])[case.gate] for at in range(n)]
    summary = {rule: _summary([one.failed[rule] for one in found]) for rule in RULES if rule in found[0].failed}
    power = np.array([one.at_once for one in found]).mean(axis=0)
    if (power >= POWER).any():
        horizon = int(np.median([one.requests[int((power >= POWER).argmax())] for one in found]))
        summary["fixed"] = {"found": float(power[(power >= POWER).argmax()]), "median": horizon, "most": horizon}
    summary["passed"] = {"found": sum(one.passed is not None for one in found) / n, "median": None, "most": None}
    return summary


def _summary(first: list[int | None]) -> dict[str, float | None]:
    ordered = sorted(n for n in first if n is not None)

    def reached(share: float) -> int | None:
        rank = int(np.ceil(share * len(first))) - 1
        return ordered[rank] if rank < len(ordered) else None

    return {"found": len(ordered) / len(first), "median": reached(0.5), "most": reached(0.9)}


def to_pass(n: int, *, seed: int = 3_000_000) -> dict[str, dict[str, float | None]]:
    """Returns for each gate how many A/A streams pass it, and after how many of the candidate's requests."""
    names = [gate.name for gate in GATES]
    found = [seen(seed + at, Version(), names, others=False) for at in range(n)]
    paired = [seen(seed + at, Version(), ["disagreement"]) for at in range(n)]
    every = {name: _summary([one[name].passed for one in found]) for name in names}
    return every | {"disagreement": _summary([one["disagreement"].passed for one in paired])}


def strictness(n: int, *, seed: int = 5_000_000) -> dict[str, dict[str, float | None]]:
    """Returns for some values of `false_abort` how many streams with three times the errors are found, and how soon."""
    gate, planned = GATES[0], plan(rollout_of(GATES))
    assert planned is not None
    paths = []
    for at in range(n):
        pairs = stream(seed + at, CASES[0].worse)
        measured = measure(planned, (w for pair in pairs for w in pair), until=START_MINUTE + len(pairs) - 1, holes={})
        requests = tuple(int(k) for k in np.cumsum([candidate.requests for candidate, _ in pairs]))
        paths.append((evidence_over_time(gate, measured.tables[gate.name])[0], requests))
    return {
        f"{stated:g}": _summary([_first(worse >= log(len(GATES) / stated), requests) for worse, requests in paths])
        for stated in (0.05, 0.01, 0.001)
    }


def requests_to_pass(share: float, margin: float) -> int:
    """Returns about how many requests pass a gate if both arms have this share, at a quarter of the traffic."""
    lacking = log(len(FINE_AT)) + log(1 / RolloutSpec().false_pass)  # the first: what an average over guesses costs
    return ceil(lacking / growth_if_fine(share, 3.0, margin))


SHORT = Traffic(per_minute=2400, minutes=16)


def holed(seed: int) -> tuple[list[Window], list[Window]]:
    """Returns a good stream, and the same with a blocking metric missing in a way that the seed chooses."""
    random = np.random.default_rng([seed, 1])
    pairs, arm = stream(seed, Version(), traffic=SHORT), int(random.integers(2))
    whole = [window for pair in pairs for window in pair]
    way = random.choice(["family", "arm", "empty", "stale", "holes", "late family", "nothing"])
    minutes = set(range(len(pairs)))
    if way in {"family", "late family"}:
        family = random.choice(["latency", "predictions", "outcomes"])
        seen_in = {int(random.integers(len(pairs)))} if way == "late family" and family != "outcomes" else set()
        lost = minutes - seen_in  # outcomes come when they come: a minute with hundreds of them would be evidence
        return whole, [without(w, family) if t in lost and i == arm else w for t, i, w in _each(pairs)]
    if way == "empty":
        return whole, [Window(key=w.key) if i == arm else w for _, i, w in _each(pairs)]
    if way == "stale":
        lost = set(range(len(pairs) - int(random.integers(3, len(pairs))), len(pairs)))
    elif way == "holes":
        lost = set(random.choice(len(pairs), size=int(random.integers(2, len(pairs))), replace=False).tolist())
    else:
        lost = minutes
    both = way == "nothing"
    return whole, [w for t, i, w in _each(pairs) if not (t in lost and (both or i == arm))]


def _each(pairs: list[Pair]) -> list[tuple[int, int, Window]]:
    return [(t, i, window) for t, pair in enumerate(pairs) for i, window in enumerate(pair)]


def holes(n: int, *, seed: int = 4_000_000) -> dict[str, int]:
    """Returns how many of n streams with a blocking metric missing pass, and of the first of them without the hole."""
    n_whole = min(n, 1000)
    passed = {"holed": 0, "whole": 0, "n_whole": n_whole}
    for at in range(n):
        whole, windows = holed(seed + at)
        passed["holed"] += _passes(windows)
        passed["whole"] += at < n_whole and _passes(whole)
    return passed


def _passes(windows: list[Window]) -> bool:
    at = START + timedelta(minutes=SHORT.minutes, seconds=SETTLE_S)
    return evidence_of(rollout_of(GATES), windows, at=at).verdict is Verdict.PASSED
