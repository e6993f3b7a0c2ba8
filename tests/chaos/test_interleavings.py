"""Two processes at once, in every order of their calls, one of which may die: the aliases end where the ledger says."""

import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from release_platform.adapters.signing import KeyFolder
from tests.chaos.seeds import AT_LENGTH, bound
from tests.chaos.world import (
    MODEL,
    Act,
    Interruption,
    World,
    approve,
    carry_out,
    reconcile,
    request,
    rollback,
)
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry

WRITES = re.compile(r"registry\.set_|store\.(commit_move|mark_projected|close_request)")
Fresh = Callable[[], World]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def grown(folders: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    """Production is version 2, before it 1; version 3 is in Staging, and its approved request is open."""
    home = tmp_path_factory.mktemp("grown")
    keys = KeyFolder(home / "keys")
    world = World(url=f"sqlite:///{home / 'release.db'}", registry=FakeRegistry(folders, signs=False), keys=keys)
    for version in ("1", "2", "3"):
        steps: list[Act] = [
            partial(world.stage, version=version),
            partial(request, version=version, request_id=f"q{version}"),
            partial(approve, request_id=f"q{version}"),
            partial(carry_out, request_id=f"q{version}"),
        ]
        for act in steps if version != "3" else steps[:3]:
            assert world.run(act) == "done"
    return world


@pytest.fixture
def fresh(grown: World, tmp_path: Path) -> Fresh:
    """Returns a copy of the grown platform at each call."""
    n = 0

    def copy() -> World:
        nonlocal n
        n += 1
        path = tmp_path / f"{n}.db"
        shutil.copyfile(grown.url.removeprefix("sqlite:///"), path)
        return replace(grown, url=f"sqlite:///{path}", registry=deepcopy(grown.registry))

    return copy


def acts(world: World) -> dict[str, Act]:
    return {
        "promotion": partial(carry_out, request_id="q3"),
        "rollback": partial(rollback, request_id="back"),
        "registration": partial(world.stage, version="4"),
        "reconciliation": reconcile,
    }


PAIRS = [
    (first, second)
    for first in ("promotion", "rollback", "registration", "reconciliation")
    for second in ("promotion", "rollback", "registration")
    if first != second
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_operation_that_waits_while_another_is_done_leaves_nothing_wrong(
    fresh: Fresh, first: str, second: str
) -> None:
    calls = (world := fresh()).calls(acts(world)[first])
    waits = [number for number, call in enumerate(calls) if AT_LENGTH or WRITES.search(call)]
    for wait in waits:
        world = fresh()
        world.run(acts(world)[first], Interruption(pause_at=wait, other=acts(world)[second]))
        assert world.wrong_now() == []
        with world.process() as releases:
            assert releases.projection.deviations(MODEL) == (), f"{second} {calls[wait]}"
    print(f"\n{first}, {second} meanwhile: {bound(0, len(waits))} wrong")


def deaths(calls: tuple[str, ...]) -> list[tuple[int, int]]:
    """Returns where to wait and where to die: everywhere at length, else around each write to the registry."""
    every = [(wait, die) for wait in range(len(calls)) for die in range(wait + 1, len(calls))]
    writes = [wait for wait, call in enumerate(calls) if "registry.set_" in call]
    return every if AT_LENGTH else [(wait, die) for wait, die in every if wait in writes and die == wait + 1]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_operation_that_dies_after_another_overtook_it_is_put_right(fresh: Fresh, first: str, second: str) -> None:
    n_died = 0
    for world, _ in overtaken(fresh, first, second):
        n_died += 1
        assert world.wrong_now() == []
        assert world.settle()[1] == []
    print(f"\n{first} dies after {second}: {bound(0, n_died)} wrong")


@pytest.mark.parametrize("first", ["promotion", "rollback"])
def test_an_operation_that_dies_after_another_overtook_it_is_not_called_tampering(fresh: Fresh, first: str) -> None:
    for world, met in overtaken(fresh, first, "registration" if first == "promotion" else "promotion"):
        assert world.settle(undo=False)[0] == [], met


def overtaken(fresh: Fresh, first: str, second: str) -> Iterator[tuple[World, str]]:
    """Yields platforms on which an operation waited, another was done, and the first went on and died."""
    calls = (world := fresh()).calls(acts(world)[first])
    for wait, die in deaths(calls):
        world = fresh()
        met = Interruption(pause_at=wait, other=acts(world)[second], die_at=die)
        if world.run(acts(world)[first], met) == "died":
            yield world, f"waits {calls[wait]}, dies {calls[die]}"
