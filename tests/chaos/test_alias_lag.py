"""64 operators at once over a real MLflow server: the aliases show the head within two seconds of the last move."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.domain.ledger import faults
from tests.chaos.seeds import SEEDS, bound, only_at_length
from tests.chaos.world import MODEL, World, approve, carry_out, request, rollback
from tests.contract.registries import KeptInMlflow, blank_mlflow, mlflow_server
from tests.integration.homes import blank_home

OPERATORS = 64
WITHIN_S = 2.0


@pytest.fixture
def world(tmp_path: Path, postgresql_url: str) -> World:
    """Production is version 2, before it 1; MLflow's database is in a folder that a server can be started on."""
    home = blank_mlflow(blank_home(), tmp_path / "mlflow")
    registry = KeptInMlflow(home, f"sqlite:///{home / 'mlflow.db'}", MODEL).registry
    world = World(url=postgresql_url, registry=registry, keys=KeyFolder(tmp_path / "keys"))
    for version in ("1", "2"):
        for act in (
            partial(world.stage, version=version),
            partial(request, version=version, request_id=f"q{version}"),
            partial(approve, request_id=f"q{version}"),
            partial(carry_out, request_id=f"q{version}"),
        ):
            assert world.run(act) == "done"
    return world


@only_at_length
@pytest.mark.timeout(3600)
def test_aliases_show_the_head_within_two_seconds_of_the_last_of_64_moves(world: World, tmp_path: Path) -> None:
    lags_s, n_moves = [], 0
    with mlflow_server(tmp_path / "mlflow") as url, closing(ReleaseStore(world.url)) as store:
        served = World(url=world.url, registry=MlflowRegistry(url), keys=world.keys)
        for number in range(SEEDS):
            before = store.head(MODEL).epoch
            acts = [partial(rollback, request_id=f"{number}-{n}", to=str(1 + n % 2)) for n in range(OPERATORS)]
            with ThreadPoolExecutor(OPERATORS) as pool:
                running = [pool.submit(served.run, act) for act in acts]
                ends = {one.result() for one in running}
            assert ends <= {"done", "Refused", "StaleEpoch"}
            lags_s.append(lag_s(served, store))
            n_moves += store.head(MODEL).epoch - before
        assert faults(MODEL, store.ledger(MODEL)) == ()
        assert n_moves >= SEEDS
    late = sum(lag > WITHIN_S for lag in lags_s)
    print(f"\n{SEEDS} rounds of {OPERATORS}, {n_moves} moves: slowest {max(lags_s):.2f} s, late: {bound(late, SEEDS)}")
    assert late == 0


def lag_s(world: World, store: ReleaseStore) -> float:
    """Waits until the aliases show the head; returns how long after its commit that was."""
    end = time.monotonic() + 60
    while True:
        head = store.head(MODEL)
        shown = world.registry.shown(MODEL).aliases
        if all(shown.get(alias) == version for alias, version in head.aliases.items()):
            break
        assert time.monotonic() < end, "the aliases never showed the head"
    return (datetime.now(UTC) - datetime.fromisoformat(store.ledger(MODEL)[-1].at)).total_seconds()
