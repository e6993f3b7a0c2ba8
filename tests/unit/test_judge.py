"""The judge: what passes, what fails, what waits, and that nothing passes on what is missing."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from benchmarks.judging.experiments import begun, evidence_of
from benchmarks.judging.late_labels import ALIKE, WORSE, late_stream
from benchmarks.judging.streams import BOUGHT, START, START_MINUTE, Pair, Traffic, Version, stream, without
from release_platform.domain.coverage import Holes
from release_platform.domain.flips import flip_report
from release_platform.domain.gates import Verdict
from release_platform.domain.judge import (
    MOST_HOLES,
    ONLY_USUAL,
    SETTLE_S,
    STALE_MINUTES,
    Assessment,
    evidence_over_time,
    measure,
    plan,
    settled_minute,
)
from release_platform.domain.live_metrics import tables_of
from release_platform.domain.metrics import Direction
from release_platform.domain.rollout import Assessed, Order, Ordered, Rollout, RolloutState, advance
from release_platform.domain.sequential import evidence_fine, evidence_worse
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, StepSpec, Strategy
from release_platform.domain.windows import EVERY_SLICE, Route, Window, WindowKey

GATES = (
    LiveGateSpec(metric=LiveMetric.ERRORS),
    LiveGateSpec(metric=LiveMetric.LATENCY),
    LiveGateSpec(metric=LiveMetric.PREDICTIONS),
    LiveGateSpec(metric=LiveMetric.LABEL_QUALITY),
    LiveGateSpec(metric=LiveMetric.OUTCOME, outcome=BOUGHT, limit=1.0),
    LiveGateSpec(metric=LiveMetric.DISAGREEMENT),
)
SPEC = RolloutSpec(strategy=Strategy.CANARY, canary=(StepSpec(weight=0.25, minimum_s=60),), gates=GATES)
GOOD = Version()
ARMS = (("2", Route.CANARY), ("1", Route.STABLE))


def rollout_of(spec: RolloutSpec = SPEC) -> Rollout:
    return begun(spec)


def judged(
    pairs: list[Pair],
    *,
    rollout: Rollout | None = None,
    minutes: int | None = None,
    holes: Holes | None = None,
) -> tuple[Assessed, dict[str, Assessment]]:
    """Returns what one look sees right after so many minutes have settled; by default after all."""
    minutes = len(pairs) if minutes is None else minutes
    at = START + timedelta(minutes=minutes, seconds=SETTLE_S)
    windows = (window for pair in pairs for window in pair)
    evidence = evidence_of(rollout or rollout_of(), windows, at=at, holes=holes)
    return evidence.event(at), {assessment.result.gate: assessment for assessment in evidence.found}


BAD = {
    "errors": Version(errors=0.04),
    "latency": Version(slower=1.7),
    "predictions": Version(shift=0.8),
    "label_quality": Version(wrong=0.25),
    f"outcome_{BOUGHT}": Version(bought=0.05),
}


def test_a_version_that_is_alike_passes_every_gate() -> None:
    event, found = judged(stream(1, GOOD))
    assert {gate: a.result.verdict for gate, a in found.items()} == dict.fromkeys(BAD, Verdict.PASSED)
    assert (event.verdict, event.reason) == (Verdict.PASSED, "every blocking gate passed")


@pytest.mark.parametrize("gate", BAD)
def test_a_version_that_is_worse_fails_the_gate_that_measures_it(gate: str) -> None:
    event, found = judged(stream(2, BAD[gate]))
    assert {name for name, a in found.items() if a.result.verdict is Verdict.FAILED} == {gate}
    assert event.verdict is Verdict.FAILED
    assert event.reason.startswith(f"{gate}: ")
    assert "more than the" in event.reason


def test_answers_that_are_nan_fail_the_errors() -> None:
    event, found = judged(stream(3, Version(not_finite=0.05)))
    assert found["errors"].result.verdict is Verdict.FAILED
    assert event.verdict is Verdict.FAILED


def test_a_better_version_passes() -> None:
    event, _ = judged(stream(4, Version(errors=0.0, slower=0.5, wrong=0.02, bought=0.4)))
    assert event.verdict is Verdict.PASSED


def test_predictions_fail_in_both_directions() -> None:
    for shift in (-0.8, 0.8):
        assert judged(stream(5, Version(shift=shift)))[1]["predictions"].result.verdict is Verdict.FAILED


LATE_LABELS = replace(SPEC, gates=(LiveGateSpec(metric=LiveMetric.LABEL_QUALITY),))


@pytest.mark.parametrize("minutes", [5, 30, 59, 61, 90, 120])
def test_labels_that_come_sooner_where_both_are_worse_abort_nothing(minutes: int) -> None:
    events = [judged(late_stream(seed, ALIKE)[:minutes], rollout=rollout_of(LATE_LABELS))[0] for seed in range(20)]
    assert Verdict.FAILED not in {event.verdict for event in events}


def test_a_version_that_is_worse_at_every_age_of_its_labels_does_not_pass_on_the_first_ones() -> None:
    for seed in range(10):
        pairs = late_stream(seed, WORSE)
        verdicts = [judged(pairs, minutes=m, rollout=rollout_of(LATE_LABELS))[0].verdict for m in range(5, 121, 5)]
        assert Verdict.PASSED not in verdicts[: verdicts.index(Verdict.FAILED)]


def test_where_lower_outcomes_are_better_a_rise_fails() -> None:
    gate = LiveGateSpec(metric=LiveMetric.OUTCOME, outcome=BOUGHT, limit=0.0, better=Direction.LOWER)
    rollout = rollout_of(replace(SPEC, gates=(gate,)))
    assert judged(stream(6, Version(bought=0.4)), rollout=rollout)[0].verdict is Verdict.FAILED
    assert judged(stream(6, Version(bought=0.05)), rollout=rollout)[0].verdict is Verdict.PASSED


def test_a_fixed_limit_of_latency_holds_in_place_of_a_quantile() -> None:
    for limit, verdict in ((30.0, Verdict.FAILED), (500.0, Verdict.PASSED)):
        spec = replace(SPEC, gates=(LiveGateSpec(metric=LiveMetric.LATENCY, limit=limit),))
        assert judged(stream(7, Version(slower=1.7)), rollout=rollout_of(spec))[0].verdict is verdict


def test_an_advisory_gate_is_measured_and_never_decides() -> None:
    gates = (replace(GATES[0], blocking=False), GATES[1])
    event, found = judged(stream(8, Version(errors=0.2)), rollout=rollout_of(replace(SPEC, gates=gates)))
    assert found["errors"].result.verdict is Verdict.FAILED
    assert event.verdict is Verdict.PASSED


def test_an_inconclusive_gate_says_about_how_many_more_requests_it_takes() -> None:
    told, took = [], []
    for seed in range(10, 40):
        pairs = stream(seed, GOOD)
        assessment = judged(pairs[:5])[1]["errors"]
        if assessment.result.verdict is Verdict.INCONCLUSIVE:
            assert f"about {assessment.n_more:,} more requests" in assessment.result.reason
            needed = next(t for t in range(5, 60) if judged(pairs[:t])[1]["errors"].result.passed)
            told.append(assessment.n_more)
            took.append(sum(candidate.requests for candidate, _ in pairs[5:needed]))
    assert len(told) >= 10
    assert 0.5 <= np.median(told) / np.median(took) <= 2


@pytest.mark.parametrize("seed", [50, 51])
def test_looking_after_each_window_finds_what_one_look_at_the_end_finds(seed: int) -> None:
    pairs = stream(seed, Version(errors=0.025), traffic=Traffic(minutes=20))
    planned = plan(rollout_of())
    assert planned is not None
    measured = measure(planned, [w for pair in pairs for w in pair], until=START_MINUTE + 19, holes={})
    for gate in planned.gates:
        worse, fine = evidence_over_time(gate, measured.tables[gate.name])
        for t in range(20):
            found = judged(pairs[: t + 1])[1][gate.name]
            assert (found.worse, found.fine) == pytest.approx((worse[t], fine[t]), rel=1e-9)


def holed(pairs: list[Pair], *, arm: int, minutes: set[int]) -> list[Window]:
    return [w for t, pair in enumerate(pairs) for i, w in enumerate(pair) if not (i == arm and t in minutes)]


def verdict_of(windows: list[Window], *, minutes: int = 60) -> tuple[Verdict, str]:
    at = START + timedelta(minutes=minutes, seconds=SETTLE_S)
    event = evidence_of(rollout_of(), windows, at=at).event(at)
    return event.verdict, event.reason


def test_no_windows_never_pass() -> None:
    for minutes in (0, 1, 60):
        verdict, reason = verdict_of([], minutes=minutes)
        assert verdict is Verdict.INCONCLUSIVE
        assert "no requests of both versions" in reason


@pytest.mark.parametrize("arm", [0, 1])
def test_one_arm_alone_never_passes(arm: int) -> None:
    pairs = stream(60, GOOD)
    assert verdict_of(holed(pairs, arm=arm, minutes=set(range(60))))[0] is Verdict.INCONCLUSIVE
    empty = [Window(key=w.key) if i == arm else w for pair in pairs for i, w in enumerate(pair)]
    assert verdict_of(empty)[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("arm", [0, 1])
def test_windows_that_stopped_coming_never_pass(arm: int) -> None:
    pairs = stream(61, GOOD)
    fresh = holed(pairs, arm=arm, minutes=set(range(60 - STALE_MINUTES + 1, 60)))
    assert verdict_of(fresh)[0] is Verdict.PASSED
    stale = holed(pairs, arm=arm, minutes=set(range(60 - STALE_MINUTES, 60)))
    verdict, reason = verdict_of(stale)
    assert verdict is Verdict.INCONCLUSIVE
    assert f"the last {STALE_MINUTES} minutes" in reason


def test_too_many_holes_never_pass() -> None:
    pairs, most = stream(62, GOOD), round(MOST_HOLES * 60)
    assert verdict_of(holed(pairs, arm=0, minutes=set(range(10, 10 + most))))[0] is Verdict.PASSED
    verdict, reason = verdict_of(holed(pairs, arm=1, minutes=set(range(10, 11 + most))))
    assert verdict is Verdict.INCONCLUSIVE
    assert f"{most + 1} of 60 minutes" in reason


def holes_at(*minutes: int) -> Holes:
    return {START_MINUTE + minute: ["http://two"] for minute in minutes}


def test_minutes_of_which_not_all_was_handed_in_never_pass_and_name_who_owes_them() -> None:
    event, found = judged(stream(61, GOOD), holes=holes_at(*range(60)))
    assert (event.verdict, {one.fine for one in found.values()}) == (Verdict.INCONCLUSIVE, {0.0})
    assert "the last 60 minutes were not measured" in event.reason
    assert "not all that http://two counted was handed in" in event.reason


def test_a_few_of_them_hold_up_nothing_and_are_no_evidence_that_a_version_is_fine() -> None:
    pairs, most = stream(62, GOOD), round(MOST_HOLES * 60)
    few = judged(pairs, holes=holes_at(*range(10, 10 + most)))
    assert few[0].verdict is Verdict.PASSED
    without_them = judged(pairs[:10] + pairs[10 + most :], minutes=60)[1]["errors"]
    assert few[1]["errors"].fine == pytest.approx(without_them.fine)
    assert few[1]["errors"].worse == judged(pairs)[1]["errors"].worse
    event, _ = judged(pairs, holes=holes_at(*range(10, 11 + most)))
    assert event.verdict is Verdict.INCONCLUSIVE
    assert f"{most + 1} of 60 minutes were not measured on both versions: not all that http://two" in event.reason


def test_what_was_handed_in_of_them_still_fails_a_bad_version() -> None:
    assert judged(stream(64, BAD["errors"]), holes=holes_at(*range(60)))[0].verdict is Verdict.FAILED


@pytest.mark.parametrize("family", ["latency", "predictions", "outcomes"])
@pytest.mark.parametrize("arms", [(0,), (1,), (0, 1)])
def test_a_blocking_metric_that_is_not_measured_never_passes(family: str, arms: tuple[int, ...]) -> None:
    windows = [without(w, family) if i in arms else w for pair in stream(63, GOOD) for i, w in enumerate(pair)]
    assert verdict_of(windows)[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("family", ["latency", "predictions"])
def test_one_good_minute_does_not_make_up_for_those_that_were_not_measured(family: str) -> None:
    pairs = stream(63, GOOD, traffic=Traffic(per_minute=9000, minutes=16))
    windows = [
        without(w, family) if i == 0 and t != 9 else w for t, pair in enumerate(pairs) for i, w in enumerate(pair)
    ]
    verdict, reason = verdict_of(windows, minutes=16)
    assert verdict is Verdict.INCONCLUSIVE
    assert f"{family}: " in reason
    assert "not measured on both versions" in reason


def test_minutes_without_a_request_are_no_holes() -> None:
    pairs = stream(69, GOOD, traffic=Traffic(per_minute=6000, minutes=12))
    empty = [tuple(Window(key=replace(w.key, minute=START_MINUTE + 12 + t)) for w in pairs[0]) for t in range(48)]
    windows = [w for pair in (*pairs, *empty) for w in pair]
    assert verdict_of(windows)[0] is Verdict.PASSED


def test_something_missing_does_not_save_a_bad_version() -> None:
    windows = holed(stream(64, BAD["errors"]), arm=0, minutes=set(range(40, 60)))
    assert verdict_of(windows)[0] is Verdict.FAILED


def test_minutes_before_the_stage_other_models_and_other_versions_do_not_count() -> None:
    pairs, bad = stream(65, GOOD), stream(66, Version(errors=0.5))
    strangers = [
        replace(w, key=replace(w.key, **{field: value}))
        for w, _ in bad
        for field, value in (
            ("version", "3"),
            ("model", "other"),
            ("route", Route.SHADOW),
            ("minute", START_MINUTE - 1),
        )
    ]
    assert verdict_of([*strangers, *(w for pair in pairs for w in pair)])[0] is Verdict.PASSED


@pytest.mark.parametrize(("seconds", "first"), [(0, START_MINUTE), (0.001, START_MINUTE + 1), (60, START_MINUTE + 1)])
def test_the_minute_in_which_a_stage_begins_does_not_count(seconds: float, first: int) -> None:
    planned = plan(replace(rollout_of(), since=START + timedelta(seconds=seconds)))
    assert planned is not None
    assert planned.first_minute == first


def test_replicas_are_added_up() -> None:
    one, other = stream(67, GOOD), stream(68, GOOD)
    assert judged(one + other, minutes=60)[0].n == sum(candidate.requests for candidate, _ in one + other)


def test_minutes_that_only_show_what_is_usual_are_said_to_however_bad_they_are() -> None:
    found = [judged(stream(2, BAD["errors"]), minutes=minutes)[1] for minutes in (1, 2, 3)]
    said = [{name for name, one in at.items() if ONLY_USUAL in one.result.reason} for at in found]
    assert said == [BAD.keys(), {"latency", "predictions"}, set()]
    errors = found[0]["errors"].result
    assert errors.verdict is Verdict.INCONCLUSIVE
    assert errors.reason.endswith(f" stable: {errors.value * 100:+.4g} points; {ONLY_USUAL}")


def test_a_minute_is_judged_once_it_has_settled() -> None:
    end = START + timedelta(minutes=1)
    assert settled_minute(end + timedelta(seconds=SETTLE_S)) == START_MINUTE
    assert settled_minute(end + timedelta(seconds=SETTLE_S - 0.001)) == START_MINUTE - 1


def test_the_levels_of_all_blocking_gates_and_stages_add_up_to_the_stated_one() -> None:
    spec = replace(
        RolloutSpec(), strategy=Strategy.SHADOW_THEN_CANARY, gates=(*GATES[:3], replace(GATES[3], blocking=False))
    )
    planned = plan(rollout_of(spec))
    assert planned is not None
    assert planned.level_worse == pytest.approx(spec.false_abort / (2 + 3 * 3))


def test_full_traffic_has_no_control_and_is_not_judged() -> None:
    rollout = rollout_of(RolloutSpec())
    assert plan(rollout) is None
    aborted, _ = advance(rollout_of(), Ordered(order=Order.ABORT, actor="ada", reason="why", at=START))
    assert plan(aborted) is None


def test_a_shadow_is_judged_by_errors_predictions_labels_and_disagreement() -> None:
    spec = replace(SPEC, strategy=Strategy.SHADOW)
    good, found = judged(stream(70, GOOD, shadow=True), rollout=rollout_of(spec))
    assert set(found) == {"errors", "predictions", "label_quality", "disagreement"}
    assert good.verdict is Verdict.PASSED
    bad, found = judged(stream(71, Version(differing=0.2), shadow=True), rollout=rollout_of(spec))
    assert found["disagreement"].result.verdict is Verdict.FAILED
    assert bad.verdict is Verdict.FAILED


def test_of_a_shadow_its_pairs_are_counted() -> None:
    pairs = stream(70, Version(errors=0.5), shadow=True)
    event, _ = judged(pairs, rollout=rollout_of(replace(SPEC, strategy=Strategy.SHADOW)))
    assert event.n == sum(shadow.pairs[EVERY_SLICE] for shadow, _ in pairs)
    assert event.n < 0.6 * sum(shadow.requests for shadow, _ in pairs)


def test_evidence_once_reached_stays() -> None:
    bad, good, worse = (1000, 60, 1000, 10), (1000, 10, 1000, 10), (1000, 0, 1000, 90)
    for minutes in ([good, bad, *[good] * 9], [good, *[worse] * 2, *[bad] * 9]):
        tables = np.array([minutes], dtype=np.int64)
        now = evidence_worse(tables, GATES[0].accepted)[0], evidence_fine(tables, GATES[0].accepted)[0]
        for path, present in zip(evidence_over_time(GATES[0], tables), now, strict=True):
            np.testing.assert_allclose(path, np.maximum(np.maximum.accumulate(present), 0.0))
    assert now[1].max() > 0 > now[1][-1], "what was found fine is not at the end"


@pytest.mark.parametrize("gate", [GATES[1], GATES[2]])
def test_what_is_usual_is_taken_from_earlier_minutes(gate: LiveGateSpec) -> None:
    def minute(number: int, bucket: int) -> Pair:
        counts = {"requests": 10, "latency": {bucket: 10}, "predictions": {bucket: 10}}
        keys = (WindowKey(model="churn", version=v, route=r, minute=number) for v, r in ARMS)
        candidate, stable = (Window(key=key, **counts) for key in keys)
        return candidate, stable

    tables = tables_of(gate, [minute(1, 20), minute(2, 50), minute(3, 50)], since=1)
    assert not tables[:, 0].any(), "the first minute only tells what is usual"
    assert tables[0, 1].tolist() == [10, 10, 10, 10]


def test_without_a_verdict_a_rollout_is_aborted_at_its_maximum_time() -> None:
    step = StepSpec(weight=0.25, minimum_s=60, maximum_s=1800)
    rollout = rollout_of(replace(SPEC, canary=(step,)))
    windows = [without(w, "latency") for pair in stream(72, GOOD) for w in pair]
    for minutes in range(1, 40):
        if rollout.ended:
            break
        at = START + timedelta(minutes=minutes, seconds=SETTLE_S)
        rollout, _ = advance(rollout, evidence_of(rollout, windows, at=at).event(at))
        assert rollout.present.share == 0.25
    assert rollout.state is RolloutState.ABORTED


def test_the_flip_report_says_which_rows_change_from_what_to_what() -> None:
    key = WindowKey(model="churn", version="2", route=Route.SHADOW, minute=1)
    window = Window(
        key=key,
        requests=100,
        pairs={EVERY_SLICE: 100, "plan=pro": 20, "plan=basic": 80},
        flips={
            EVERY_SLICE: {"no -> yes": 7, "yes -> no": 1},
            "plan=pro": {"no -> yes": 6},
            "plan=basic": {"no -> yes": 2},
        },
    )
    report = flip_report([window, replace(window, key=replace(key, minute=2))])
    assert [(s.slice, s.pairs, s.share) for s in report] == [
        ("", 200, 0.08),
        ("plan=pro", 40, 0.3),
        ("plan=basic", 160, 0.025),
    ]
    assert report[0].flips == (("no -> yes", 14), ("yes -> no", 2))
    assert flip_report([Window(key=key)]) == ()
