"""Rollouts over a real store and real packages: a good version gets there, a bad one does not, and people step in."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from release_platform.domain.errors import NotFound, Refused, Unavailable
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.gates import Verdict
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Share
from release_platform.domain.policy import RequestState
from release_platform.domain.ports import Given
from release_platform.domain.rollout import Order, Rollout, RolloutState
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, StageKind, Strategy
from release_platform.domain.windows import Route
from release_platform.project import Project
from release_platform.standing import rollout_status
from tests.fakes.clock import FakeClock
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.rollout_world import MODEL, PLAN, SPEC, START, URL, Through, World
from tests.fakes.servers import FakeServers

TWO = "http://two"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3)}


@pytest.fixture
def world(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[World]:
    made = World.make(folders, tmp_path)
    yield made
    made.store.close()


def test_the_first_release_and_one_that_is_all_at_once_have_no_rollout(world: World) -> None:
    assert world.store.head(MODEL).production == "1"
    row = world.ask("2", Strategy.ALL_AT_ONCE)
    assert isinstance(row, LedgerRow)
    assert world.store.head(MODEL).production == "2"
    with pytest.raises(NotFound, match="there is no rollout"):
        world.rollouts.get(MODEL)
    assert world.step() is None


def test_a_good_version_comes_into_production_step_by_step(world: World) -> None:
    begun = world.ask("2")
    assert isinstance(begun, Rollout)
    assert world.beside == (Share(version="2", weight=0.1), None)
    assert world.registry.shown(MODEL).aliases == {"production": "1", "staging": "2", "canary": "2"}
    assert world.releases.missing(world.releases.facts(world.store.get_request("q2"), SPEC.policy)) == (
        "its rollout is under way: running in stage 1 of 3, canary 10 %",
    )
    steps = world.pass_minutes(4)
    assert world.stage_now == (RolloutState.RUNNING, 1)
    assert [step.moved for step in steps].count(True) == 1
    assert world.beside == (Share(version="2", weight=0.5), None)
    world.pass_minutes(2)
    assert world.stage_now == (RolloutState.RUNNING, 2)
    assert world.store.head(MODEL).production == "2"
    assert world.store.get_request("q2").state is RequestState.PROMOTED
    pushed = [(push.version, push.route, push.weight) for push in world.servers.pushed]
    assert pushed == [("1", "", 0), ("2", "canary", 0.1), ("2", "canary", 0.5), ("2", "", 0)]
    *_, last = world.pass_minutes(3)
    assert (last.after.state, last.settled) == (RolloutState.COMPLETED, True)
    assert world.step() is None
    assert world.moves == ["canary_set 2 0.1", "canary_set 2 0.5", "promoted 2"]
    assert world.wrong() == []


def test_a_version_that_fails_loses_its_traffic_at_once(world: World) -> None:
    world.ask("2")
    *_, last = world.pass_minutes(3, errors=80)
    assert last.after.state is RolloutState.ABORTED
    assert "errors: 40 % of" in last.after.reason
    evidence = world.rollouts.evidence(last.after)
    assert evidence is not None
    assert evidence.found[0].result.verdict is Verdict.FAILED
    assert world.moves == ["canary_set 2 0.1", "canary_set 2 0"]
    row = world.store.ledger(MODEL)[-1]
    assert (row.actor, row.reason) == ("rollout", last.after.reason)
    assert world.registry.shown(MODEL).aliases == {"production": "1", "staging": "2"}
    request = world.store.get_request("q2")
    assert (request.state, request.outcome) == (RequestState.REFUSED, f"its rollout was aborted: {last.after.reason}")
    assert world.wrong() == []


def test_a_shadow_is_followed_by_a_canary(world: World) -> None:
    world.ask("2", Strategy.SHADOW_THEN_CANARY)
    assert world.beside == (None, Share(version="2", weight=0.5))
    world.pass_minutes(4)
    assert world.stage_now == (RolloutState.RUNNING, 1)
    assert world.moves == ["shadow_set 2 0.5", "canary_set 2 0.1", "shadow_set 2 0"]
    world.pass_minutes(12)
    assert world.stage_now[0] is RolloutState.COMPLETED
    assert world.wrong() == []


def test_a_shadow_that_answers_otherwise_is_aborted(world: World) -> None:
    world.ask("2", Strategy.SHADOW)
    world.pass_minutes(3, flips=100)
    assert world.stage_now == (RolloutState.ABORTED, 0)
    assert world.beside == (None, None)


def test_without_traffic_nothing_passes_and_in_the_end_it_is_aborted(world: World) -> None:
    world.ask("2")
    for _ in range(29):
        world.clock.pass_s(60)
        world.step()
    assert world.stage_now == (RolloutState.RUNNING, 0)
    world.clock.pass_s(60)
    world.step()
    assert world.rollouts.get(MODEL).rollout.reason == "the gates did not pass within 1800 s"
    assert world.beside == (None, None)
    assert world.wrong() == []


def test_a_server_that_does_not_answer_is_told_and_its_minutes_are_holes(world: World) -> None:
    world.ask("2")
    world.servers.down = {URL}
    steps = world.pass_minutes(5)
    assert steps[-1].said == (f"{URL} hands in no windows: down",)
    assert world.stage_now == (RolloutState.RUNNING, 0)
    world.servers.down = set()
    world.servers.counted[URL].clear()
    world.pass_minutes(5)
    evidence = world.rollouts.evidence(world.rollouts.get(MODEL).rollout)
    assert evidence is not None
    assert "were not measured" in evidence.found[0].result.reason


def reason(world: World) -> str:
    evidence = world.rollouts.evidence(world.rollouts.get(MODEL).rollout)
    assert evidence is not None
    return evidence.found[0].result.reason


@pytest.fixture
def two(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[World]:
    """A world of two servers, of which the second counts no traffic of its own."""
    made = World(tmp_path, FakeRegistry(folders, signs=False), FakeClock(START), FakeServers(URL, TWO))
    made.release_first()
    made.ask("2")
    yield made
    made.store.close()


def test_two_servers_that_hand_in_let_a_good_version_through(two: World) -> None:
    two.pass_minutes(7)
    assert two.stage_now == (RolloutState.RUNNING, 2)


def test_while_one_of_two_servers_hands_in_nothing_no_stage_passes(two: World) -> None:
    two.servers.down = {TWO}
    two.pass_minutes(20)
    assert two.stage_now == (RolloutState.RUNNING, 0)
    assert f"not all that {TWO} counted was handed in" in reason(two)
    two.pass_minutes(12)
    assert two.stage_now == (RolloutState.ABORTED, 0)


def test_what_the_other_server_hands_in_aborts_a_bad_version_all_the_same(two: World) -> None:
    two.servers.down = {TWO}
    two.pass_minutes(3, errors=80)
    assert two.stage_now == (RolloutState.ABORTED, 0)


def test_while_one_of_two_servers_stays_at_the_share_before_the_stage_does_not_pass(two: World) -> None:
    # Given a second server that does not reach the registry any more, once the first share was given
    two.servers.gives[TWO] = {MODEL: [Given(route=Route.CANARY, version="2", weight=0.1)]}
    two.pass_minutes(4)
    assert two.stage_now == (RolloutState.RUNNING, 1)
    two.pass_minutes(2)
    assert two.stage_now == (RolloutState.RUNNING, 1)
    assert f"{TWO} counted was handed in, or not by the share that the version has" in reason(two)

    # When it reaches it again, then the stage passes as soon as nine tenths of its minutes were measured
    two.servers.gives[TWO] = {MODEL: [Given(route=Route.CANARY, version="2", weight=0.5)]}
    two.pass_minutes(10)
    assert two.stage_now == (RolloutState.RUNNING, 1)
    two.pass_minutes(12)
    assert two.store.head(MODEL).production == "2"


def test_a_process_that_is_killed_each_minute_passes_nothing(two: World) -> None:
    for minute in range(10):
        two.servers.processes[TWO] = (f"born {minute}", int(two.clock.now().timestamp() // 60))
        two.pass_minutes(1)
    assert two.stage_now == (RolloutState.RUNNING, 0)
    assert f"not all that {TWO} counted was handed in" in reason(two)


def test_a_server_that_is_taken_away_on_purpose_delays_a_good_version_by_its_last_minutes(two: World) -> None:
    two.pass_minutes(1)
    two.servers.urls = (URL,)
    two.pass_minutes(8)
    assert two.stage_now == (RolloutState.RUNNING, 0)
    assert f"1 of 8 minutes were not measured on both versions: not all that {TWO}" in reason(two)
    two.pass_minutes(3)
    assert two.stage_now == (RolloutState.RUNNING, 1)


def test_a_window_that_comes_after_its_minute_was_judged_is_left_out(world: World) -> None:
    world.ask("2")
    minute = int(START.timestamp() // 60)
    world.servers.down = {URL}
    world.pass_minutes(2)
    assert world.rollouts.get(MODEL).rollout.judged == minute
    world.servers.down = set()
    world.clock.pass_s(60)
    world.step()
    kept = world.store.windows.keys(MODEL, minute, minute + 1)
    assert [of_minute for _, _, of_minute, _ in kept] == [minute + 1] * 2


def test_a_paused_rollout_goes_no_further_until_it_is_resumed(world: World) -> None:
    world.ask("2")
    paused = world.order(Order.PAUSE)
    assert (paused.state, paused.actor) == (RolloutState.PAUSED, "grace")
    world.pass_minutes(5)
    assert world.stage_now == (RolloutState.PAUSED, 0)
    assert world.beside == (Share(version="2", weight=0.1), None)
    world.order(Order.RESUME)
    world.pass_minutes(2)
    assert world.stage_now == (RolloutState.RUNNING, 1)


def overdue(world: World) -> str | None:
    said: str | None = rollout_status(world.rollouts, Project(spec=world.spec, folder=world.home))["overdue"]
    return said


def test_a_rollout_that_nobody_looks_at_is_told_but_none_that_waits_for_something_else(world: World) -> None:
    world.ask("2")
    world.pass_minutes(4)
    assert overdue(world) is None
    world.clock.pass_s(134)
    assert overdue(world) is None
    world.clock.pass_s(1)
    due = START + timedelta(minutes=4, seconds=15)
    assert str(overdue(world)).startswith(f"nobody has looked at it since {due.isoformat()}: a Dagster daemon must run")
    freeze = FreezeWindow(from_=START.isoformat(), until=(START + timedelta(days=1)).isoformat(), reason="year end")
    world.spec = replace(world.spec, policy=replace(world.spec.policy, freeze=(freeze,)))
    assert overdue(world) is None


def test_one_that_bakes_is_told_when_it_should_have_been_completed_and_none_that_is_paused(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    world.clock.pass_s(239)
    assert overdue(world) is None
    world.clock.pass_s(1)
    assert overdue(world) is not None
    world.order(Order.PAUSE)
    assert overdue(world) is None
    world.order(Order.RESUME)
    world.clock.pass_s(300)
    assert overdue(world) is not None
    world.step()
    assert world.stage_now[0] is RolloutState.COMPLETED
    assert overdue(world) is None


def test_a_paused_rollout_is_aborted_by_a_failed_gate_all_the_same(world: World) -> None:
    world.ask("2")
    world.order(Order.PAUSE)
    world.pass_minutes(3, errors=80)
    assert world.stage_now == (RolloutState.ABORTED, 0)


def test_the_row_of_an_abort_names_what_it_was_decided_on(world: World) -> None:
    world.ask("2")
    world.pass_minutes(4, errors=120)
    row = world.store.ledger(MODEL)[-1]
    assert (row.weight, row.actor) == (0.0, "rollout")
    kept = world.store.assessments.find(row.evidence)
    assert kept is not None
    assert (kept["candidate"], kept["reason"]) == ("2", row.reason)
    (gate,) = kept["judged"]["gates"]
    assert (gate["gate"], gate["verdict"]) == ("errors", "failed")
    assert gate["counts"][0][0] == [200, 120, 900, 0]
    assert world.store.assessments.find("sha256:none") is None
    shown = rollout_status(world.rollouts, Project(spec=SPEC, folder=world.home))
    assert (shown["holes"], shown["assessment"]) == ({}, {"digest": row.evidence, **kept})


def test_what_an_abort_was_decided_on_cannot_be_changed_or_taken_away_unseen(world: World) -> None:
    world.ask("2")
    world.pass_minutes(4, errors=120)
    row = world.store.ledger(MODEL)[-1]
    assert world.wrong() == []
    kept = world.store.assessments.find(row.evidence)
    assert kept is not None
    assert (kept["decided_by"], kept["verdict"]) == ("judge", "failed")
    kept["judged"]["gates"][0]["verdict"] = kept["verdict"] = "passed"
    for statement, said in (
        ("UPDATE assessments SET value = :value", "was changed in the release store"),
        ("DELETE FROM assessments WHERE :value = :value", "is not there any more"),
    ):
        with closing(sqlite3.connect(world.home / "release.db")) as database, database:
            database.execute(statement, {"value": json.dumps(kept)})
        place = f"{MODEL}, ledger row {row.epoch}: what it was decided on ({row.evidence})"
        assert world.wrong() == [f"{place} {said}"]


def test_an_abort_by_time_says_so(world: World) -> None:
    world.ask("2")
    world.clock.pass_s(1900)
    world.step()
    kept = world.store.assessments.find(world.store.ledger(MODEL)[-1].evidence)
    assert kept is not None
    assert (kept["decided_by"], kept["verdict"]) == ("time", "inconclusive")
    assert world.wrong() == []


def test_a_person_aborts_and_is_named_in_the_ledger(world: World) -> None:
    world.ask("2")
    world.order(Order.ABORT, reason="the phones ring")
    row = world.store.ledger(MODEL)[-1]
    assert (row.weight, row.actor, row.reason) == (0.0, "grace", "abort by grace: the phones ring")
    assert world.rollouts.get(MODEL).settled
    assert world.order(Order.ABORT, reason="the phones ring").state is RolloutState.ABORTED  # sent twice
    with pytest.raises(Refused, match="it is aborted already"):
        world.order(Order.PAUSE)
    assert world.wrong() == []


def test_a_person_promotes_past_the_judge_and_then_ends_the_bake(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    assert world.stage_now == (RolloutState.RUNNING, 2)
    assert world.store.head(MODEL).production == "2"
    world.order(Order.PROMOTE, reason="baked enough")
    assert world.stage_now == (RolloutState.COMPLETED, 2)
    assert world.wrong() == []


def test_an_abort_after_all_traffic_moved_brings_the_stable_version_back(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    world.order(Order.ABORT, reason="labels came in")
    head = world.store.head(MODEL)
    assert (head.production, head.previous) == ("1", ())
    row = world.store.ledger(MODEL)[-1]
    assert (row.move, row.actor, row.request_id) == ("rolled_back", "grace", "q2#rollout-back")
    assert world.store.get_request("q2").state is RequestState.PROMOTED
    assert world.wrong() == []


@pytest.mark.parametrize("stage", [0, 2])
def test_a_rollback_by_a_person_ends_the_rollout_and_stands(world: World, stage: int) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.clock.pass_s(10)
    world.stage("3")
    world.ask("3")
    if stage:
        world.order(Order.PROMOTE)
    world.releases.rollback(MODEL, to="1", actor="edsger", reason="all is bad")
    assert world.beside == (None, None)
    step = world.step()
    assert step is not None
    assert (step.after.state, step.after.actor, step.settled) == (RolloutState.ABORTED, "edsger", True)
    assert world.store.head(MODEL).production == "1"
    assert world.step() is None
    assert world.wrong() == []


def test_a_request_that_is_cancelled_takes_its_rollout_with_it(world: World) -> None:
    world.ask("2")
    world.releases.cancel("q2", actor="grace", reason="wrong one")
    step = world.step()
    assert step is not None
    assert step.after.reason == "abort by rollout: its request is cancelled: by grace: wrong one"
    assert world.beside == (None, None)
    assert world.wrong() == []


def test_other_requests_of_the_model_wait_for_the_rollout(world: World) -> None:
    world.ask("2")
    world.stage("3")
    with pytest.raises(Refused, match=r"the rollout of version 2 is under way \(request q2\): it ends first"):
        world.ask("3")
    world.order(Order.ABORT)
    world.clock.pass_s(1)
    assert isinstance(world.rollouts.carry_out("q3", world.spec), Rollout)


def test_a_rollout_that_is_begun_again_is_the_same_one(world: World) -> None:
    world.ask("2")
    world.pass_minutes(4)
    again = world.rollouts.carry_out("q2", world.spec)
    assert isinstance(again, Rollout)
    assert again.stage == 1
    assert world.moves == ["canary_set 2 0.1", "canary_set 2 0.5"]


def test_in_a_freeze_a_rollout_goes_no_further_and_still_falls_back(world: World) -> None:
    world.ask("2")
    world.pass_minutes(1)
    freeze = FreezeWindow(
        from_=(START + timedelta(minutes=1)).isoformat(), until=(START + timedelta(hours=1)).isoformat(), reason="audit"
    )
    world.spec = replace(SPEC, policy=replace(SPEC.policy, freeze=(freeze,)))
    world.pass_minutes(3)
    world.clock.pass_s(1800)  # longer than the stage may last
    world.step()
    assert world.stage_now == (RolloutState.RUNNING, 0)
    with pytest.raises(Refused, match="audit"):
        world.order(Order.PROMOTE)
    world.pass_minutes(5, errors=200)
    assert world.stage_now == (RolloutState.ABORTED, 0)
    assert world.beside == (None, None)


def test_a_rollout_goes_on_when_a_freeze_is_over(world: World) -> None:
    world.ask("2")
    freeze = FreezeWindow(
        from_=(START + timedelta(seconds=1)).isoformat(), until=(START + timedelta(minutes=6)).isoformat(), reason="now"
    )
    world.spec = replace(SPEC, policy=replace(SPEC.policy, freeze=(freeze,)))
    world.pass_minutes(5)
    assert world.stage_now == (RolloutState.RUNNING, 0)
    world.pass_minutes(2)
    assert world.stage_now == (RolloutState.RUNNING, 1)


def test_no_time_runs_out_in_a_freeze_however_long_it_is(world: World) -> None:
    world.ask("2")
    freeze = FreezeWindow(
        from_=(START + timedelta(minutes=2)).isoformat(),
        until=(START + timedelta(days=3)).isoformat(),
        reason="holiday",
    )
    world.spec = replace(SPEC, policy=replace(SPEC.policy, freeze=(freeze,)))
    world.clock.pass_s(3 * 24 * 3600)  # nobody looks meanwhile, and the stage may last half an hour
    world.pass_minutes(20)
    assert world.stage_now[0] is RolloutState.RUNNING
    assert world.store.head(MODEL).production == "1"


def test_a_bake_that_a_freeze_holds_up_is_not_told_as_one_that_nobody_looks_at(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    begins, ends = world.clock.now() + timedelta(seconds=60), world.clock.now() + timedelta(hours=1)
    freeze = FreezeWindow(from_=begins.isoformat(), until=ends.isoformat(), reason="audit")
    world.spec = replace(SPEC, policy=replace(SPEC.policy, freeze=(freeze,)))
    world.clock.pass_s(3601)
    assert overdue(world) is None
    world.clock.pass_s(PLAN.bake_s)
    due = ends + timedelta(seconds=PLAN.bake_s - 60)
    assert overdue(world) is None
    world.clock.pass_s(60)
    assert str(overdue(world)).startswith(f"nobody has looked at it since {due.isoformat()}")


def test_a_freeze_that_begins_just_before_production_moves_takes_nothing_from_the_bake(world: World) -> None:
    # Given a last step that is over, and a freeze that begins after the judge looked
    world.ask("2")
    world.pass_minutes(5)
    world.count()
    world.clock.pass_s(60)
    heard = world.rollouts.ask()
    begins, ends = heard.at + timedelta(seconds=1), heard.at + timedelta(hours=1)
    freeze = FreezeWindow(from_=begins.isoformat(), until=ends.isoformat(), reason="audit")
    world.spec = replace(SPEC, policy=replace(SPEC.policy, freeze=(freeze,)))
    world.clock.pass_s(2)
    world.rollouts.step(MODEL, world.spec, heard)
    assert world.rollouts.get(MODEL).rollout.present.kind is StageKind.FULL
    assert world.store.head(MODEL).production == "1"

    # Then Production moves when the freeze is over, and bakes from then on
    world.clock.pass_s(3600)
    world.step()
    assert world.store.head(MODEL).production == "2"
    world.clock.pass_s(PLAN.bake_s - 1)
    world.step()
    assert world.stage_now == (RolloutState.RUNNING, 2)
    world.clock.pass_s(1)
    world.step()
    assert world.stage_now == (RolloutState.COMPLETED, 2)


def test_no_stage_passes_before_servers_can_find_its_share(world: World) -> None:
    # Given a registry that goes away in the first stage
    world.ask("2")
    world.registry.down = True
    for _ in range(12):
        world.count()
        world.clock.pass_s(60)
        with suppress(Unavailable):
            world.step()

    # Then the second stage was entered and given its share, which no server can find, so it goes no further
    assert world.stage_now == (RolloutState.RUNNING, 1)
    assert world.moves == ["canary_set 2 0.1", "canary_set 2 0.5"]
    assert not world.rollouts.get(MODEL).rollout.begun

    # until the registry is back: from then on the stage is judged, and its time counts
    world.registry.down = False
    world.pass_minutes(1)
    rollout = world.rollouts.get(MODEL).rollout
    assert (rollout.stage, rollout.begun, rollout.since) == (1, True, world.clock.now())
    world.pass_minutes(3)
    assert world.store.head(MODEL).production == "2"
    assert world.wrong() == []


def test_a_version_that_fails_while_its_share_waits_for_the_registry_is_aborted_without_it(world: World) -> None:
    world.ask("2")
    world.registry.down = True
    for errors in (0, 0, 0, 0, 200, 200, 200):
        world.count(errors=errors)
        world.clock.pass_s(60)
        with suppress(Unavailable):
            world.step()
    assert world.stage_now == (RolloutState.ABORTED, 1)
    assert world.beside == (None, None)
    assert world.servers.pushed[-1].weight == 0
    assert world.rollouts.get(MODEL).settled
    world.registry.down = False
    assert world.wrong() == []


def test_an_abort_while_all_traffic_moved_needs_no_registry(world: World) -> None:
    world.ask("2")
    world.registry.down = True
    with pytest.raises(Unavailable):
        world.order(Order.PROMOTE)
    assert world.store.head(MODEL).production == "2"
    world.order(Order.ABORT, reason="it hurts")
    assert world.store.head(MODEL).production == "1"
    assert [push.version for push in world.servers.pushed[-2:]] == ["2", "1"]
    world.registry.down = False
    assert world.wrong() == []


def test_an_abort_that_overlaps_the_first_share_leaves_no_share_behind(world: World) -> None:
    # Given the job that begins a rollout, about to commit the first share, and an abort at that moment
    asked: list[dict[str, Any]] = []

    class OfJob(Through):
        def commit_move(self, **of: Any) -> LedgerRow:
            asked.append(of)
            world.through(OfAbort(world.store)).order(
                MODEL, Order.ABORT, actor="grace", reason="not this one", policy=world.spec.policy
            )
            return world.store.commit_move(**of)

    # When the share is committed while the abort is on its way
    class OfAbort(Through):
        def close_request(self, *of: Any) -> None:
            world.store.commit_move(**asked[0])
            world.store.close_request(*of)

    world.releases.request(MODEL, version="2", actor="ada", reason="better", request_id="q2")
    world.through(OfJob(world.store)).carry_out("q2", world.spec)

    # Then its version has no traffic in the end
    assert world.rollouts.get(MODEL).settled
    assert world.beside == (None, None)
    assert world.moves == ["canary_set 2 0.1", "canary_set 2 0"]
    assert world.wrong() == []


def test_a_strategy_that_no_gate_can_judge_is_refused(world: World) -> None:
    gates = (LiveGateSpec(metric=LiveMetric.LATENCY),)
    world.spec = replace(SPEC, rollout=replace(PLAN, strategy=Strategy.CANARY, gates=gates))
    asked = {"version": "2", "actor": "ada", "reason": "better", "strategy": Strategy.SHADOW}
    with pytest.raises(Refused, match="no blocking rollout gate judges the shadow"):
        world.rollouts.request(world.spec, **asked)  # type: ignore[arg-type]


def test_asking_again_by_another_strategy_is_refused(world: World) -> None:
    world.releases.request(MODEL, version="2", actor="ada", reason="better", strategy=Strategy.CANARY)
    with pytest.raises(Refused, match="by canary"):
        world.releases.request(MODEL, version="2", actor="ada", reason="better", strategy=Strategy.SHADOW)
    assert world.releases.request(MODEL, version="2", actor="ada", reason="again").strategy == "canary"


def test_an_order_has_an_actor_and_a_reason(world: World) -> None:
    world.ask("2")
    with pytest.raises(Refused, match="needs an actor and a reason"):
        world.order(Order.ABORT, reason=" ")
