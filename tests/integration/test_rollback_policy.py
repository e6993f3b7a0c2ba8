"""A version that is worse in Production than the one before is taken back by policy, over a real store and packages."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from math import log
from pathlib import Path
from typing import Any

import pytest

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.drill import REASON, Half, drill_move_id
from release_platform.domain.errors import Refused, StaleEpoch
from release_platform.domain.ledger import moves_production
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.rollout import Order, RolloutState
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, Strategy
from release_platform.domain.verified import Found, Verified
from tests.fakes.packages import build_linear_classifier
from tests.fakes.rollout_world import MODEL, PLAN, SPEC, URL, World
from tests.unit.test_drift_day import DRIFTED, QUIET

WATCHED = RollbackSpec(gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.02),), hold_off_s=3600)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3)}


@pytest.fixture
def world(folders: dict[tuple[str, str], Path], tmp_path: Path) -> Iterator[World]:
    made = World.make(folders, tmp_path)
    made.spec = replace(SPEC, rollback_policy=WATCHED, rollout=replace(PLAN, bake_s=600))
    made.serve_minutes(10)
    yield made
    made.store.close()


def test_a_version_that_fails_more_than_the_one_before_is_taken_back(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.serve_minutes(8, errors=30)
    head = world.store.head(MODEL)
    assert (head.production, head.previous) == ("1", ())
    row = world.store.ledger(MODEL)[-1]
    assert (row.move, row.version, row.actor) == ("rolled_back", "1", POLICY)
    assert "in the record of version 1" in row.reason
    kept = world.store.assessments.find(row.evidence)
    assert kept is not None
    assert (kept["decided_by"], kept["verdict"], kept["reason"]) == ("policy", "failed", row.reason)
    found = kept["policy"]
    assert (found["epoch"], found["version"], found["to"]) == (row.epoch - 1, "2", "1")
    assert (found["gate"]["gate"], found["gate"]["accepted"]) == ("errors", 0.02)
    assert found["gate"]["counts"][0][0] == [100, 30, 100, 0]
    assert found["gate"]["worse"] >= -log(found["gate"]["level"])
    assert world.registry.find_alias(MODEL, "production") == "1"
    assert [push.version for push in world.servers.pushed] == ["1", "2", "1"]
    assert world.wrong() == []


def test_a_version_that_fails_as_the_one_before_stays(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    *_, last = world.serve_minutes(12, errors=1)
    assert world.store.head(MODEL).production == "2"
    assert last is not None
    assert last.said[0].startswith("errors: 1 % of")


def test_while_it_bakes_the_rollout_is_aborted(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    world.serve_minutes(8, errors=30)
    rollout = world.rollouts.get(MODEL).rollout
    assert (rollout.state, rollout.actor) == (RolloutState.ABORTED, POLICY)
    row = world.store.ledger(MODEL)[-1]
    assert (row.version, row.actor, row.request_id) == ("1", POLICY, "q2#rollout-back")
    kept = world.store.assessments.find(row.evidence)
    assert kept is not None
    assert (kept["decided_by"], kept["verdict"], kept["reason"]) == ("policy", "failed", rollout.reason)
    assert kept["policy"]["gate"]["gate"] == "errors"
    assert world.wrong() == []


def test_it_does_not_go_in_circles(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.serve_minutes(8, errors=30)
    assert world.store.head(MODEL).production == "1"
    *_, last = world.serve_minutes(6, errors=60)  # whatever it is, it is not the version
    assert world.store.head(MODEL).production == "1"
    assert last is not None
    assert last.said == (f"version 1 was brought back by {POLICY}: a person decides what comes next",)
    world.stage("3")
    world.ask("3", Strategy.ALL_AT_ONCE)
    *_, last = world.serve_minutes(4, errors=90)
    assert world.store.head(MODEL).production == "3"
    assert last is not None
    assert "holds off until" in last.said[0]


def test_a_rollback_of_a_person_stands(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.serve_minutes(1)
    world.releases.rollback(MODEL, to="1", actor="grace", reason="no")
    world.serve_minutes(8, errors=90)
    assert world.store.ledger(MODEL)[-1].actor == "grace"


def test_a_move_that_is_made_meanwhile_is_not_undone(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    head = world.store.head(MODEL)
    world.stage("3")
    world.ask("3", Strategy.ALL_AT_ONCE)
    with pytest.raises(StaleEpoch):  # what the policy would do that had looked before
        world.releases.rollback(MODEL, to="1", actor=POLICY, reason="errors", expected_epoch=head.epoch)
    assert world.store.head(MODEL).production == "3"


def test_a_server_that_does_not_answer_is_told_and_nothing_is_done(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.servers.down = {URL}
    *_, last = world.serve_minutes(5, errors=90)
    assert world.store.head(MODEL).production == "2"
    assert last is not None
    assert last.said == (f"{URL} hands in no windows: down", "errors: no minute of version 2 was measured")


def test_a_model_without_a_policy_is_not_watched(world: World) -> None:
    world.spec = SPEC
    assert world.watch.look(MODEL, world.spec) is None


# Verifications of the live servers


def verify(world: World, found: Found = Found.FAILED) -> None:
    """Half a minute passes, and a verification ends."""
    world.clock.pass_s(30)
    row = [row for row in world.store.ledger(MODEL) if moves_production(row)][-1]
    at = world.clock.now().isoformat()
    of = {"version": row.version, "digest": row.digest, "epoch": row.epoch, "servers": (URL,)}
    world.store.verifications.record(Verified(model=MODEL, at=at, found=found, problems=("it is wrong",), **of))  # type: ignore[arg-type]


def test_a_version_that_servers_answer_otherwise_is_taken_back_without_any_request(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    verify(world)
    look = world.watch.look(MODEL, world.spec)
    assert look is not None
    assert "verification: failed at" in look.said[0]
    assert look.row is None
    verify(world)
    look = world.watch.look(MODEL, world.spec)
    assert look is not None
    assert look.row is not None
    assert (look.row.version, look.row.actor) == ("1", POLICY)
    assert world.store.verifications.since(MODEL, "")[-1].verification_id in look.row.reason
    assert [push.version for push in world.servers.pushed] == ["1", "2", "1"]
    verify(world)
    verify(world)
    look = world.watch.look(MODEL, world.spec)
    assert look is not None
    assert look.said == (f"version 1 was brought back by {POLICY}: a person decides what comes next",)
    assert world.wrong() == []


def test_while_it_bakes_verifications_that_failed_abort_the_rollout(world: World) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    verify(world)
    verify(world)
    world.watch.look(MODEL, world.spec)
    rollout = world.rollouts.get(MODEL).rollout
    assert (rollout.state, rollout.actor) == (RolloutState.ABORTED, POLICY)
    assert "verification: 2 in a row failed" in world.store.ledger(MODEL)[-1].reason
    assert world.wrong() == []


def test_a_person_who_promotes_meanwhile_is_not_overruled_by_what_the_version_before_failed(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    verify(world)
    verify(world)
    world.stage("3")
    world.ask("3", Strategy.ALL_AT_ONCE)
    look = world.watch.look(MODEL, world.spec)
    assert look is not None
    assert look.row is None
    assert world.store.head(MODEL).production == "3"


class Busy:
    """A release store in which something happens just after its verifications were read."""

    def __init__(self, store: ReleaseStore, then: Callable[[], object]) -> None:
        self._store, self._then = store, then
        self.verifications = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def since(self, model: str, at: str) -> tuple[Verified, ...]:
        found = self._store.verifications.since(model, at)
        self._then()
        return found


def test_what_a_person_promotes_while_the_policy_looks_is_not_undone(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    verify(world)
    verify(world)
    world.stage("3")
    world.compose(Busy(world.store, lambda: world.ask("3", Strategy.ALL_AT_ONCE)), world.registry, world.keys)
    with pytest.raises(StaleEpoch):
        world.watch.look(MODEL, world.spec)
    assert world.store.head(MODEL).production == "3"


def test_it_holds_off_with_verifications_too(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    verify(world)
    verify(world)
    world.watch.look(MODEL, world.spec)
    world.stage("3")
    world.ask("3", Strategy.ALL_AT_ONCE)
    verify(world)
    verify(world)
    look = world.watch.look(MODEL, world.spec)
    assert look is not None
    assert "holds off until" in look.said[0]
    assert world.store.head(MODEL).production == "3"


def drifts(world: World, version: str) -> None:
    world.spec = replace(world.spec, drift=DriftSpec(on_alarm=(OnAlarm.ROLL_BACK, OnAlarm.HOLD)))
    now, asked = world.clock.now(), world.spec.drift.on_alarm
    of = {"model": MODEL, "version": version, "day": now.date(), "at": now.isoformat()}
    world.store.drift.record(replace(DRIFTED, on_alarm=asked, **of))


def test_a_version_that_drifted_is_taken_back_where_the_yaml_asks_for_it(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    drifts(world, "2")
    world.serve_minutes(1)
    row = world.store.ledger(MODEL)[-1]
    assert (row.move, row.version, row.actor) == ("rolled_back", "1", POLICY)
    assert row.reason.startswith("drift on 2026-03-01")
    drifts(world, "1")
    *_, last = world.serve_minutes(2)
    assert last is not None
    assert "a person decides what comes next" in last.said[0]
    assert world.store.head(MODEL).production == "1"
    assert world.wrong() == []


def test_a_version_that_a_person_promotes_again_is_not_taken_back_for_drift_of_before(world: World) -> None:
    world.spec = replace(world.spec, rollback_policy=replace(WATCHED, hold_off_s=0))
    world.ask("2", Strategy.ALL_AT_ONCE)
    drifts(world, "2")
    world.serve_minutes(1)
    assert world.store.head(MODEL).production == "1"
    world.rollouts.request(world.spec, request_id="again", version="2", actor="ada", reason="it was the new shop")
    world.rollouts.carry_out("again", world.spec_with(Strategy.ALL_AT_ONCE))
    world.serve_minutes(3)
    assert world.store.head(MODEL).production == "2"
    drifts(world, "2")
    world.serve_minutes(1)
    assert world.store.head(MODEL).production == "1"


def test_what_a_person_promoted_back_or_lifted_is_not_taken_back_for_drift(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    drifts(world, "2")
    world.releases.lift_hold(MODEL, actor="grace", reason="the new shop")
    world.serve_minutes(2)
    assert world.store.head(MODEL).production == "2"
    world.releases.rollback(MODEL, to="1", actor="grace", reason="no")
    drifts(world, "1")
    world.serve_minutes(2)
    assert world.store.ledger(MODEL)[-1].actor == "grace"


def test_a_hold_stops_promotions_until_it_is_lifted_and_never_a_rollback(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    drifts(world, "2")
    world.stage("3")
    with pytest.raises(Refused, match=r"drift on .* holds promotions .* `release lift-hold churn`"):
        world.ask("3")
    with pytest.raises(Refused, match="version 3 is not promoted: drift on"):
        world.releases.promote("q3", world.spec.policy)
    world.releases.rollback(MODEL, to="1", actor="grace", reason="no")
    assert world.store.head(MODEL).production == "1"
    assert world.releases.missing(world.releases.facts(world.store.get_request("q3"), world.spec.policy)) == ()

    drifts(world, "1")
    with pytest.raises(Refused, match="needs an actor and a reason"):
        world.releases.lift_hold(MODEL, actor="ada", reason=" ")
    day = world.releases.lift_hold(MODEL, actor="ada", reason="known")
    assert day.lift is not None
    assert (day.lift.actor, day.hold) == ("ada", "")
    world.releases.promote("q3", world.spec.policy)
    assert world.store.head(MODEL).production == "3"
    with pytest.raises(Refused, match="no drift alarm holds"):
        world.releases.lift_hold(MODEL, actor="ada", reason="known")


def test_a_day_without_an_alarm_ends_the_hold(world: World) -> None:
    drifts(world, "1")
    later = world.clock.now().date() + timedelta(days=1)
    world.store.drift.record(replace(QUIET, model=MODEL, version="1", day=later))
    world.ask("2", Strategy.ALL_AT_ONCE)
    assert world.store.head(MODEL).production == "2"


def test_a_rollback_of_a_person_in_the_middle_of_a_drill_says_where_it_goes(world: World) -> None:
    world.ask("2", Strategy.ALL_AT_ONCE)
    drill = {"actor": "grace", "reason": f"{REASON}every month", "request_id": drill_move_id("d", Half.THERE)}
    world.releases.rollback(MODEL, to="1", **drill)
    with pytest.raises(Refused, match="version 1 is in Production until it brings version 2 back"):
        world.releases.rollback(MODEL, to=None, actor="ada", reason="away from here")
    world.releases.rollback(MODEL, to="2", actor="ada", reason="as it was")
    assert world.store.head(MODEL).previous == ("1",)
    world.releases.rollback(MODEL, to=None, actor="ada", reason="away from there")
    assert world.store.head(MODEL).production == "1"
    assert world.wrong() == []
