"""A client of a soak: a process with several connections that asks, and checks each answer as it comes."""

import asyncio
import json
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.soak.versions import BODIES, MODEL

_PARTS = 64  # how often a client tells how far it is


@dataclass(slots=True)
class Report:
    """What a client saw.

    Attributes:
        faults: What was wrong, at most a few.
        n: How many answers came.
        versions: The version that answered in each epoch.
        last_sent: When the last request was sent that an epoch answered, in seconds of the machine's steady clock.
        first_received: When the first answer of an epoch came.
        sent: When each request was sent.
        took: How long each answer took, in seconds.
    """

    faults: list[str] = field(default_factory=list)
    n: int = 0
    versions: dict[int, str] = field(default_factory=dict)
    last_sent: dict[int, float] = field(default_factory=dict)
    first_received: dict[int, float] = field(default_factory=dict)
    sent: "array[float]" = field(default_factory=lambda: array("d"))
    took: "array[float]" = field(default_factory=lambda: array("f"))


def ask_all(
    url: str, expected: dict[str, Sequence[Sequence[float]]], n_requests: int, n_connections: int, pipe: Connection
) -> None:
    """Asks so many times; sends how many were answered, now and then, and the report at the end."""
    report = Report()
    checker = _Checker(expected, report)
    asyncio.run(_ask_all(url, checker, n_requests, n_connections, pipe))
    checker.check_bodies()
    pipe.send(report)


async def _ask_all(url: str, checker: "_Checker", n_requests: int, n_connections: int, pipe: Connection) -> None:
    numbers = iter(range(n_requests))
    each = max(1, n_requests // _PARTS)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        epoch = 0
        for number in numbers:
            if number % each == 0:
                pipe.send(number)
            which = number % len(BODIES)
            sent = time.monotonic()
            writer.write(_REQUESTS[which])
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(_header(head, b"content-length")))
            epoch = checker.check(which, head, body, sent, time.monotonic(), epoch)
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(n_connections):
            tasks.create_task(ask())


class _Checker:
    """Checks answers. Their bodies are checked at the end, each kind once: that takes as long as some requests."""

    def __init__(self, expected: dict[str, Sequence[Sequence[float]]], report: Report) -> None:
        self._expected = expected
        self._report = report
        self._kinds: dict[tuple[int, bytes, int, bytes, bytes], bytes] = {}

    def check(self, which: int, head: bytes, body: bytes, sent: float, received: float, epoch: int) -> int:
        """Returns the epoch that answered; `epoch` is the one that answered on this connection before."""
        report = self._report
        report.n += 1
        report.sent.append(sent)
        report.took.append(received - sent)
        try:
            return self._check(which, head, body, sent, received, epoch)
        except (AssertionError, KeyError, ValueError) as error:
            self._note(error, head, body)
            return epoch

    def check_bodies(self) -> None:
        """Checks what the bodies say."""
        for (which, version, epoch, _, _), body in self._kinds.items():
            try:
                self._check_body(json.loads(body), version.decode(), epoch, which)
            except (AssertionError, KeyError, ValueError) as error:
                self._note(error, b"", body)

    def _note(self, error: Exception, head: bytes, body: bytes) -> None:
        if len(self._report.faults) < 10:
            self._report.faults.append(f"{type(error).__name__} {error}: {head!r} {body[:300]!r}")

    def _check(self, which: int, head: bytes, body: bytes, sent: float, received: float, epoch: int) -> int:
        assert head.startswith(b"HTTP/1.1 200 "), "it is no answer"
        version, now = _header(head, b"x-model-version"), int(_header(head, b"x-model-epoch"))
        named, _, rest = body.partition(b'"prediction_id":')
        self._kinds.setdefault((which, version, now, named, rest.partition(b",")[2]), body)
        assert now >= epoch, f"epoch {now} after {epoch} on one connection"
        report = self._report
        assert report.versions.setdefault(now, version.decode()) == version.decode(), "two versions in one epoch"
        report.last_sent[now] = max(sent, report.last_sent.get(now, sent))
        report.first_received[now] = min(received, report.first_received.get(now, received))
        return now

    def _check_body(self, answer: dict[str, Any], version: str, epoch: int, which: int) -> None:
        assert (answer["model"], answer["version"], answer["epoch"]) == (MODEL, version, epoch), "it names another"
        wanted = self._expected[version][which]
        assert len(answer["predictions"]) == len(wanted), "another number of rows"
        # Versions are 1000 apart. Rows in company may differ in the last bits.
        np.testing.assert_allclose(answer["predictions"], wanted, rtol=1e-12)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


_REQUESTS = tuple(
    b"POST /v1/models/%b/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (MODEL.encode(), len(body), body)
    for body in BODIES
)
