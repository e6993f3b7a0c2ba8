"""The watcher's looks, one by one, under a clock that is set by hand."""

import asyncio
from datetime import UTC, datetime

import pytest

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
