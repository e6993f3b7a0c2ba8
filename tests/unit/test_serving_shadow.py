"""What waits for a shadow is bounded, and the slices that are told apart are few."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from release_platform.adapters.trust import Proof
from release_platform.domain.slices import Slices
from serving.cache import PackageCache
from serving.limits import Limits
from serving.metrics import Metrics
from serving.models import Beside, Live, LoadedModel, Origin
from serving.observations import Observations
from serving.shadow import MOST_BYTES, Offered, Shadows
from tests.fakes.clock import FakeClock

SHADOW = LoadedModel(
    model="m",
    version="2",
    digest="d",
    epoch=2,
    proof=Proof(signature="", certificate=""),
    package=cast(Any, SimpleNamespace()),
    since=datetime(2026, 1, 1, tzinfo=UTC),
    origin=Origin.REGISTRY,
)


@pytest.fixture
def metrics():
    return Metrics(Live())


@pytest.fixture
def shadows(metrics, tmp_path):
    live = Live()
    return Shadows(
        live=live,
        cache=PackageCache(tmp_path),
        limits=Limits(max_rows=10),
        observations=Observations(live=live, metrics=metrics, clock=FakeClock(datetime(2026, 1, 1, tzinfo=UTC))),
        metrics=metrics,
        most_waiting=5,
    )


def offered(body=b"{}"):
    return Offered(None, 1, cast(Any, None), {}, body)


def n_dropped(metrics):
    lines = metrics.exposition().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("serving_shadow_dropped_total"))


@pytest.mark.parametrize(("weight", "n_offered", "dropped"), [(1.0, 5, 0), (1.0, 6, 1), (1.0, 20, 15), (0.0, 20, 0)])
def test_what_does_not_fit_is_dropped_and_counted(shadows, metrics, weight, n_offered, dropped):
    for _ in range(n_offered):
        shadows.offer(Beside(loaded=SHADOW, weight=weight), offered())
    assert n_dropped(metrics) == dropped


def test_bodies_that_are_large_together_do_not_fit_either(shadows, metrics):
    for _ in range(3):
        shadows.offer(Beside(loaded=SHADOW, weight=1.0), offered(bytes(MOST_BYTES // 2)))
    assert n_dropped(metrics) == 1


def test_what_waited_for_a_shadow_that_is_gone_is_not_put_to_it(shadows, metrics):
    async def offer_and_ask():
        asking = asyncio.create_task(shadows.run())
        await asyncio.sleep(0)
        shadows.offer(Beside(loaded=SHADOW, weight=1.0), offered())
        async with asyncio.timeout(5):
            while not n_dropped(metrics):
                await asyncio.sleep(0.001)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    asyncio.run(offer_and_ask())
    assert 'reason="ended"' in metrics.exposition().decode()


def test_a_column_of_many_values_is_given_up_and_no_more_than_so_many_columns_are_told_apart():
    slices = Slices(most_columns=2, most_values=3)
    assert slices.counted("m", ["a=1", "b=1", "c=1"]) == ["a=1", "b=1"]
    for value in "123":
        assert slices.counted("m", [f"a={value}", "b=1"]) == [f"a={value}", "b=1"]
    assert slices.counted("m", ["a=4", "b=1"]) == ["b=1"]
    assert slices.counted("m", ["a=1", "b=1"]) == ["b=1"]
    assert slices.counted("other", ["a=1"]) == ["a=1"]
