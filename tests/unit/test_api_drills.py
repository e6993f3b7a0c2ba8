"""A process of the operators' API that is stopped ends the drills that it makes, and begins no other."""

import asyncio
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.key_ring import KeyRing
from release_platform.api.app import create_app
from release_platform.api.drills import AT_ONCE, AskedDrills
from release_platform.domain.api_keys import Scope
from release_platform.domain.drill import Drilled
from release_platform.domain.policy_spec import PolicySpec
from release_platform.drills import Order
from release_platform.settings import Settings
from tests.unit.test_drill import drilled

MODEL = "breast_cancer"
SOON_S = 0.05


class Slow:
    """A release store in which a drill that has begun is found once it is let go on."""

    def __init__(self, found: Drilled) -> None:
        self.drills = self
        self.go_on = Event()
        self.begun: set[str] = set()
        self.ended: list[str] = []
        self._found = found

    def find(self, drill_id: str) -> Drilled | None:
        if drill_id not in self.begun:
            self.begun.add(drill_id)
            return None
        assert self.go_on.wait(10)
        self.ended.append(drill_id)
        return self._found

    def ledger(self, _: str) -> tuple[()]:
        return ()


@pytest.fixture
def store() -> Slow:
    return Slow(drilled())


def services(store: Slow, home: Path) -> Any:
    settings = Settings(home=home, models=home / "models")
    releases = SimpleNamespace(store=store)
    return SimpleNamespace(store=store, releases=releases, settings=settings, server_urls=settings.serving_urls)


def test_a_process_that_is_stopped_ends_its_drill_first(store: Slow, tmp_path: Path) -> None:
    key = ApiKeyFile(tmp_path / "keys.json").create("grace", [Scope.OPERATOR])[1]
    headers = {"idempotency-key": "one", "x-api-key": key}
    app = create_app(services(store, tmp_path), KeyRing(tmp_path / "keys.json"))

    async def begin_and_stop() -> dict[str, Any]:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            answer = await client.post(f"http://api/v1/models/{MODEL}/drills", json={}, headers=headers)
            assert store.ended == []
            Timer(SOON_S, store.go_on.set).start()
        return dict(answer.json())

    begun = asyncio.run(begin_and_stop())
    assert begun["state"] == "under_way"
    assert store.ended == [begun["drill_id"]]


def test_a_drill_that_waits_for_its_turn_is_left_out(store: Slow, tmp_path: Path) -> None:
    drills = AskedDrills(cast(Any, services(store, tmp_path)))

    async def begin_and_stop() -> None:
        async with drills.waited_for(None):
            for number in range(AT_ONCE + 2):
                order = Order(model=f"m{number}", drill_id=f"d{number}", actor="grace", reason="is it ready?")
                drills.begin(order, PolicySpec())
            Timer(SOON_S, store.go_on.set).start()

    asyncio.run(begin_and_stop())
    assert sorted(store.ended) == [f"d{number}" for number in range(AT_ONCE)]
