"""Any sequence of operations, cut off, repeated, interrupted by one another or at the same time, keeps the invariants.

The databases are real: SQLite and PostgreSQL. The registry is the fake for speed, and MLflow for some examples.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.domain.ports import Registry
from tests.chaos.seeds import AT_LENGTH, SEEDS, bound
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
    tick,
)
from tests.contract.registries import KeptInMlflow, blank_mlflow
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.integration.homes import blank_home

VERSIONS = ("1", "2", "3", "4")
FAILED = "4"
ENDS = {"done", "Refused", "StaleEpoch", "NotFound"}
"""How an operation may end that nothing was done to."""

Opened = Callable[[Path], tuple[str, Registry]]

versions = st.sampled_from(VERSIONS)
asked = st.builds("q{}-{}".format, versions, st.integers(0, 1))
moments = st.integers(0, 60)


class ReleaseMachine(RuleBasedStateMachine):
    """Operators, a sensor and a registration at work on one model."""

    opened: Opened

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        url, registry = type(self).opened(self.folder)
        self.world = World(url=url, registry=registry, keys=KeyFolder(self.folder / "keys"), failed=frozenset({FAILED}))
        assert self.world.run(partial(self.world.stage, version="1")) == "done"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.settle()
            shutil.rmtree(self.folder)

    # One after the other

    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        assert self.world.run(data.draw(self.acts)) in ENDS

    @rule(data=st.data())
    def do_twice(self, data: st.DataObject) -> None:
        act = data.draw(self.acts)
        first, again = self.world.run(act), self.world.run(act)
        assert again in ENDS
        if first == "done" and act.func in {request, approve, carry_out, rollback}:
            assert again in {"done", "Refused"}

    # Cut off, interrupted, at the same time

    @rule(data=st.data(), moment=moments)
    def do_and_die(self, data: st.DataObject, moment: int) -> None:
        assert self.world.run(data.draw(self.acts), Interruption(die_at=moment)) in {*ENDS, "died"}

    @rule(data=st.data(), moment=moments)
    def do_while_another_waits(self, data: st.DataObject, moment: int) -> None:
        first, other = data.draw(self.acts), data.draw(self.acts)
        assert self.world.run(first, Interruption(pause_at=moment, other=other)) in ENDS

    @rule(data=st.data(), moment=moments, later=st.integers(0, 20))
    def overtake_and_die(self, data: st.DataObject, moment: int, later: int) -> None:
        first, other = data.draw(self.acts), data.draw(self.acts)
        met = Interruption(pause_at=moment, other=other, die_at=moment + later)
        assert self.world.run(first, met) in {*ENDS, "died"}

    @rule(data=st.data())
    def do_together(self, data: st.DataObject) -> None:
        ends = self.world.run_together(data.draw(self.acts), data.draw(self.acts))
        assert set(ends) <= ENDS

    # From outside

    @rule(alias=st.sampled_from(["production", "previous", "staging"]), version=st.none() | versions)
    def move_an_alias_behind_the_back(self, alias: str, version: str | None) -> None:
        self.world.registry.set_alias(MODEL, alias, version)

    @precondition(lambda self: isinstance(self.world.registry, FakeRegistry))
    @rule(data=st.data())
    def do_while_the_registry_is_away(self, data: st.DataObject) -> None:
        self.world.registry.down = True
        assert self.world.run(data.draw(self.acts)) in {*ENDS, "Unavailable"}
        self.world.registry.down = False

    @rule()
    def settle(self) -> None:
        _, wrong = self.world.settle()
        assert wrong == []

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "world"):
            assert self.world.wrong_now() == []

    @cached_property
    def acts(self) -> st.SearchStrategy[Act]:
        return st.one_of(
            st.builds(partial, st.just(self.world.stage), version=versions),
            st.builds(lambda of, n: partial(request, version=of, request_id=f"q{of}-{n}"), versions, st.integers(0, 1)),
            st.builds(partial, st.just(approve), request_id=asked),
            st.builds(partial, st.just(carry_out), request_id=asked),
            st.builds(
                partial, st.just(rollback), request_id=st.sampled_from(["b0", "b1", "b2"]), to=st.none() | versions
            ),
            st.sampled_from([partial(tick), partial(reconcile)]),
        )


def check(opened: Opened, n_examples: int, name: str) -> None:
    machine = type("Machine", (ReleaseMachine,), {"opened": staticmethod(opened)})
    n_steps = 25
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=n_examples,
            stateful_step_count=n_steps,
            database=None,
            derandomize=not AT_LENGTH,
            phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if AT_LENGTH else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\n{name}: histories of up to {n_steps} steps with a violation: {bound(0, n_examples)}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, v): build_linear_classifier(root / v, n_rows=300 + int(v)) for v in VERSIONS}


@pytest.mark.timeout(3600)
def test_any_history_on_sqlite_keeps_the_invariants(folders: dict[tuple[str, str], Path]) -> None:
    def opened(folder: Path) -> tuple[str, Registry]:
        return f"sqlite:///{folder / 'release.db'}", FakeRegistry(folders, signs=False)

    check(opened, 6 * SEEDS, "SQLite, fake registry")


@pytest.mark.timeout(3600)
def test_any_history_on_postgresql_keeps_the_invariants(
    folders: dict[tuple[str, str], Path], postgresql_server: str
) -> None:
    check(
        lambda _: (new_database(postgresql_server), FakeRegistry(folders, signs=False)), 3 * SEEDS, "PostgreSQL, fake"
    )


@pytest.mark.timeout(3600)
def test_any_history_with_mlflow_keeps_the_invariants(tmp_path: Path) -> None:
    home = blank_mlflow(blank_home(), tmp_path / "mlflow")
    kept = KeptInMlflow(home, f"sqlite:///{home / 'mlflow.db'}", MODEL)
    for number in ("3", "4"):
        kept.register(build_linear_classifier(tmp_path / number, n_rows=300 + int(number)), number)

    def opened(folder: Path) -> tuple[str, Registry]:
        shutil.copyfile(home / "mlflow.db", folder / "mlflow.db")
        return f"sqlite:///{folder / 'release.db'}", MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}")

    check(opened, SEEDS, "SQLite, MLflow")


def new_database(server: str) -> str:
    """Returns the URL of an empty database with the schema."""
    name = f"machine_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    ReleaseStore(url).close()
    return url
