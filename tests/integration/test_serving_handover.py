"""What a collector misses when real server processes are restarted in good order, and when they are killed."""

import os
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread

import httpx
import pytest

from release_platform.adapters.servers import Servers
from release_platform.domain.coverage import Owed, holes_in, owed_by
from release_platform.domain.ports import Given
from release_platform.domain.windows import Route, merged
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier
from tests.fakes.server import until
from tests.fakes.serving_process import running_process

SHARE = Given(route=Route.CANARY, version="2", weight=0.5)
SPEED = 20
BODY = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}
PATH = "/v1/models/cancer/predict"


class Collector:
    """Asks one server all the time what it counted, and keeps it as the release store does."""

    def __init__(self):
        self.first = self.minute
        self._owed, self._windows = {}, {}
        self._over = Event()

    @property
    def now(self):
        return datetime.fromtimestamp(time.time() * SPEED, UTC)

    @property
    def minute(self):
        return int(self.now.timestamp() // 60)

    @contextmanager
    def asking(self, url):
        servers = Servers((url,))
        thread = Thread(target=self._ask, args=(servers,))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _ask(self, servers):
        while not self._over.wait(0.1):
            at, last = self.now, self.minute - 1
            handed = servers.windows(self.first - 1)
            for one in owed_by(handed, "of no server", SHARE, after=self.first - 1, last=last, at=at):
                key = (one.minute, one.url, one.replica)
                self._owed[key] = self._owed.get(key, False) or one.told
            for one in handed:
                for window in one.windows:
                    assert self._windows.setdefault((one.replica, window.key), window) == window

    def holes(self, since, until):
        owed = [Owed(minute=m, url=url, replica=name, told=told) for (m, url, name), told in self._owed.items()]
        found = holes_in(range(since, until + 1), owed)
        return {minute: [one for one in owed if one.minute == minute and not one.told] for minute in found}

    @property
    def n_counted(self):
        return sum(window.requests for window in merged(self._windows.values()))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return build_linear_classifier(tmp_path_factory.mktemp("package") / "1")


def test_an_orderly_restart_makes_no_hole_and_loses_no_request_and_a_kill_makes_one(tmp_path, package, monkeypatch):
    monkeypatch.setenv("FAKE_SPEED", str(SPEED))
    with running_process(tmp_path, package=package, workers=2) as one:
        seen = Collector()
        with seen.asking(one.url):
            asked = ask_each_worker(one)
            since = settled(seen)  # a whole minute in which nothing happens
            asked += ask_each_worker(one)
            one.process.send_signal(signal.SIGTERM)
            assert one.ended_within(30) < 30
            with running_process(tmp_path, package=package, workers=2, port=one.port) as two:
                until(lambda: len(two.worker_ids()) == 2, within_s=60)
                asked += ask_each_worker(two)
                quiet = settled(seen)
                assert seen.holes(since, quiet) == {}
                assert seen.n_counted == asked
                killed = seen.minute
                os.kill(two.worker_ids()[0], signal.SIGKILL)
                assert settled(seen) > killed
                assert killed in seen.holes(since, killed + 1)


def ask_each_worker(server):
    """Asks on new connections until each worker has answered, and returns how many requests that were."""
    replicas, n_asked = set(), 0

    def both():
        nonlocal n_asked
        answer = httpx.post(f"{server.url}{PATH}", json=BODY)
        if answer.is_success:
            n_asked += 1
            replicas.add(answer.headers["x-prediction-id"].partition("-")[0])
        return len(replicas) == 2

    until(both, within_s=60)
    return n_asked


def settled(seen):
    """Waits until this minute and the next are over and told, and returns the last of them."""
    last = seen.minute + 1
    until(lambda: seen.minute > last, within_s=30)
    time.sleep(0.7)
    return last
