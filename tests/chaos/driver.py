"""Runs one operation in a process of its own, which dies or loses its database exactly where it is told to.

`Driver` starts a parent that has imported everything; each operation is a fork of it. As a program it is that parent.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from release_platform.audit import observe
from release_platform.domain.errors import ReleaseError, Unavailable
from release_platform.domain.invariants import violations
from tests.chaos.boundaries import Boundaries
from tests.chaos.operations import MODEL, Parts, Place, open_parts
from tests.chaos.repertoire import OPERATIONS, STATES
from tests.integration.homes import environment_of

ROOT = Path(__file__).parents[2]


class How(StrEnum):
    """What happens at the moment."""

    RECORD = "record"
    KILL = "kill"
    CUT = "cut"
    REPEAT = "repeat"
    PREPARE = "prepare"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an operation ended.

    Attributes:
        code: Exit code of its process: -9 when it was killed.
        moments: The moments that it came to.
        failure: How it failed, by itself; empty when it did not.
        problems: What is wrong afterwards; looked at after `REPEAT` only.
    """

    code: int
    moments: tuple[str, ...] = ()
    failure: str = ""
    problems: tuple[str, ...] = ()


class Driver:
    """Forks operations off a warm parent."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, name: str, place: Place, how: How, moment: int = -1) -> Outcome:
        """Runs an operation, or makes a state, and returns how it ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with TemporaryDirectory() as folder:
            answer = Path(folder) / "answer"
            order = [name, str(place.home), place.store_url, how, moment, str(answer)]
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            said = json.loads(answer.read_text()) if answer.exists() else {}
        return Outcome(code=code, **{name: tuple(v) if isinstance(v, list) else v for name, v in said.items()})


@contextmanager
def warm_driver() -> Iterator[Driver]:
    """Yields a driver; its parent ends with the block."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.driver"],
        env=environment_of(ROOT / ".none"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        yield Driver(server)
        assert server.stdin is not None
        server.stdin.close()


# In the child


def carry_out(name: str, place: Place, how: How, moment: int) -> dict[str, Any]:
    """Does what was ordered, and returns what is to be answered."""
    if how is How.PREPARE:
        STATES[name][1](open_parts(place))
        return {}
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    if how is How.REPEAT:
        return {"problems": repeat(operation.run, operation.done, open_parts(place))}
    boundaries = Boundaries(lambda number, _: act(number))

    def act(number: int) -> None:
        if number == moment and how is How.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        boundaries.is_cut = number == moment and how is How.CUT
        if boundaries.is_cut:
            end_connections(place.store_url)

    parts = open_parts(place)
    boundaries.watch_sql(place.store_url)
    watched = replace(
        parts,
        store=boundaries.watched(parts.store, "store"),
        registry=boundaries.watched(parts.registry, "registry"),
        keys=boundaries.watched(parts.keys, "keys"),
    )
    failure = ""
    try:
        operation.run(watched)
        boundaries.reach("at the end")
    except Unavailable:
        failure = "Unavailable"
    except ReleaseError as error:
        failure = f"{type(error).__name__}: {error.problem}"
    return {"moments": boundaries.names, "failure": failure}


def repeat(run: Any, done: Any, parts: Parts) -> list[str]:
    """Does an operation again, as the restarted platform would, and returns what is wrong afterwards."""
    problems = []
    try:
        run(parts)
    except ReleaseError as error:
        problems.append(f"repeating it failed: {type(error).__name__}: {error.problem}")
    problems += [
        f"wrongly said to be tampering: {said}" for said in parts.releases.projection.reconcile(MODEL, undo=False)
    ]
    if not done(parts):
        problems.append("its effect is not there")
    if parts.store.projected_epoch(MODEL) != parts.store.head(MODEL).epoch:
        problems.append("the aliases are not said to show the head")
    return problems + [finding.sentence for finding in violations(observe(parts.releases, MODEL))]


def end_connections(store_url: str) -> None:
    """Ends the PostgreSQL backends of every connection to a database."""
    url = sa.make_url(store_url)
    engine = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    mine = sa.text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name")
    with engine.connect() as connection:
        connection.execute(mine, {"name": url.database})


def main() -> None:
    """Forks a child for each order on the standard input."""
    warnings.simplefilter("ignore")
    import mlflow.store.artifact.artifact_repository_registry
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import tests.fakes.packages  # noqa: F401  # what loads a package

    for line in sys.stdin:
        name, home, store_url, how, moment, answer = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                said = carry_out(name, Place(home=Path(home), store_url=store_url), How(how), moment)
                Path(answer).write_text(json.dumps(said))
                code = 0
            except BaseException:  # noqa: BLE001  # whatever it was, the parent must hear of it
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
