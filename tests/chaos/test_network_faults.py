"""What the network does between the platform and PostgreSQL, MLflow and S3, at the points of a release.

After each fault: the operation ended in time, by success or by `Unavailable`; the same operation with the same request
id, given again, is done, once; and every invariant holds. `CHAOS_SEEDS=20` tries every point with every fault.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.audit import observe
from release_platform.domain.errors import ReleaseError, Unavailable
from release_platform.domain.invariants import LINEAGE, violations
from release_platform.pipeline.ingest import store_frame
from tests.chaos.boundaries import Boundaries
from tests.chaos.fault_proxy import Fault, FaultProxy, Way, fault_proxy
from tests.chaos.operations import MODEL, POLICY, Parts, Place, approve, promote, register, request, rollback
from tests.chaos.seeds import SEEDS, bound, only_at_length
from tests.contract.registries import mlflow_process, proxying_command
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.integration.homes import free_port
from tests.integration.s3_server import S3Server, running_s3

pytestmark = pytest.mark.timeout(3600)
PATIENCE_S = 3.0
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}
LONGEST_S = 60.0
"""Of an operation: some requests to MLflow of two tries each, with three seconds for a try."""
CASES_A_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a release.

    Attributes:
        name: Its name.
        operation: Which operation it is in.
        call: How the call begins that it is before.
        commits: Whether it is before that call's commit instead.
        systems: What the platform talks to from there on.
    """

    name: str
    operation: str
    call: str
    commits: bool = False
    systems: tuple[str, ...]


POINTS = (
    Point(name="registration", operation="register", call="registry.register(", systems=("mlflow", "postgresql")),
    Point(name="request", operation="request", call="store.open_request(", commits=True, systems=("postgresql",)),
    Point(name="load", operation="promote", call="registry.fetch(", systems=("s3", "mlflow")),
    Point(
        name="move",
        operation="promote",
        call="store.commit_move(promoted",
        commits=True,
        systems=("postgresql", "mlflow"),
    ),
    Point(name="certificate", operation="promote", call="registry.set_tag(", systems=("mlflow", "postgresql")),
    Point(name="alias", operation="promote", call="registry.set_alias(production", systems=("mlflow", "postgresql")),
    Point(
        name="rollback",
        operation="rollback",
        call="store.commit_move(rolled_back",
        commits=True,
        systems=("postgresql", "mlflow"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault at a point."""

    point: Point
    system: str
    fault: Fault
    way: Way

    def __str__(self) -> str:
        return f"{self.point.name}: {self.fault} {self.way} of {self.system}"


CASES = [
    Case(point=point, system=system, fault=fault, way=way)
    for point in POINTS
    for system, fault, way in itertools.product(point.systems, Fault, Way)
]


def chosen() -> list[Case]:
    """Returns `CASES_A_SEED` cases for each seed, the points in turn."""
    every = list(CASES)
    chance = random.Random(SEEDS)
    chance.shuffle(every)
    turns = [sum(other.point is case.point for other in every[:place]) for place, case in enumerate(every)]
    order = sorted(range(len(every)), key=lambda place: (turns[place], POINTS.index(every[place].point)))
    return [every[place] for place in order[: CASES_A_SEED * SEEDS]]


class World:
    """One platform, seen through proxies that can fail, and past them."""

    def __init__(self, place: Place, through: Parts, past: Parts, mlflow: str, proxies: dict[str, FaultProxy]) -> None:
        self.place = place
        self.past = past
        self.proxies = proxies
        self._through = through
        self._mlflow = mlflow
        self._n_versions = 0
        self.said = ""
        self.far_store = through.store

    def log(self) -> str:
        """Trains, in effect: returns the name of a new package that can be registered."""
        self._n_versions += 1
        name = f"v{self._n_versions}"
        folder = build_linear_classifier(self.place.home / name, n_rows=300 + self._n_versions)
        tracking = MlflowTracking(self._mlflow, None, self.past.store)
        run_id = tracking.open_run(MODEL, f"dagster-{name}", {})
        model_id = tracking.log_package(MODEL, run_id, folder, {})
        file = self.place.home / "packages.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        logged = {"run_id": run_id, "model_id": model_id, "manifest": manifest_of(folder).to_json()}
        file.write_text(json.dumps({**known, name: logged}))
        return name

    def run(self, act: Callable[[Parts], None], case: Case, *, once: bool = False) -> tuple[str, float]:
        """Does something, with a fault from a point on until it ends; returns how it ended, and after how long."""
        proxy, begun = self.proxies[case.system], []

        def begin() -> None:
            if not begun:
                begun.append(True)
                proxy.set(case.fault, case.way, once=once)

        began = time.monotonic()
        with self._watched(case.point, begin) as parts, pytest.MonkeyPatch.context() as environment:
            for name, value in IMPATIENT.items():
                environment.setenv(name, value)
            try:
                act(parts)
                outcome = "done"
            except ReleaseError as error:
                outcome = "Unavailable" if isinstance(error, Unavailable) else type(error).__name__
                self.said = error.problem
        took = time.monotonic() - began
        proxy.heal()
        assert begun, f"{case.point.name} was not come to"
        return outcome, took

    @contextmanager
    def _watched(self, point: Point, begin: Callable[[], None]) -> Iterator[Parts]:
        within: list[str] = []

        def reached(_: int, name: str) -> None:
            within[:] = [name]
            if name.startswith(f"before {point.call}") and not point.commits:
                begin()

        def commits(connection: sa.Connection) -> None:
            is_ours = connection.engine.url.port == self.proxies["postgresql"].port
            if point.commits and is_ours and within and within[0].startswith(f"before {point.call}"):
                begin()

        boundaries = Boundaries(reached)
        of = {name: boundaries.watched(getattr(self._through, name), name) for name in ("store", "registry", "keys")}
        sa.event.listen(sa.Engine, "commit", commits)
        try:
            yield replace(self._through, **of)
        finally:
            sa.event.remove(sa.Engine, "commit", commits)

    def problems(self) -> list[str]:
        """Returns what is wrong, seen past the proxies."""
        said = [f"tampering: {one}" for one in self.past.releases.projection.reconcile(MODEL, undo=False)]
        found = violations(observe(self.past.releases, MODEL))
        return said + [one.sentence for one in found if one.invariant != LINEAGE]

    def rows(self, request_id: str) -> list[Any]:
        return [row for row in self.past.store.ledger(MODEL) if row.request_id == request_id]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        server.client().create_bucket(Bucket="artefacts")
        yield server


@pytest.fixture(scope="module")
def new_world(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: str, s3: S3Server
) -> Callable[[], AbstractContextManager[World]]:
    return lambda: running_world(tmp_path_factory.mktemp("network"), postgresql_server, s3)


@pytest.fixture(scope="module")
def world(new_world: Callable[[], AbstractContextManager[World]]) -> Iterator[World]:
    with new_world() as made:
        yield made


@contextmanager
def running_world(folder: Path, postgresql_server: str, s3: S3Server) -> Iterator[World]:
    """Yields a platform in which two versions were released."""
    direct = sa.make_url(postgresql_server).set(database=f"network{free_port()}")
    engine = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {direct.database}"))
    with ExitStack() as open_:
        store = open_.enter_context(fault_proxy(f"{direct.query['host']}/.s.PGSQL.5432"))
        files = open_.enter_context(fault_proxy(("127.0.0.1", int(s3.endpoint.rpartition(":")[2]))))
        port = free_port()
        command = proxying_command(port, f"sqlite:///{folder / 'mlflow.db'}", f"s3://artefacts/{folder.name}")
        through_files = s3.environment | {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{files.port}"}
        mlflow = open_.enter_context(mlflow_process(command, port, folder / "mlflow.log", **through_files))
        registry = open_.enter_context(fault_proxy(("127.0.0.1", port)))
        far = sa.URL.create(
            "postgresql+psycopg2", "postgres", host="127.0.0.1", port=store.port, database=direct.database
        )
        place = Place(home=folder, store_url=direct.render_as_string(hide_password=False))
        keys = KeyFolder(folder / "keys")
        past_store = open_.enter_context(closing(ReleaseStore(place.store_url)))
        far_store = ReleaseStore(far.render_as_string(hide_password=False), patience_s=PATIENCE_S)
        open_.callback(far_store.close)
        past = Parts(place=place, store=past_store, registry=MlflowRegistry(mlflow), keys=keys)
        through = Parts(
            place=place, store=far_store, registry=MlflowRegistry(f"http://127.0.0.1:{registry.port}"), keys=keys
        )
        made = World(place, through, past, mlflow, {"postgresql": store, "mlflow": registry, "s3": files})
        for number in ("one", "two"):  # so that there is something to go back to
            release(made, number)
        yield made


def release(world: World, request_id: str) -> None:
    """Releases a version, undisturbed."""
    name = world.log()
    register(world.past, name)
    request(world.past, request_id, str(world.past.store.head(MODEL).staging))
    approve(world.past, request_id)
    promote(world.past, request_id)


def cycle(world: World, number: int) -> Iterator[tuple[str, str, Callable[[Parts], None]]]:
    """Yields the operations of a release and a rollback, each with the request id that its move has."""
    name, asked, back = world.log(), f"q{number}", f"back{number}"
    yield "register", "", lambda parts: register(parts, name)
    version = str(world.past.store.head(MODEL).staging)
    yield "request", "", lambda parts: request(parts, asked, version)
    approve(world.past, asked)
    yield "promote", asked, lambda parts: promote_again(parts, asked)
    yield "rollback", back, lambda parts: rollback(parts, back)


def promote_again(parts: Parts, request_id: str) -> None:
    """Carries a request out, or what is left of it."""
    parts.releases.promote(request_id, POLICY)


_numbers = itertools.count()


def tried(world: World, case: Case, *, once: bool = False) -> tuple[str, list[str]]:
    """Goes through a release as far as the fault; returns how the operation with the fault ended, and what is wrong."""
    wrong: list[str] = []
    for operation, request_id, act in cycle(world, next(_numbers)):
        if operation != case.point.operation:
            act(world.past)
            continue
        ended, took = world.run(act, case, once=once)
        if ended not in {"done", "Unavailable"} or (case.fault is Fault.DELAY and ended != "done"):
            wrong.append(f"it ended by {ended}")
        if took > LONGEST_S:
            wrong.append(f"it took {took:.0f} s")
        known = world.rows(request_id) if request_id else []
        if ended == "done" and request_id and len(known) != 1:
            wrong.append("it is said to be done, but is not in the ledger")
        act(world.past)  # the same request id, given again
        if request_id and (len(world.rows(request_id)) != 1 or (known and world.rows(request_id) != known)):
            wrong.append(f"the move is {len(world.rows(request_id))} times in the ledger, or another one")
        return ended, wrong + world.problems()
    raise AssertionError(f"there is no operation {case.point.operation}")


def test_a_fault_of_the_network_at_any_point_leaves_nothing_wrong(
    world: World, new_world: Callable[[], AbstractContextManager[World]]
) -> None:
    cases, wrong, ends = chosen(), [], []
    for first in range(0, len(cases), CASES_A_SEED):  # a long history takes long to audit, so each seed has its own
        with new_world() if first else nullcontext(world) as used:
            for case in cases[first : first + CASES_A_SEED]:
                began = time.monotonic()
                ended, problems = tried(used, case)
                ends.append(ended)
                wrong += [f"{case}: {problem}" for problem in problems]
                print(f"\n{case}: {ended}, {time.monotonic() - began:.1f} s")
    print(f"\n{len(cases)} of {len(CASES)} faults: {bound(len(wrong), len(cases))} wrong")
    assert wrong == []
    assert "Unavailable" in ends


def at(name: str, system: str, fault: Fault, way: Way) -> Case:
    (point,) = [point for point in POINTS if point.name == name]
    return Case(point=point, system=system, fault=fault, way=way)


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HALF_OPEN])
def test_a_move_whose_commit_is_not_answered_is_looked_up_by_its_request_id(world: World, fault: Fault) -> None:
    ended, wrong = tried(world, at("move", "postgresql", fault, Way.ANSWER), once=True)
    assert (ended, wrong) == ("done", [])


def test_a_move_of_which_nothing_can_be_known_says_so(world: World) -> None:
    case = at("rollback", "postgresql", Fault.RESET, Way.ANSWER)
    ended, _ = world.run(lambda parts: rollback(parts, "lost"), case)
    (row,) = world.rows("lost")
    assert ended == "Unavailable"
    assert f"whether {MODEL} version {row.version} is rolled_back is not known (request lost)" in world.said
    rollback(world.past, "lost")
    assert world.rows("lost") == [row]
    assert world.problems() == []


def test_an_idle_connection_that_died_unseen_is_replaced(world: World) -> None:
    through = world.far_store
    through.models()
    proxy = world.proxies["postgresql"]
    proxy.set(Fault.HALF_OPEN, Way.REQUEST, once=True)  # swallows the question whether it is alive
    assert through.models() == (MODEL,)


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize(
    "fault", [Fault.CUT, Fault.RESET, Fault.DELAY, pytest.param(Fault.HALF_OPEN, marks=only_at_length)]
)
def test_a_snapshot_is_stored_whole_or_not_at_all(
    world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch, fault: Fault, way: Way
) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(1000)})
    root = f"s3://artefacts/snapshots-{fault}-{way}"
    proxy = world.proxies["s3"]
    for name, value in (s3.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}).items():
        monkeypatch.setenv(name, value)
    proxy.set(fault, way)
    began = time.monotonic()
    with nullcontext() if fault is Fault.DELAY else pytest.raises(Unavailable, match="does not answer"):
        store_frame(frame, SnapshotStore(root))
    print(f"\n{fault} {way} of s3: {time.monotonic() - began:.1f} s")
    proxy.heal()
    snapshot = store_frame(frame, SnapshotStore(root))
    pd.testing.assert_frame_equal(SnapshotStore(root).read(snapshot), frame)
