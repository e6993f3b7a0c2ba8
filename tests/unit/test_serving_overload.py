"""Many at once: one bad row fails its own request only, a full server says so at once, an old model is let go."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from release_platform.adapters.model_package import load_package
from release_platform.adapters.trust import Proof
from serving.engine import Engine
from serving.errors import NonFinitePrediction, Overloaded
from serving.metrics import Metrics
from serving.models import Live, LoadedModel, Origin, Went
from tests.fakes.packages import build_regression, manifest_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_regression(tmp_path_factory.mktemp("packages") / "overflows", model="m", overflows=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(n_threads=1, max_waiting=64, metrics=Metrics(Live()))
    yield made
    made.close()


def loaded_from(folder: Path, *, version: str = "1", epoch: int = 1) -> LoadedModel:
    package = load_package(folder, manifest_of(folder))
    return loaded_with(package, version=version, epoch=epoch)


def loaded_with(package: Any, *, version: str = "1", epoch: int = 1) -> LoadedModel:
    return LoadedModel(
        model="m",
        epoch=epoch,
        proof=Proof(signature="", certificate=""),
        version=version,
        digest="d",
        package=package,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        origin=Origin.REGISTRY,
    )


class Gate:
    """A package that does not answer before it may."""

    engine_name = "skops"

    def __init__(self, package: Any) -> None:
        self.plan = package.plan
        self.entered, self.free = threading.Event(), threading.Event()
        self._package = package

    def predict(self, inputs: Any) -> Any:
        """Waits, then answers as the package does."""
        self.entered.set()
        assert self.free.wait(30)
        return self._package.predict(inputs)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=20))
def test_one_bad_row_in_a_batch_fails_its_own_request_only(
    folder: Path, engine: Engine, asked: list[tuple[int, bool]]
) -> None:
    gate = Gate(load_package(folder, manifest_of(folder)))
    loaded = loaded_with(gate)
    rows = [np.full((n_rows, 2), 0.001 * place) for place, (n_rows, _) in enumerate(asked)]
    for one, (n_rows, bad) in zip(rows, asked, strict=True):
        one[n_rows - 1, 0] = 1e30 if bad else one[n_rows - 1, 0]

    async def scenario() -> list[Any]:
        first = asyncio.create_task(engine.predict(loaded, np.zeros((1, 2))))
        others = [asyncio.create_task(engine.predict(loaded, one)) for one in rows]
        await asyncio.sleep(0)
        gate.free.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    for answer, one, (n_rows, bad) in zip(asyncio.run(scenario()), rows, asked, strict=True):
        if bad:
            assert isinstance(answer, NonFinitePrediction)
            assert answer.row == n_rows - 1
        else:
            np.testing.assert_allclose(answer.values, gate.predict(one).values, rtol=1e-12)


def test_a_slow_model_takes_what_may_wait_refuses_the_rest_at_once_and_loses_nothing(folder: Path) -> None:
    engine = Engine(n_threads=1, max_waiting=4, metrics=Metrics(Live()))
    gate = Gate(load_package(folder, manifest_of(folder)))
    loaded = loaded_with(gate)

    async def scenario() -> tuple[list[Any], list[Any]]:
        tasks = [asyncio.create_task(engine.predict(loaded, np.full((1, 2), 0.01 * n))) for n in range(20)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        refused = [task for task in tasks if task.done()]
        assert not gate.free.is_set()
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        gate.free.set()
        return refused, [await task for task in tasks if task not in refused]

    refused, answered = asyncio.run(scenario())
    engine.close()
    assert (len(refused), len(answered)) == (15, 5)  # one is computed, four wait
    for number, answer in enumerate(answered):
        np.testing.assert_allclose(answer.values, gate.predict(np.full((1, 2), 0.01 * number)).values, rtol=1e-12)


def test_a_replaced_model_is_freed_when_its_last_request_ends(folder: Path, engine: Engine) -> None:
    live = Live()
    live.apply(Went(loaded=loaded_with(Gate(load_package(folder, manifest_of(folder))))))
    gate = live.table.get_model("m").package
    entered, free, old = gate.entered, gate.free, weakref.ref(gate)  # type: ignore[attr-defined]
    del gate

    async def scenario() -> None:
        request = asyncio.create_task(engine.predict(live.table.get_model("m"), np.zeros((1, 2))))
        await asyncio.to_thread(entered.wait, 30)
        live.apply(Went(loaded=loaded_from(folder, version="2", epoch=2)))
        gc.collect()
        assert old() is not None
        free.set()
        await request

    asyncio.run(scenario())
    gc.collect()
    assert old() is None
