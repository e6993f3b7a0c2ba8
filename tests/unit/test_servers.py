"""Pushing to all servers: each has its own outcome, none holds up or hides another, and none can fail a move."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from release_platform.adapters.servers import Servers, push_to
from release_platform.domain.push import Accepted, Declined, Push, Unanswered
from release_platform.settings import Settings

PUSH = Push(model="a b", version="3", epoch=7, certificate="c", signature="s", manifest='[{"path": "x"}]')
TAKEN = {"model": "a b", "version": "3", "epoch": 7}


@contextmanager
def answering(status: int, said: bytes, wait_s: float = 0.0) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Yields the address of a server that always answers the same, and what it was asked."""
    asked: list[tuple[str, bytes]] = []

    class Answer(BaseHTTPRequestHandler):
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
        answering(200, taken, wait_s=0.3) as (third, _),
        answering(200, taken, wait_s=0.3) as (last, _),
        socket.create_server(("127.0.0.1", 0)) as deaf,  # accepts, and never says a word
    ):
        urls = (first, slow, third, f"http://127.0.0.1:{deaf.getsockname()[1]}", last)
        begun = time.monotonic()
        outcomes = Servers(urls, answer_s=0.5).push(PUSH)
        spent_s = time.monotonic() - begun
    assert [type(one) for one in outcomes] == [Accepted, Unanswered, Accepted, Unanswered, Accepted]
    assert tuple(one.url for one in outcomes) == urls
    assert spent_s < 1.0  # one after the other they would take 1.6 s


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
