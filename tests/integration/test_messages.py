"""Messages over real HTTP: senders that are killed, receivers that fail, and none that holds up another."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest

from release_platform.adapters.receivers import receivers_of
from release_platform.adapters.release_store import ReleaseStore
from release_platform.defs.messages import build_message_sensor
from release_platform.defs.resources import Platform
from release_platform.domain.lifecycle import Move
from release_platform.domain.messages import KEPT, State, signature
from release_platform.messages import SHOWN, Messages
from release_platform.standing import LATE, messages_given_up, messages_waiting
from tests.contract.test_outbox_store import roll_back, twice_promoted
from tests.contract.test_release_store import move
from tests.fakes.clock import FakeClock

SECRET = "a secret of thirty-two characters"
NOBODY = "http://127.0.0.1:1/token"
KILLED_AFTER_COMMIT = """
import os, signal, sys
from release_platform.adapters.release_store import ReleaseStore
from tests.contract.test_outbox_store import roll_back
roll_back(ReleaseStore(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""
SENDER = """
import sys
from release_platform.adapters.receivers import receivers_of
from release_platform.adapters.release_store import ReleaseStore
from release_platform.messages import Messages
print("ready", flush=True)
Messages(ReleaseStore(sys.argv[1]).outbox, receivers_of(sys.argv[2], sys.argv[3])).deliver()
"""


@dataclass
class Hook:
    """A receiver: what came, and what it answers."""

    url: str = ""
    status: int = 200
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    on_request: Callable[[], Any] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [headers["idempotency-key"] for headers, _ in self.came]


@contextmanager
def hooked() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
            hook.on_request()
            self.send_response(hook.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # the sender was killed
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/token"
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hooks() -> Iterator[tuple[Hook, Hook]]:
    with ExitStack() as stack:
        yield stack.enter_context(hooked()), stack.enter_context(hooked())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'release.db'}"


@pytest.fixture
def store(url: str) -> Iterator[ReleaseStore]:
    opened = ReleaseStore(url)
    twice_promoted(opened)
    yield opened
    opened.close()


def messages(store: ReleaseStore, *urls: str, clock: FakeClock | None = None) -> Messages:
    return Messages(store.outbox, receivers_of(",".join(urls), SECRET), clock or FakeClock(datetime.now(UTC)))


def test_what_was_committed_before_a_kill_is_delivered_signed(
    store: ReleaseStore, url: str, hooks: tuple[Hook, Hook]
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_COMMIT, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    hook, slack = hooks
    said = messages(store, hook.url, f"slack+{slack.url}").deliver()
    assert len(said) == 2
    assert all("delivered" in line and "token" not in line for line in said)
    ((headers, body),) = hook.came
    assert headers["x-release-signature"] == signature(SECRET, int(headers["x-release-timestamp"]), body)
    assert store.ledger("m")[-1].hash.encode() in body
    ((headers, body),) = slack.came
    assert body.startswith(b'{"text":"m: version 1 is in Production again')
    assert "x-release-signature" not in headers
    assert messages(store, hook.url).deliver() == ()


def test_a_sender_that_is_killed_before_it_knows_sends_the_same_again(
    store: ReleaseStore, url: str, hooks: tuple[Hook, Hook]
) -> None:
    roll_back(store)
    hook, _ = hooks
    sender = subprocess.Popen([sys.executable, "-c", SENDER, url, hook.url, SECRET], stdout=subprocess.PIPE)
    hook.on_request = lambda: os.kill(sender.pid, signal.SIGKILL)
    with sender:
        sender.communicate(timeout=60)
    assert sender.returncode == -signal.SIGKILL
    hook.on_request = lambda: None
    messages(store, hook.url).deliver()
    (_, first), (_, second) = hook.came
    assert first == second
    assert len(set(hook.ids)) == 1
    assert len(store.outbox.find(State.DELIVERED)) == 1


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_receiver_that_fails_is_asked_again_and_holds_up_nobody(
    store: ReleaseStore, hooks: tuple[Hook, Hook], status: int
) -> None:
    roll_back(store)
    move(store, Move.ROLLED_BACK, "2", 5, "again")
    bad, good = hooks
    bad.status = status
    clock = FakeClock(datetime.now(UTC))
    sent = messages(store, bad.url, NOBODY, good.url, clock=clock)
    said = sent.deliver()
    assert (len(bad.came), len(good.came)) == (1, 2)  # it failed once: the next one waits for the next round
    assert any(f"it answers {status}" in line for line in said)
    assert any("no answer (ConnectError)" in line for line in said)
    sent.deliver()
    assert (len(bad.came), len(good.came)) == (2, 2)
    sent.deliver()
    assert len(bad.came) == 2  # both wait
    bad.status = 204
    clock.pass_s(15)
    sent.deliver()
    assert (len(bad.came), len(good.came)) == (4, 2)
    assert len(set(bad.ids)) == 2


def test_a_message_that_is_given_up_is_shown_and_then_removed(store: ReleaseStore) -> None:
    roll_back(store)
    clock = FakeClock(datetime.now(UTC) + KEPT)
    sent = messages(store, NOBODY, clock=clock)
    assert any("given up after 1 attempts" in line for line in sent.deliver())
    (line,) = sent.deliver()
    assert "given up, never delivered: m: version 1 is in Production again" in line
    (shown,) = messages_given_up(store, "m")
    assert shown.startswith("m: version 1 is in Production again")
    assert messages_given_up(store, "other") == []
    clock.pass_s((SHOWN + timedelta(days=1)).total_seconds())
    assert sent.deliver() == ()
    assert messages_given_up(store, "m") == []


def test_a_message_that_waits_for_long_is_shown_with_the_reason(store: ReleaseStore) -> None:
    row = roll_back(store)
    at = datetime.fromisoformat(row.at)
    later = at + LATE + timedelta(seconds=1)
    assert messages_waiting(store, "m", at + LATE) is messages_waiting(store, "other", later) is None
    found = messages_waiting(store, "m", later)
    assert found is not None
    assert found.startswith(
        f"1 message(s) wait to be delivered, the first since {row.at}: nothing has tried to send it"
    )
    assert "RELEASE_NOTIFY_SECRET must be set" in found
    messages(store, NOBODY).deliver()
    found = messages_waiting(store, "m", later)
    assert found is not None
    assert found.endswith(": no answer (ConnectError)")


def test_without_a_receiver_messages_are_closed_as_not_wanted(store: ReleaseStore, hooks: tuple[Hook, Hook]) -> None:
    roll_back(store)
    assert messages(store).deliver() == ()
    assert len(store.outbox.find(State.UNWANTED)) == 1
    messages(store, hooks[0].url).deliver()
    assert hooks[0].came == []


def test_the_sensor_delivers_and_no_log_holds_the_address(
    store: ReleaseStore,
    url: str,
    hooks: tuple[Hook, Hook],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    roll_back(store)
    caplog.set_level(logging.DEBUG)
    settings = {"STORE_URL": url, "NOTIFY_URL": hooks[0].url, "NOTIFY_SECRET": SECRET}
    for name, value in settings.items():
        monkeypatch.setenv(f"RELEASE_{name}", value)
    assert "delivered" in ticked()
    assert ticked() == "nothing is due"
    assert len(hooks[0].came) == 1
    assert "token" not in caplog.text
    assert SECRET not in caplog.text
    monkeypatch.setenv("RELEASE_NOTIFY_SECRET", "short")
    assert "RELEASE_NOTIFY_SECRET is too short" in ticked()
    monkeypatch.setenv("RELEASE_NOTIFY_URL", "")
    assert ticked() == "RELEASE_NOTIFY_URL is not set"


def ticked() -> str:
    with dg.build_sensor_context(resources={"platform": Platform()}) as context:
        found = build_message_sensor()(context)
    assert isinstance(found, dg.SkipReason)
    return str(found.skip_message)
