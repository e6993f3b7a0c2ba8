"""Of any number of movers at the same time one wins, each other is told, and what all saw has one history."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.ledger import LedgerRow, faults, fold
from release_platform.domain.lifecycle import Move
from tests.chaos.race import MODEL, Operation, contradictions, n_given_up, run_free, run_processes, run_rounds
from tests.chaos.seeds import SEEDS, bound, only_at_length

MOVERS = 64
PROCESSES = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'release.db'}"
    return str(request.getfixturevalue("postgresql_url"))


def check_history(url: str, operations: list[Operation]) -> tuple[LedgerRow, ...]:
    with closing(ReleaseStore(url)) as store:
        rows = store.ledger(MODEL)
        assert faults(MODEL, rows) == ()
        assert fold(MODEL, rows) == store.head(MODEL)
    assert contradictions(operations, rows) == []
    return rows


def test_of_64_movers_one_wins_each_round(url: str) -> None:
    n_rounds = 3 * SEEDS
    rounds = run_rounds(url, n_movers=MOVERS, n_rounds=n_rounds, seed=SEEDS)
    for operations in rounds:
        (winner,) = [operation for operation in operations if operation.won is not None]
        assert {operation.told for operation in operations if operation is not winner} == {winner.won}
    rows = check_history(url, [operation for operations in rounds for operation in operations])
    assert {row.move for row in rows} >= {Move.PROMOTED}
    print(f"\n{url.split(':')[0]}: {MOVERS} movers, rounds without exactly one winner: {bound(0, n_rounds)}")


def test_the_history_of_movers_that_never_wait_is_linearizable(url: str) -> None:
    operations = run_free(url, n_movers=MOVERS, n_attempts=1 + SEEDS, seed=SEEDS)
    rows = check_history(url, operations)
    assert {row.move for row in rows} == {Move.PROMOTED, Move.ROLLED_BACK}
    say(url, operations, f"{MOVERS} threads")


@pytest.mark.parametrize("url", [pytest.param("sqlite", marks=only_at_length), "postgresql"], indirect=True)
def test_the_history_of_several_processes_is_linearizable(url: str) -> None:
    each = MOVERS // PROCESSES
    operations = run_processes(url, n_processes=PROCESSES, n_movers=each, n_attempts=1 + SEEDS, seed=SEEDS)
    assert len(operations) == MOVERS * (1 + SEEDS)
    check_history(url, operations)
    say(url, operations, f"{PROCESSES} processes of {each} threads")


def say(url: str, operations: list[Operation], movers: str) -> None:
    n_tried, n_without = len(operations), n_given_up(operations)
    assert n_without < n_tried / 2
    name, said = url.split(":")[0], bound(0, n_tried)
    print(f"\n{name}: {n_tried} moves by {movers}, unexplained: {said}; {n_without} gave up without effect")


def test_a_history_that_cannot_be_is_seen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'release.db'}"
    operations = run_free(url, n_movers=4, n_attempts=4, seed=1)
    rows = check_history(url, operations)
    winner = next(operation for operation in operations if operation.won == 2)
    others = [operation for operation in operations if operation is not winner]
    assert contradictions(others, rows)[0] == "the ledger's rows are not the winners"
    late = replace(winner, began_s=1e18, read_s=1e18, ended_s=1e18)
    assert any("after the next one" in said or "ended before" in said for said in contradictions([*others, late], rows))
    twice = replace(winner, expected=0)
    assert any("and committed" in said for said in contradictions([*others, twice], rows))
