"""Every operation is cut off at every moment, repeated by a new process, and every invariant holds.

`kill`: the process kills itself with SIGKILL exactly there. `cut`: PostgreSQL ends all its connections there, and the
process goes on. The release store is real, and so is MLflow; each crash has a copy of the platform for itself.
"""

import random
from collections.abc import Iterator
from itertools import count

import pytest

from tests.chaos.driver import Driver, How, Outcome, warm_driver
from tests.chaos.operations import Operation
from tests.chaos.repertoire import OPERATIONS
from tests.chaos.seeds import AT_LENGTH, ONLY, SEEDS, bound, only_at_length
from tests.chaos.states import States

SAMPLE = {How.KILL: 22, How.CUT: 10}
"""Moments of each seed, where not every one is tried."""

DATABASES = ["sqlite", pytest.param("postgresql", marks=only_at_length)]

KILLED = -9
TRIED = tuple(operation for operation in OPERATIONS if not ONLY or any(word in operation.name for word in ONLY))
NAMED = {operation.name: operation for operation in TRIED}
_copies = count()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with warm_driver() as started:
        yield started


@pytest.fixture(scope="module")
def states(request: pytest.FixtureRequest, driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> States:
    server = request.getfixturevalue("postgresql_server") if request.param == "postgresql" else ""
    return States(tmp_path_factory.mktemp(request.param) / "states", driver, server)


@pytest.fixture(scope="module")
def moments(states: States, driver: Driver) -> dict[str, tuple[str, ...]]:
    """The moments of each operation, as a run without a crash comes to them."""
    found = {}
    for operation in TRIED:
        with states.copy(operation.start, next(_copies)) as place:
            found[operation.name] = uncut(driver.run(operation.name, place, How.RECORD)).moments
    return found


def uncut(outcome: Outcome) -> Outcome:
    assert (outcome.code, outcome.failure) == (0, "")
    return outcome


def chosen(moments: dict[str, tuple[str, ...]], how: How) -> list[tuple[Operation, int]]:
    """Returns all moments at length, else a sample that has each operation as soon as it is large enough."""
    every = [(NAMED[name], number) for name, names in moments.items() for number in range(len(names))]
    if AT_LENGTH:
        return every
    chance = random.Random(f"{how}-{SEEDS}")
    chance.shuffle(every)
    turns = [sum(other is operation for other, _ in every[:place]) for place, (operation, _) in enumerate(every)]
    return [every[place] for place in sorted(range(len(every)), key=turns.__getitem__)][: SAMPLE[how] * SEEDS]


def cut_off(states: States, driver: Driver, operation: Operation, how: How, numbers: list[int]) -> list[str]:
    """Cuts an operation off, once for each moment; returns what is wrong when it was repeated."""
    with states.copy(operation.start, next(_copies)) as place:
        for number in numbers:
            outcome = driver.run(operation.name, place, how, number)
            if how is How.KILL and outcome.code not in {KILLED, 0}:
                return [f"it ended with code {outcome.code} instead of being killed"]
            if how is How.CUT and (outcome.code or outcome.failure not in {"", "Unavailable"}):
                return [f"it failed by {outcome.failure or outcome.code}, not by Unavailable"]
        outcome = driver.run(operation.name, place, How.REPEAT)
    return [*outcome.problems, *([f"repeating it ended with code {outcome.code}"] if outcome.code else [])]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("states", DATABASES, indirect=True)
def test_a_process_that_is_killed_at_any_moment_leaves_nothing_wrong(
    states: States, driver: Driver, moments: dict[str, tuple[str, ...]], request: pytest.FixtureRequest
) -> None:
    check(states, driver, moments, How.KILL, request.node.callspec.id)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("states", ["postgresql"], indirect=True)
def test_a_database_that_ends_its_connections_at_any_moment_leaves_nothing_wrong(
    states: States, driver: Driver, moments: dict[str, tuple[str, ...]]
) -> None:
    check(states, driver, moments, How.CUT, "postgresql")


def check(states: States, driver: Driver, moments: dict[str, tuple[str, ...]], how: How, kind: str) -> None:
    assert moments
    assert {name: len(names) >= 7 for name, names in moments.items()} == dict.fromkeys(NAMED, True)
    tried, wrong = chosen(moments, how), []
    for operation, number in tried:
        problems = cut_off(states, driver, operation, how, [number])
        named = f"{operation.name}: {moments[operation.name][number]}"
        wrong += [f"{how} at `{named}`: {problem}" for problem in problems]
    n_moments = sum(map(len, moments.values()))
    print(f"\n{kind}, {how}: {n_moments} moments of {len(moments)} operations, {bound(len(wrong), len(tried))} wrong")
    assert wrong == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("states", DATABASES, indirect=True)
def test_a_process_that_is_killed_again_and_again_gets_there(
    states: States, driver: Driver, moments: dict[str, tuple[str, ...]], request: pytest.FixtureRequest
) -> None:
    wrong = []
    for seed in range(SEEDS):
        chance = random.Random(f"again-{seed}")
        operation = chance.choice(TRIED)
        numbers = [chance.randrange(len(moments[operation.name])) for _ in range(3)]
        problems = cut_off(states, driver, operation, How.KILL, numbers)
        wrong += [f"{operation.name}, killed at {numbers}: {problem}" for problem in problems]
    print(f"\n{request.node.callspec.id}: killed three times, {bound(len(wrong), SEEDS)} wrong")
    assert wrong == []
