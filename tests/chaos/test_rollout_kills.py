"""A rollout whose process dies before any call to the outside ends as if it had not, once another process looks.

In one process: what it asks of release store, rollouts, windows, registry and keys is watched, and one of these calls
is its last. A transaction is all or nothing, which `test_crashes` tries statement by statement.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from release_platform.domain.errors import Refused
from release_platform.domain.rollout import Order
from release_platform.domain.strategy import Strategy
from tests.chaos.boundaries import Boundaries
from tests.chaos.seeds import AT_LENGTH, SEEDS, bound
from tests.chaos.world import Died
from tests.fakes.packages import build_linear_classifier
from tests.fakes.rollout_world import MODEL, World

SAMPLE = 4
"""Moments of each scenario and seed, where not every one is tried."""
LOOKS = 3
Act = Callable[[World], object]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is cut off, and how it came there."""

    prepare: Act
    act: Act


def asked(world: World, strategy: Strategy | None = None) -> None:
    words: dict[str, Any] = {"version": "2", "actor": "ada", "reason": "better", "strategy": strategy}
    world.releases.request(MODEL, request_id="q2", **words)


def watched(world: World, strategy: Strategy | None = None, *, errors: int = 0, looks: int = 0) -> None:
    """Begins a rollout; traffic comes for some minutes, and nobody looks at the last ones."""
    world.ask("2", strategy)
    for look in range(looks + 1):
        for _ in range(5):
            world.count(errors=errors)
            world.clock.pass_s(60)
        if look < looks:
            world.step()


def baking(world: World, seconds: float = 0.0) -> None:
    world.ask("2")
    world.order(Order.PROMOTE)
    world.clock.pass_s(seconds)


def third(world: World) -> None:
    """Version 3 is a canary beside 2, and 1 was in Production before."""
    world.ask("2", Strategy.ALL_AT_ONCE)
    world.clock.pass_s(10)
    world.stage("3")
    world.ask("3")


def go_back(world: World) -> None:
    world.releases.rollback(MODEL, to="1", actor="edsger", reason="all is bad", request_id="back")


SCENARIOS = {
    "it begins": Scenario(prepare=asked, act=lambda world: world.rollouts.carry_out("q2", world.spec)),
    "a shadow begins": Scenario(
        prepare=lambda world: asked(world, Strategy.SHADOW),
        act=lambda world: world.rollouts.carry_out("q2", world.spec_with(Strategy.SHADOW)),
    ),
    "the next step": Scenario(prepare=watched, act=World.step),
    "from shadow to canary": Scenario(
        prepare=lambda world: watched(world, Strategy.SHADOW_THEN_CANARY), act=World.step
    ),
    "to all traffic": Scenario(prepare=lambda world: watched(world, looks=1), act=World.step),
    "it is completed": Scenario(prepare=lambda world: baking(world, 121), act=World.step),
    "a gate fails": Scenario(prepare=lambda world: watched(world, errors=80), act=World.step),
    "a person promotes": Scenario(prepare=lambda world: world.ask("2"), act=lambda world: world.order(Order.PROMOTE)),
    "a person aborts": Scenario(prepare=lambda world: world.ask("2"), act=lambda world: world.order(Order.ABORT)),
    "it is aborted after all traffic moved": Scenario(prepare=baking, act=lambda world: world.order(Order.ABORT)),
    "a person goes back": Scenario(prepare=third, act=go_back),
    "it is found overtaken": Scenario(prepare=lambda world: (third(world), go_back(world)), act=World.step),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("packages")
    folders = {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3)}
    made = World.make(folders, tmp_path_factory.mktemp("first"))
    yield made
    made.store.close()


def cut_off(world: World, act: Act, at: int | None) -> list[str]:
    """Lets an act die before one of its calls, or not at all; returns the calls that it came to."""

    def reached(number: int, _: str) -> None:
        if number == at:
            raise Died

    boundaries = Boundaries(reached)
    store = boundaries.watched(world.store, "store")
    store.rollouts = boundaries.watched(world.store.rollouts, "rollouts")
    store.windows = boundaries.watched(world.store.windows, "windows")
    world.compose(store, boundaries.watched(world.registry, "registry"), boundaries.watched(world.keys, "keys"))
    with suppress(Died):
        act(world)
    world.compose(world.store, world.registry, world.keys)
    return boundaries.names


def outcome(world: World, act: Act) -> dict[str, Any]:
    """Does an act again as whoever ordered it would, lets the sensor look, and returns what all came to."""
    with suppress(Refused):  # it was done
        act(world)
    for _ in range(LOOKS):
        world.step()
        world.releases.projection.reconcile(MODEL, undo=True)
    requests = world.store.requests(MODEL)
    return {
        "moves": world.moves,
        "rollout": world.stage_now,
        "settled": world.store.rollouts.find_current(MODEL) is None,
        "aliases": world.registry.shown(MODEL).aliases,
        "requests": {request.request_id: (request.state, request.outcome) for request in requests},
        "wrong": world.wrong(),
    }


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_rollout_that_is_cut_off_before_any_call_is_carried_on(name: str, first: World, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    start = first.copy(tmp_path / "start")
    scenario.prepare(start)
    whole = start.copy(tmp_path / "whole")
    calls = cut_off(whole, scenario.act, None)
    expected = outcome(whole, scenario.act)
    assert expected["wrong"] == []
    assert len(calls) >= 5
    moments = list(range(len(calls)))
    tried = (
        moments if AT_LENGTH else random.Random(f"{name}-{SEEDS}").sample(moments, min(SAMPLE * SEEDS, len(moments)))
    )
    wrong = []
    for at in tried:
        world = start.copy(tmp_path / str(at))
        cut_off(world, scenario.act, at)
        found = outcome(world, scenario.act)
        wrong += [f"{calls[at]}: {key} is {found[key]}" for key in expected if found[key] != expected[key]]
        world.store.close()
    for world in (start, whole):
        world.store.close()
    print(f"\n{name}: {len(calls)} moments, {bound(len(wrong), len(tried))} wrong")
    assert wrong == []
