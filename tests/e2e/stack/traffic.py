"""Requests that flow without a pause through the proxy, each answer looked at."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

N_CLIENTS = 4
PAUSE_S = 0.02
MAXIMUM_S = 900


@dataclass
class Traffic:
    """What was answered: how many, by which versions, and what went wrong at what time."""

    answered: int = 0
    versions: set[str] = field(default_factory=set)
    failures: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, version: str, seconds: float) -> None:
        with self._lock:
            self.answered += 1
            self.versions.add(version)
            self.slowest_s = max(self.slowest_s, seconds)

    def note_failure(self, problem: str) -> None:
        with self._lock:
            self.failures.append((time.monotonic(), problem))


@contextmanager
def flowing(url: str, shown: Mapping[str, str], body: Mapping[str, Any], expected: Any) -> Iterator[Traffic]:
    """Yields the account of clients that ask for the same prediction again and again until the end of the block."""
    traffic, stop = Traffic(), threading.Event()
    clients = [httpx.Client(headers=dict(shown), timeout=60) for _ in range(N_CLIENTS)]
    threads = [threading.Thread(target=_ask, args=(one, url, body, expected, traffic, stop)) for one in clients]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask(
    client: httpx.Client, url: str, body: Mapping[str, Any], expected: Any, traffic: Traffic, stop: threading.Event
) -> None:
    end = time.monotonic() + MAXIMUM_S
    with client:
        while not stop.is_set() and time.monotonic() < end:
            begun = time.monotonic()
            try:
                answer = client.post(url, json=body)
                answer.raise_for_status()
                assert answer.json()["predictions"] == expected, answer.text
            except (httpx.HTTPError, AssertionError) as error:
                traffic.note_failure(f"{type(error).__name__}: {error}")
            else:
                traffic.note(answer.headers["x-model-version"], time.monotonic() - begun)
            stop.wait(PAUSE_S)
