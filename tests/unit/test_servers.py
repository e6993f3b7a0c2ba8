"""Pushing to all servers: each has its own outcome, none holds up or hides another, and none can fail a move."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from release_platform.adapters.servers import Servers, push_to
from release_platform.domain.ports import Given, HandedIn
from release_platform.domain.push import Accepted, Declined, Push, Unanswered
from release_platform.domain.windows import Route, Window, WindowKey
from release_platform.settings import Settings

PUSH = Push(model="a b", version="3", epoch=7, certificate="c", signature="s", manifest='[{"path": "x"}]')
TAKEN = {"model": "a b", "version": "3", "epoch": 7}


@contextmanager
def answering(status: int, said: bytes, wait_s: float = 0.0) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Yields the address of a server that always answers the same, and what it was asked."""
    asked: list[tuple[str, bytes]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said)

        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            time.sleep(wait_s)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Keeps standard error clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_server_that_takes_it_says_so_and_was_given_the_whole_proof() -> None:
    with answering(200, json.dumps(TAKEN).encode()) as (url, asked):
        outcome = push_to(url, PUSH)
    assert isinstance(outcome, Accepted)
    assert (outcome.url, outcome.version, outcome.epoch) == (url, "3", 7)
    assert outcome.sentence == f"{url}: serves version 3 since epoch 7"
    ((path, body),) = asked
    assert path == "/v1/models/a%20b/certificate"
    assert json.loads(body) == {"certificate": "c", "signature": "s", "manifest": [{"path": "x"}]}


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (403, b'{"detail": "not trusted here"}', "not trusted here"),
        (503, b'{"detail": "no good copy"}', "no good copy"),
        (404, b"<html>", "status 404"),
        (500, b"\xff", "status 500"),
        (200, b'{"version": "2", "epoch": 6}', "version 2 of epoch 6"),
        (200, b"[]", "version None"),
        (302, b"", "status 302"),
    ],
)
def test_a_server_that_does_not_take_it_says_why(status: int, said: bytes, reason: str) -> None:
    with answering(status, said) as (url, _):
        outcome = push_to(url, PUSH)
    assert isinstance(outcome, Declined)
    assert reason in outcome.reason
    assert outcome.sentence.startswith(f"{url}: goes on as before: ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost:8000", "http://[", "", "ftp://x"])
def test_an_address_where_nobody_answers_is_an_outcome(url: str) -> None:
    outcome = push_to(url, PUSH)
    assert isinstance(outcome, Unanswered)
    assert "follows when it reaches the registry" in outcome.sentence


def test_all_are_told_at_once_and_a_slow_one_costs_its_timeout_only() -> None:
    taken = json.dumps(TAKEN).encode()
    with (
        answering(200, taken) as (first, _),
        answering(200, taken, wait_s=2) as (slow, _),
        answering(200, taken, wait_s=0.6) as (third, _),
        answering(200, taken, wait_s=0.6) as (last, _),
        socket.create_server(("127.0.0.1", 0)) as deaf,  # accepts, and never says a word
    ):
        urls = (first, slow, third, f"http://127.0.0.1:{deaf.getsockname()[1]}", last)
        begun = time.monotonic()
        outcomes = Servers(urls, answer_s=1.0).push(PUSH)
        spent_s = time.monotonic() - begun
    assert [type(one) for one in outcomes] == [Accepted, Unanswered, Accepted, Unanswered, Accepted]
    assert tuple(one.url for one in outcomes) == urls
    assert spent_s < 2.5  # one after the other they would take 3.2 s


@contextmanager
def dripping(said: bytes) -> Iterator[str]:
    """Yields the address of a server that goes on with its answer, a byte at a time, and never ends it."""
    stop = threading.Event()

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)
                while not stop.wait(0.05):
                    connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        thread.join()


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
@pytest.mark.parametrize("ask", ["windows", "push"])
def test_a_server_that_drips_costs_its_timeout_only(said: bytes, ask: str) -> None:
    with dripping(said) as url:
        begun = time.monotonic()
        asked = Servers((url,), answer_s=0.5)
        (told,) = asked.windows(1) if ask == "windows" else asked.push(PUSH)
        spent_s = time.monotonic() - begun
    assert isinstance(told, HandedIn | Unanswered)
    assert "does not answer in time" in told.problem
    assert 0.4 < spent_s < 2.0


WINDOW = Window(key=WindowKey(model="m", version="1", route=Route.STABLE, minute=100), requests=5)


def test_each_process_says_what_it_counted_and_which_minutes_from_beginning_to_end() -> None:
    one = {"replica": "a", "closed": 100, "since": 90, "whole": [99, 100], "windows": [WINDOW.to_json()]}
    one["gives"] = {"m": [{"route": "canary", "version": "2", "weight": 0.25}], "other": []}
    older = {"replica": "b", "closed": 100, "windows": []}
    said = json.dumps({"closed": 100, "silent": 1, "replicas": [one, older]}).encode()
    with answering(200, said) as (url, _):
        found = Servers((url,)).windows(98)
    gives = {"m": {Given(route=Route.CANARY, version="2", weight=0.25)}, "other": set()}
    assert found == [
        HandedIn(url=url, replica="a", since=90, whole=frozenset({99, 100}), windows=(WINDOW,), gives=gives),
        HandedIn(url=url, replica="b", whole=frozenset()),
        HandedIn(url=url, problem="1 of its processes did not answer in time"),
    ]


def test_no_server_is_no_outcome() -> None:
    assert Servers(()).push(PUSH) == ()


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("http://a:1", ("http://a:1",)),
        (" http://a:1/ , http://b:2,,http://a:1", ("http://a:1", "http://b:2")),
        ("", ()),
    ],
)
def test_the_setting_names_several_servers_each_once(given: str, urls: tuple[str, ...]) -> None:
    assert Settings(serving_url=given).serving_urls == urls


@pytest.mark.parametrize(
    ("named", "all_of_them"),
    [
        (None, "http://own:1"),
        ("", "http://own:1"),
        ("http://a:1, http://own:1/", "http://own:1,http://a:1"),
    ],
)
def test_a_server_that_is_started_here_stands_beside_those_that_were_named(
    named: str | None, all_of_them: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELEASE_SERVING_URL")
    assert (Settings() if named is None else Settings(serving_url=named)).serving_url_with(
        "http://own:1"
    ) == all_of_them
