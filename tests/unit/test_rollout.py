"""A rollout: every sequence of up to five events from every strategy, and what each single event does."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.domain.errors import Refused
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.gates import Verdict
from release_platform.domain.metrics import Direction
from release_platform.domain.rollout import (
    Assessed,
    Begun,
    Closed,
    Effect,
    Event,
    InProduction,
    KeptWarm,
    Order,
    Ordered,
    Rollout,
    RolloutState,
    Ticked,
    Traffic,
    advance,
    begin,
    wanted,
)
from release_platform.domain.strategy import (
    LiveGateSpec,
    LiveMetric,
    RolloutSpec,
    ShadowSpec,
    StageKind,
    StepSpec,
    Strategy,
    strategy_named,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = RolloutSpec(
    shadow=ShadowSpec(share=0.5, minimum_pairs=10, minimum_s=10, maximum_s=100),
    canary=tuple(StepSpec(weight=w, minimum_requests=10, minimum_s=10, maximum_s=100) for w in (0.1, 0.5)),
    bake_s=50,
)
NOTHING = Traffic(canary=0.0, shadow=0.0)
FREEZE = FreezeWindow(from_="2026-03-01T12:00:00Z", until="2026-03-02T12:00:00Z", reason="a day without changes")


def begun(strategy: Strategy = Strategy.CANARY, stable: str | None = "1") -> Rollout:
    plan = replace(PLAN, strategy=strategy)
    entered, _ = begin(rollout_id="r", model="churn", candidate="2", stable=stable, plan=plan, at=START)
    return after(entered, Begun(stage=0, at=START))


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def assessed(
    verdict: Verdict,
    seconds: float,
    *,
    n: int = 10,
    stage: int = 0,
    minute: int | None = None,
    freeze: tuple[FreezeWindow, ...] = (),
) -> Assessed:
    at = later(seconds)
    looked = int(at.timestamp()) if minute is None else minute
    return Assessed(stage=stage, minute=looked, verdict=verdict, n=n, reason=verdict, at=at, freeze=freeze)


def ordered(order: Order, seconds: float = 1.0) -> Ordered:
    return Ordered(order=order, actor="ada", reason="why", at=later(seconds))


def after(rollout: Rollout, *events: Event) -> Rollout:
    for event in events:
        rollout, _ = advance(rollout, event)
    return rollout


def every_event(rollout: Rollout, clock: float) -> Iterator[tuple[Event, float]]:
    """Yields each kind of event soon and late, of this stage and of the one before, and when it happens."""
    for verdict, seconds, n in (
        (Verdict.PASSED, clock + 1, 10),
        (Verdict.PASSED, clock + 20, 9),
        (Verdict.PASSED, clock + 20, 10),
        (Verdict.INCONCLUSIVE, clock + 1, 10),
        (Verdict.ERRORED, clock + 101, 10),
        (Verdict.FAILED, clock + 1, 10),
    ):
        yield assessed(verdict, seconds, n=n, stage=rollout.stage), seconds
    yield assessed(Verdict.FAILED, clock + 1, stage=rollout.stage - 1), clock + 1
    yield assessed(Verdict.FAILED, clock + 1, stage=rollout.stage, minute=rollout.judged), clock + 1
    for seconds in (clock + 51, clock + 101):
        yield Ticked(stage=rollout.stage, at=later(seconds)), seconds
    yield assessed(Verdict.PASSED, clock + 20, stage=rollout.stage, freeze=(FREEZE,)), clock + 20
    yield Ticked(stage=rollout.stage, at=later(clock + 101), freeze=(FREEZE,)), clock + 101
    yield Begun(stage=rollout.stage, at=later(clock + 1)), clock + 1
    for order in Order:
        yield ordered(order, clock + 1), clock + 1


def check_step(before: Rollout, event: Event, moved: Rollout, effects: tuple[Effect, ...]) -> None:
    assert effects == (() if wanted(before) == wanted(moved) else wanted(moved))
    assert moved.stage >= before.stage
    if before.ended:
        assert (moved, effects) == (before, ())
        assert not isinstance(event, Ordered)
    if moved.stage > before.stage:
        skipped = isinstance(event, Ordered) and event.order is Order.PROMOTE
        passed = isinstance(event, Assessed) and event.verdict is Verdict.PASSED and event.n >= before.present.minimum
        free = before.begun and before.state is RolloutState.RUNNING and not getattr(event, "freeze", ())
        assert skipped or (passed and moved.stage == before.stage + 1 and free)
    if not isinstance(event, Ordered):
        assert advance(moved, event) == (moved, ())  # what comes twice changes nothing
    fails = isinstance(event, Assessed) and event.verdict is Verdict.FAILED
    if fails and event.stage == before.stage and event.minute > before.judged:
        assert moved.ended


def check_state(rollout: Rollout) -> None:
    effects = wanted(rollout)
    traffic = [effect for effect in effects if isinstance(effect, Traffic)]
    assert len(traffic) == 1
    (production,) = [effect.version for effect in effects if isinstance(effect, InProduction)]
    arrived = rollout.present.kind is StageKind.FULL and rollout.state is not RolloutState.ABORTED
    assert production == ("2" if arrived else "1")
    if rollout.state is RolloutState.ABORTED:
        assert effects[1] == NOTHING
    if rollout.ended or arrived:
        assert traffic == [NOTHING]
    assert any(isinstance(effect, Closed) for effect in effects) == rollout.ended
    assert (KeptWarm(version="1") in effects) == (arrived and not rollout.ended)
    assert Rollout.from_json(json.loads(json.dumps(rollout.to_json()))) == rollout


@pytest.mark.parametrize("strategy", Strategy)
def test_every_sequence_of_five_events_keeps_the_rules(strategy: Strategy) -> None:
    # `advance` is pure, so sequences that have come to the same state at the same time go on as one.
    reached = {(begun(strategy), 0.0)}
    seen = set(reached)
    for _ in range(5):
        found = set()
        for rollout, clock in reached:
            check_state(rollout)
            for event, now in every_event(rollout, clock):
                try:
                    moved, effects = advance(rollout, event)
                except Refused:
                    assert isinstance(event, Ordered)
                    continue
                check_step(rollout, event, moved, effects)
                found.add((moved, now))
        reached = found - seen
        seen |= found
    states = {rollout.state for rollout, _ in seen}
    assert states == set(RolloutState)
    assert {rollout.stage for rollout, _ in seen} == set(range(len(begun(strategy).plan.stages)))


def test_a_good_version_goes_through_every_stage_into_production() -> None:
    rollout = begun(Strategy.SHADOW_THEN_CANARY)
    shares = [wanted(rollout)[1]]
    for stage in range(3):
        rollout, effects = advance(rollout, assessed(Verdict.PASSED, 20 * (stage + 1), stage=stage))
        rollout = after(rollout, Begun(stage=stage + 1, at=later(20 * (stage + 1))))
        shares.append(next(effect for effect in effects if isinstance(effect, Traffic)))
    assert shares == [Traffic(canary=c, shadow=s) for c, s in ((0, 0.5), (0.1, 0), (0.5, 0), (0, 0))]
    assert wanted(rollout) == (InProduction(version="2"), NOTHING, KeptWarm(version="1"))
    assert after(rollout, Ticked(stage=3, at=later(60 + 49.9))).state is RolloutState.RUNNING
    done, effects = advance(rollout, Ticked(stage=3, at=later(60 + 50)))
    assert done.state is RolloutState.COMPLETED
    assert effects[-1] == Closed(state=RolloutState.COMPLETED, reason="all traffic for 50 s")


def test_all_at_once_is_in_production_from_the_start_and_bakes() -> None:
    rollout, effects = begin(
        rollout_id="r", model="churn", candidate="2", stable="1", plan=replace(PLAN, bake_s=0), at=START
    )
    assert effects == (InProduction(version="2"), NOTHING, KeptWarm(version="1"))
    in_production = after(rollout, Begun(stage=0, at=START))
    assert after(in_production, Ticked(stage=0, at=START)).state is RolloutState.COMPLETED


@pytest.mark.parametrize(
    ("event", "goes_on"),
    [
        (assessed(Verdict.PASSED, 10, n=10), True),
        (assessed(Verdict.PASSED, 9.9, n=10), False),
        (assessed(Verdict.PASSED, 10, n=9), False),
        (assessed(Verdict.INCONCLUSIVE, 10), False),
        (assessed(Verdict.ERRORED, 10), False),
    ],
)
def test_a_stage_ends_when_it_passed_and_its_minima_are_reached(event: Assessed, goes_on: bool) -> None:
    assert (after(begun(), event).stage == 1) is goes_on


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERRORED])
def test_without_a_verdict_until_the_maximum_time_it_is_aborted(verdict: Verdict) -> None:
    assert after(begun(), assessed(verdict, 99.9)).state is RolloutState.RUNNING
    assert after(begun(), assessed(verdict, 100)).state is RolloutState.ABORTED
    assert after(begun(), Ticked(stage=0, at=later(100))).state is RolloutState.ABORTED


def test_passing_with_too_few_requests_until_the_maximum_time_is_aborted_too() -> None:
    assert after(begun(), assessed(Verdict.PASSED, 100, n=9)).state is RolloutState.ABORTED


def test_a_failed_gate_takes_the_traffic_away_and_lets_nobody_give_it_again() -> None:
    rollout, effects = advance(begun(), assessed(Verdict.FAILED, 1))
    closed = Closed(state=RolloutState.ABORTED, reason="failed")
    assert effects == (closed, NOTHING, InProduction(version="1"))
    assert rollout.ended


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.ALL_AT_ONCE])
def test_a_stage_counts_from_when_what_must_hold_in_it_does(strategy: Strategy) -> None:
    entered = replace(begun(strategy), begun=False)
    assert not after(entered, assessed(Verdict.PASSED, 50), Ticked(stage=0, at=later(1000))).ended
    assert after(entered, assessed(Verdict.PASSED, 50)).stage == 0
    assert after(entered, assessed(Verdict.FAILED, 50)).state is RolloutState.ABORTED
    given = after(entered, assessed(Verdict.INCONCLUSIVE, 50), Begun(stage=0, at=later(1000)))
    assert (given.since, given.judged, given.begun) == (later(1000), -1, True)
    assert after(given, Begun(stage=0, at=later(1001))) == given
    lasts_s = 100 if strategy is Strategy.CANARY else 50
    assert not after(given, Ticked(stage=0, at=later(1000 + lasts_s - 0.1))).ended
    assert after(given, Ticked(stage=0, at=later(1000 + lasts_s))).ended


def test_a_pause_before_a_stage_begins_is_none_of_its_time() -> None:
    entered = replace(begun(), begun=False)
    paused = after(entered, ordered(Order.PAUSE, 5), Begun(stage=0, at=later(1000)))
    assert paused.paused_at == later(1000)
    resumed = after(paused, ordered(Order.RESUME, 1010))
    assert resumed.elapsed_s(later(1050)) == 40


def test_in_a_freeze_a_stage_stands_still_and_only_falls_back() -> None:
    frozen = FreezeWindow(from_="2026-03-01T12:00:10Z", until="2026-03-01T15:00:00Z", reason="a holiday")
    of, end = {"freeze": (frozen,)}, 3 * 3600.0
    assert after(begun(), assessed(Verdict.PASSED, 20, **of)).stage == 0
    assert after(begun(), assessed(Verdict.FAILED, 20, **of)).state is RolloutState.ABORTED
    assert after(begun(), Ticked(stage=0, at=later(1000), **of)).state is RolloutState.RUNNING
    judged = after(begun(), assessed(Verdict.PASSED, 20, **of))
    assert judged.judged == int(later(20).timestamp()), "what was looked at is not looked at again"
    assert after(judged, Ticked(stage=0, at=later(end + 89.9), **of)).state is RolloutState.RUNNING
    assert after(judged, Ticked(stage=0, at=later(end + 90), **of)).state is RolloutState.ABORTED


def test_a_freeze_within_a_pause_counts_once() -> None:
    freeze = (FreezeWindow(from_="2026-03-01T12:00:10Z", until="2026-03-01T12:00:20Z", reason="a holiday"),)
    resume = replace(ordered(Order.RESUME, 30), freeze=freeze)
    resumed = after(begun(), ordered(Order.PAUSE, 5), resume)
    assert resumed.elapsed_s(later(40), freeze) == 15


def test_a_pause_stops_the_clock_and_progress_but_not_an_abort() -> None:
    paused = after(begun(), ordered(Order.PAUSE, 5))
    assert after(paused, assessed(Verdict.PASSED, 20)).stage == 0
    assert after(paused, Ticked(stage=0, at=later(1000))).state is RolloutState.PAUSED
    assert after(paused, assessed(Verdict.FAILED, 20)).state is RolloutState.ABORTED
    late = after(begun(), ordered(Order.PAUSE, 15))
    assert after(late, assessed(Verdict.PASSED, 20)).stage == 0, "its minimum time was over before the pause"
    resumed = after(paused, ordered(Order.RESUME, 1005))
    assert after(resumed, Ticked(stage=0, at=later(1099.9))).state is RolloutState.RUNNING
    assert after(resumed, Ticked(stage=0, at=later(1100))).state is RolloutState.ABORTED
    assert after(resumed, assessed(Verdict.PASSED, 1010)).stage == 1


def test_a_person_may_skip_the_rest_or_go_back_while_it_bakes() -> None:
    skipped = after(begun(), ordered(Order.PAUSE), ordered(Order.PROMOTE, 2))
    assert skipped.present.kind is StageKind.FULL
    assert skipped.state is RolloutState.RUNNING
    _, effects = advance(skipped, ordered(Order.ABORT, 3))
    assert effects[1:] == (NOTHING, InProduction(version="1"))
    assert after(skipped, ordered(Order.PROMOTE, 3)).state is RolloutState.COMPLETED


@pytest.mark.parametrize(
    ("before", "order", "why"),
    [
        ((), Order.RESUME, "not paused"),
        ((Order.PAUSE,), Order.PAUSE, "paused already"),
        ((Order.ABORT,), Order.ABORT, "aborted already"),
        ((Order.ABORT,), Order.PROMOTE, "aborted already"),
        ((Order.PROMOTE, Order.PROMOTE), Order.PAUSE, "completed already"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_reason(
    before: tuple[Order, ...], order: Order, why: str
) -> None:
    rollout = after(begun(), *map(ordered, before))
    with pytest.raises(Refused, match=why):
        advance(rollout, ordered(order))


@pytest.mark.parametrize(
    "event",
    [
        assessed(Verdict.FAILED, 20, stage=0, minute=10**9),
        assessed(Verdict.FAILED, 20, stage=2, minute=10**9),
        assessed(Verdict.FAILED, 14, stage=1, minute=10**9),
        Ticked(stage=0, at=later(1000)),
        Ticked(stage=1, at=later(0)),
    ],
)
def test_what_is_late_or_of_another_stage_is_ignored(event: Event) -> None:
    rollout = after(begun(), assessed(Verdict.PASSED, 15), Begun(stage=1, at=later(15)))
    assert rollout.stage == 1
    assert advance(rollout, event) == (rollout, ())


def test_a_minute_that_was_judged_is_not_judged_again() -> None:
    rollout = after(begun(), assessed(Verdict.INCONCLUSIVE, 5, minute=7))
    assert advance(rollout, assessed(Verdict.FAILED, 6, minute=7)) == (rollout, ())
    assert after(rollout, assessed(Verdict.FAILED, 6, minute=8)).state is RolloutState.ABORTED


def test_the_first_release_goes_all_at_once_and_cannot_be_aborted() -> None:
    first = begun(Strategy.SHADOW_THEN_CANARY, stable=None)
    assert wanted(first) == (InProduction(version="2"), NOTHING)
    with pytest.raises(Refused, match="no version to go back to"):
        advance(first, ordered(Order.ABORT))


def test_a_rollout_is_read_back_exactly_or_not_at_all() -> None:
    value = begun().to_json()
    for field in value.keys() - {"assessment", "begun"}:  # those that were kept before there were these have none
        with pytest.raises(ValueError, match=field):
            Rollout.from_json({name: of for name, of in value.items() if name != field})
    spoilt: list[dict[str, object]] = [
        {"format": 2}, {"stage": 9}, {"stage": True}, {"state": "paused"}, {"state": "lost"}, {"judged": -2},
        {"candidate": "1"}, {"stable": None}, {"since": "2026-03-01T12:00:00"}, {"more": 1},
        {"plan": {**value["plan"], "false_abort": 0.5}}, {"plan": {**value["plan"], "more": 1}},
    ]  # fmt: skip
    for wrong in spoilt:
        with pytest.raises(ValueError):
            Rollout.from_json({**value, **wrong})


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: StepSpec(weight=1.0), "weight is a share above 0 and below 1"),
        (lambda: StepSpec(weight=0.1, minimum_s=9, maximum_s=9), "minimum_s below its maximum_s"),
        (lambda: StepSpec(weight=0.1, minimum_requests=-1), "minimum is 0 or more"),
        (lambda: ShadowSpec(share=0.0), "mirrored share"),
        (lambda: RolloutSpec(canary=()), "a canary has steps"),
        (lambda: RolloutSpec(canary=(StepSpec(weight=0.5), StepSpec(weight=0.1))), "weights rise"),
        (lambda: RolloutSpec(false_abort=0.2), "false_abort and false_pass"),
        (lambda: RolloutSpec(bake_s=-1), "bake_s is 0 or more"),
        (lambda: RolloutSpec(gates=(LiveGateSpec(metric=LiveMetric.ERRORS),) * 2), "two rollout gates"),
        (lambda: replace(PLAN, strategy=Strategy.CANARY, gates=()), "no blocking rollout gate judges the canary"),
        (lambda: LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.0), "margin is above 0"),
        (lambda: LiveGateSpec(metric=LiveMetric.ERRORS, quantile=0.9), "quantile is for latency and label_quality"),
        (lambda: LiveGateSpec(metric=LiveMetric.LATENCY, quantile=0.9, limit=5), "without a limit"),
        (lambda: LiveGateSpec(metric=LiveMetric.LATENCY, quantile=1.0), "above 0 and below 1"),
        (lambda: LiveGateSpec(metric=LiveMetric.LATENCY, limit=float("nan")), "limit of nan"),
        (lambda: LiveGateSpec(metric=LiveMetric.OUTCOME), "`outcome` names what"),
        (lambda: LiveGateSpec(metric=LiveMetric.OUTCOME, outcome="bought"), "give the limit"),
        (lambda: LiveGateSpec(metric=LiveMetric.LATENCY, better=Direction.LOWER), "`better` is for outcomes"),
        (lambda: LiveGateSpec(metric=LiveMetric.ERRORS, limit=1), "cannot be held to a limit"),
    ],
)
def test_a_wrong_strategy_is_refused_with_what_is_wrong(build: object, why: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=why):
        build()


@pytest.mark.parametrize(("name", "hint"), [("canry", "did you mean 'canary'"), ("xyz", "known are: all_at_once")])
def test_an_unknown_strategy_of_a_request_names_the_nearest(name: str, hint: str) -> None:
    assert strategy_named("shadow") is Strategy.SHADOW
    with pytest.raises(ValueError, match=hint):
        strategy_named(name)
