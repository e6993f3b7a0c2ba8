"""What waits for a shadow is bounded, what it does not answer is told, and the slices that are told apart are few."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from release_platform.adapters.trust import Proof
from release_platform.domain.metrics import Task
from release_platform.domain.slices import Slices
from serving.cache import PackageCache
from serving.limits import Limits
from serving.metrics import Metrics
from serving.models import Beside, Live, LoadedModel, Origin, RouteTable
from serving.observations import Observations
from serving.shadow import MOST_BYTES, Offered, Shadows
from tests.fakes import mirror
from tests.fakes.clock import FakeClock

SHADOW = LoadedModel(
    model="m",
    version="2",
    digest="d",
    epoch=2,
    proof=Proof(signature="", certificate=""),
    package=cast(Any, SimpleNamespace(task=Task.REGRESSION, classes=(), manifest=None)),
    since=datetime(2026, 1, 1, tzinfo=UTC),
    origin=Origin.REGISTRY,
)
ALL = Beside(loaded=SHADOW, weight=1.0)


@pytest.fixture
def metrics():
    return Metrics(Live())


@pytest.fixture
def build(metrics, tmp_path):
    def build_shadows(*standing, **given):
        (tmp_path / "packages" / SHADOW.digest).mkdir(parents=True)
        live = Live(RouteTable(shadow={one.loaded.model: one for one in standing}))
        return Shadows(
            live=live,
            cache=PackageCache(tmp_path),
            limits=Limits(max_rows=10),
            observations=Observations(live=live, metrics=metrics, clock=FakeClock(datetime(2026, 1, 1, tzinfo=UTC))),
            metrics=metrics,
            **given,
        )

    return build_shadows


@pytest.fixture
def shadows(build):
    return build(most_waiting=5)


def offered(body=b"{}"):
    return Offered(None, 1, cast(Any, None), {}, body)


def n_dropped(metrics, reason=""):
    return n_counted(metrics, "serving_shadow_dropped", reason)


def n_counted(metrics, name, label):
    lines = metrics.exposition().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}_total") and label in line)


def asked(shadows, metrics, bodies):
    """Puts requests to the shadow that stands; returns what came of them, by kind, once that is known of all."""

    def found():
        answered = {kind: n_counted(metrics, "serving_routed_requests", kind) for kind in ("answered", "process_died")}
        return answered | {kind: n_dropped(metrics, kind) for kind in ("too_slow", "ended")}

    async def ask():
        running = asyncio.create_task(shadows.run())
        for body in bodies:
            shadows.offer(ALL, offered(body))
        while sum(found().values()) < len(bodies):
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(ask(), 60))
    return {kind: n for kind, n in found().items() if n}


@pytest.mark.parametrize(("weight", "n_offered", "dropped"), [(1.0, 5, 0), (1.0, 6, 1), (1.0, 20, 15), (0.0, 20, 0)])
def test_what_does_not_fit_is_dropped_and_counted(shadows, metrics, weight, n_offered, dropped):
    for _ in range(n_offered):
        shadows.offer(Beside(loaded=SHADOW, weight=weight), offered())
    assert n_dropped(metrics) == dropped


def test_bodies_that_are_large_together_do_not_fit_either(shadows, metrics):
    for _ in range(3):
        shadows.offer(ALL, offered(bytes(MOST_BYTES // 2)))
    assert n_dropped(metrics) == 1


def test_requests_are_asked_together(build, metrics):
    shadows = build(ALL, command=mirror.COMMAND)
    assert asked(shadows, metrics, [b"{}"] * 200) == {"answered": 200}


def test_the_request_that_the_process_dies_of_or_hangs_on_is_found_among_many_and_no_other_is_lost(build, metrics):
    shadows = build(ALL, command=mirror.COMMAND, again_s=0.01, within_s=3.0)
    found = asked(shadows, metrics, [b"{}", mirror.DIES, mirror.HANGS, b"{}"])
    assert found == {"answered": 2, "process_died": 1, "too_slow": 1}


def test_a_shadow_that_is_gone_is_not_asked_what_still_waits(build, metrics):
    assert asked(build(command=mirror.COMMAND), metrics, [b"{}"] * 3) == {"ended": 3}


def test_what_takes_long_is_answered_a_few_at_a_time():
    requests = [cast(Any, SimpleNamespace(body=b"", number=number)) for number in (1, 2, 3)]
    found = mirror.FakeMirror()
    assert [one.number for one in found.reflect_some(requests)] == [1, 2, 3]
    assert [one.number for one in found.reflect_some(requests, within_s=-1.0)] == [1]


def test_a_column_of_many_values_is_given_up_and_no_more_than_so_many_columns_are_told_apart():
    slices = Slices(most_columns=2, most_values=3)
    assert slices.counted("m", ["a=1", "b=1", "c=1"]) == ["a=1", "b=1"]
    for value in "123":
        assert slices.counted("m", [f"a={value}", "b=1"]) == [f"a={value}", "b=1"]
    assert slices.counted("m", ["a=4", "b=1"]) == ["b=1"]
    assert slices.counted("m", ["a=1", "b=1"]) == ["b=1"]
    assert slices.counted("other", ["a=1"]) == ["a=1"]
