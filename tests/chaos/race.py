"""Many movers of one model at the same time, what each saw and when, and whether that has one history.

Each mover has a connection of its own; movers are threads here, or threads of several processes:
`python -m tests.chaos.race URL N_MOVERS N_ATTEMPTS SEED` prints one operation a line.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Barrier

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.errors import StaleEpoch, Unavailable
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head, Move

MODEL = "contested"
ROOT = Path(__file__).parents[2]
ROLLBACKS = 0.25
"""Share of the attempts that are rollbacks, as soon as there is something to go back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One attempt to move: when it began and ended (CLOCK_MONOTONIC, one clock for all processes), and what came of it.

    Attributes:
        request_id: Its identity.
        began_s: Before the head was read.
        read_s: After the head was read.
        ended_s: After the answer.
        expected: The epoch that was read.
        won: The epoch that it committed; None: it lost, or gave up.
        told: Of one that lost: the epoch that it was told of; None: it gave up: SQLite is not fair to who waits.
    """

    request_id: str
    began_s: float
    read_s: float
    ended_s: float
    expected: int
    won: int | None
    told: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A head, and the moments before and after it was read."""

    head: Head
    began_s: float
    read_s: float


def read_head(store: ReleaseStore) -> Reading:
    """Reads the head."""
    began_s = time.monotonic()
    return Reading(head=store.head(MODEL), began_s=began_s, read_s=time.monotonic())


def attempt(store: ReleaseStore, name: str, chance: random.Random, read: Reading | None = None) -> Operation:
    """Reads the head, unless it was read already, and tries one move from there."""
    read = read or read_head(store)
    head = read.head
    back = bool(head.previous) and chance.random() < ROLLBACKS
    won = told = None
    try:
        row = store.commit_move(
            model=MODEL,
            move=Move.ROLLED_BACK if back else Move.PROMOTED,
            version=head.previous[-1] if back else name,
            expected_epoch=head.epoch,
            actor=name,
            reason="race",
            request_id=name,
            evidence="",
            digest="",
        )
        won = row.epoch
    except StaleEpoch as stale:
        told = stale.found
    except Unavailable:  # says that nothing was changed; a row of it in the ledger would be a contradiction
        pass
    return Operation(
        request_id=name,
        began_s=read.began_s,
        read_s=read.read_s,
        ended_s=time.monotonic(),
        expected=head.epoch,
        won=won,
        told=told,
    )


def run_rounds(url: str, *, n_movers: int, n_rounds: int, seed: int) -> list[list[Operation]]:
    """Returns the operations of each round, in which all movers start from the same head at the same time."""
    stores = [ReleaseStore(url) for _ in range(n_movers)]
    start = Barrier(n_movers)

    def move(number: int, read: Reading) -> Operation:
        start.wait()
        chance = random.Random(f"{seed}-{read.head.epoch}-{number}")
        return attempt(stores[number], f"r{read.head.epoch}-{number}", chance, read)

    rounds = []
    with ThreadPoolExecutor(n_movers) as pool:
        for _ in range(n_rounds):
            read = read_head(stores[0])
            rounds.append(list(pool.map(move, range(n_movers), [read] * n_movers)))
    for store in stores:
        store.close()
    return rounds


def run_free(url: str, *, n_movers: int, n_attempts: int, seed: int, prefix: str = "") -> list[Operation]:
    """Returns the operations of movers that each read and move again and again, without waiting for another."""

    def mover(number: int) -> list[Operation]:
        chance = random.Random(f"{seed}-{prefix}-{number}")
        with closing(ReleaseStore(url)) as store:
            return [attempt(store, f"f{prefix}-{number}-{n}", chance) for n in range(n_attempts)]

    with ThreadPoolExecutor(n_movers) as pool:
        return [operation for done in pool.map(mover, range(n_movers)) for operation in done]


def run_processes(url: str, *, n_processes: int, n_movers: int, n_attempts: int, seed: int) -> list[Operation]:
    """Returns the operations of movers in several processes."""
    command = [sys.executable, "-m", "tests.chaos.race", url, str(n_movers), str(n_attempts)]
    started = [
        subprocess.Popen([*command, f"{seed}-{number}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(n_processes)
    ]
    printed = [process.communicate(timeout=1200)[0] for process in started]
    assert [process.returncode for process in started] == [0] * n_processes
    return [Operation(**json.loads(line)) for out in printed for line in out.splitlines()]


def n_given_up(operations: Sequence[Operation]) -> int:
    """Returns how many neither won nor lost."""
    return sum(operation.won is None and operation.told is None for operation in operations)


def contradictions(operations: Sequence[Operation], rows: Sequence[LedgerRow]) -> list[str]:
    """Returns a sentence for each operation that no single history, in the order of the ledger, explains.

    The ledger is a linearization when each winner's place in it fits the times of all others: a move that ended before
    another began stands before it; a read shows every move that had ended and none that had not begun; a loser is told
    of a move that was newer than the head that it read.
    """
    won = {operation.won: operation for operation in operations if operation.won is not None}
    found = []
    if [row.request_id for row in rows] != [won[epoch].request_id if epoch in won else None for epoch in _epochs(rows)]:
        found.append("the ledger's rows are not the winners")
    latest_began = 0.0
    for epoch in sorted(won):
        if won[epoch].ended_s < latest_began:
            found.append(f"epoch {epoch} ended before an earlier epoch began")
        latest_began = max(latest_began, won[epoch].began_s)
    for operation in operations:
        found += _misread(operation, won)
    return found


def _epochs(rows: Sequence[LedgerRow]) -> list[int]:
    return [row.epoch for row in rows]


def _misread(operation: Operation, won: dict[int | None, Operation]) -> list[str]:
    name, found = operation.request_id, []
    after = won.get(operation.expected + 1)
    if after is not None and after.ended_s < operation.began_s:
        found.append(f"{name} read epoch {operation.expected} after the next one had been committed")
    read = won.get(operation.expected)
    if read is not None and read.began_s > operation.read_s:
        found.append(f"{name} read epoch {operation.expected} before it was begun")
    if operation.won is not None and operation.won != operation.expected + 1:
        found.append(f"{name} expected epoch {operation.expected} and committed {operation.won}")
    if operation.told is not None:
        told = won.get(operation.told)
        if operation.told <= operation.expected or told is None or told.began_s > operation.ended_s:
            found.append(f"{name} lost to epoch {operation.told}, which was not there")
    return found


def main() -> None:
    """Competes as one of several processes."""
    url, n_movers, n_attempts, seed = sys.argv[1:]
    for operation in run_free(url, n_movers=int(n_movers), n_attempts=int(n_attempts), seed=0, prefix=seed):
        print(json.dumps(asdict(operation)))


if __name__ == "__main__":
    main()
