"""The watcher's looks, one by one, under a clock that is set by hand."""

import asyncio
from datetime import UTC, datetime

import pytest

from release_platform.domain.errors import Unavailable
from serving.cache import PackageCache
from serving.metrics import Metrics
from serving.models import Live, Origin
from serving.registry import ModelSource
from serving.watch import AGAIN_S, Watcher
from tests.fakes.clock import FakeClock
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import TRUST, FakeRegistry

CANCER = ("cancer", "1")


@pytest.fixture
def registry(tmp_path):
    aliases = {("cancer", "production"): "1"}
    return FakeRegistry({CANCER: build_linear_classifier(tmp_path / "package")}, aliases=aliases)


class Server:
    """A server without its socket and its clockwork: it looks when it is told to."""

    def __init__(self, registry, folder):
        self.live, self.clock = Live(), FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.cache = PackageCache(folder)
        source = ModelSource(connect=lambda: registry, cache=self.cache, trust=TRUST, clock=self.clock)
        metrics = Metrics(self.live)
        self._watcher = Watcher(source=source, live=self.live, metrics=metrics, refresh_s=1, patience_s=1)

    def look(self):
        asyncio.run(self._watcher.refresh())
        return self.live.table.loaded.get("cancer")


def test_a_copy_that_could_not_be_served_is_tried_again_after_a_while(registry, tmp_path):
    # Given a restart without the registry, and a copy on disk that cannot be read at this moment
    served = Server(registry, tmp_path / "cache").look()
    registry.down = True
    restarted = Server(registry, tmp_path / "cache")
    model = restarted.cache.find(served.digest) / "model.skops"
    kept = model.read_bytes()
    model.write_bytes(b"")
    assert restarted.look() is None

    # When it can be read again
    model.write_bytes(kept)

    # Then it is served after a while, and is not read at each look
    restarted.clock.pass_s(AGAIN_S - 1)
    assert restarted.look() is None
    restarted.clock.pass_s(1)
    assert restarted.look().origin is Origin.DISK


def test_one_model_that_the_registry_says_nothing_of_does_not_keep_others_from_going_live(registry, tmp_path):
    # Given a registry that fails for one model only, the first
    folder = build_linear_classifier(tmp_path / "other", model="zebra")
    aliases = {("cancer", "production"): "1", ("zebra", "production"): "1"}
    both = FailingFor("cancer", {CANCER: tmp_path / "package", ("zebra", "1"): folder}, aliases=aliases)
    server = Server(both, tmp_path / "cache")

    # When it is looked at twice
    server.look()
    assert server.look() is None

    # Then the other one is served
    assert set(server.live.table.loaded) == {"zebra"}
    both.failing = ""
    assert server.look().version == "1"


class FailingFor(FakeRegistry):
    """A registry that does not answer about one model."""

    def __init__(self, failing, packages, **given):
        self.failing = ""
        super().__init__(packages, **given)
        self.failing = failing

    def find_alias(self, model, alias):
        if model == self.failing:
            raise Unavailable("INTERNAL_ERROR", remedy="try again")
        return super().find_alias(model, alias)
