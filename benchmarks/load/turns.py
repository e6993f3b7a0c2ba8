"""Measures in turns what runs all the time: without a thing, and with it."""

import json
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from benchmarks.load.forms import Body, Form, Forms, Table
from benchmarks.load.measuring import SETTLE_S, Bench
from benchmarks.load.models import Served
from benchmarks.load.pairs import Pair
from benchmarks.load.process import NoAnswer, Running, post
from benchmarks.load.servers import Server
from benchmarks.load.wrk import Load
from release_platform.cli.processes import free_port

CONNECTIONS = 16
PAUSE_MS = 50
"""About 16 / 0.05 = 320 requests a second."""
REST_S = 1.0
"""A shadow has at most 256 requests in its queue when a load ends; in this time it answers them."""
SHADOW_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server, the model that it is asked for, and the cores that it may use; empty: all."""

    server: Server
    served: Served
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A side that runs and gave a right answer."""

    side: Side
    port: int
    running: Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a shadow's server counted: requests that it answered, and of these those that the shadow was asked."""

    answered: float
    shadow: float
    dropped: float

    def since(self, before: "Asked") -> "Asked":
        """Returns what was counted after another count."""
        return Asked(
            answered=self.answered - before.answered,
            shadow=self.shadow - before.shadow,
            dropped=self.dropped - before.dropped,
        )

    @property
    def share(self) -> float:
        """The share of the requests that the shadow was asked, 0 to 1; 0 when there were none."""
        return self.shadow / self.answered if self.answered else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Measures two sides in turns.

    Attributes:
        bench: Drives them.
    """

    bench: Bench

    @contextmanager
    def started(self, without: Side, having: Side, *, swapped: bool) -> Iterator[tuple[Started, Started]]:
        """Starts both, in this order or the other, and yields them when both gave a right answer.

        Raises:
            NoAnswer: One does not.
        """
        first, second = (having, without) if swapped else (without, having)
        with self._start(first) as one, self._start(second) as other:
            time.sleep(SETTLE_S)
            yield (other, one) if swapped else (one, other)

    @contextmanager
    def started_together(self, without: Side, having: Side) -> Iterator[tuple[Started, Started]]:
        """Starts the one server of both, and yields them when it gave a right answer of both models.

        Raises:
            NoAnswer: It does not.
        """
        with self._start(without) as one:
            other = Started(side=having, port=one.port, running=one.running)
            self.bench.first_answer_s(one.running, having.server, having.served, one.port)
            yield one, other

    def measure(
        self, without: Started, having: Started, *, n_pairs: int = 1, pause_ms: int = 0, swapped: bool
    ) -> list[Pair]:
        """Returns pairs, measured as A B, B A, A B and so on, so that a drift of the machine is on neither side."""
        pairs = []
        for number in range(n_pairs):
            if number % 2 == swapped:
                before = self._drive(without, pause_ms)
                pairs.append(Pair(without=before, having=self._drive(having, pause_ms)))
            else:
                after = self._drive(having, pause_ms)
                pairs.append(Pair(without=self._drive(without, pause_ms), having=after))
        return pairs

    @contextmanager
    def _start(self, side: Side) -> Iterator[Started]:
        port = free_port()
        with self.bench.start(side.server, side.served, port, side.cores) as running:
            self.bench.first_answer_s(running, side.server, side.served, port)
            yield Started(side=side, port=port, running=running)

    def _drive(self, started: Started, pause_ms: int) -> Load:
        side, load = started.side, self.bench.cores.load
        found = self.bench.drive(side.server, side.served, started.port, "row", CONNECTIONS, load, pause_ms)
        time.sleep(REST_S)
        return found


def variant(server: Server, name: str, variables: Mapping[str, str], headers: Mapping[str, str]) -> Server:
    """Returns a server with another name, more variables, and headers that each request has."""
    own = server.forms
    binary = own.binary and _with_headers(own.binary, headers)
    forms = Forms(row=_with_headers(own.row, headers), json=_with_headers(own.json, headers), binary=binary)
    return replace(server, name=name, variables={**server.variables, **variables}, forms=forms)


def _with_headers(form: Form, headers: Mapping[str, str]) -> Form:
    def write(names: Sequence[str], rows: Table) -> Body:
        body = form.write(names, rows)
        return Body(data=body.data, headers={**body.headers, **headers})

    return replace(form, write=write)


def wait_for_shadow(started: Started) -> None:
    """Asks until the shadow has answered: its process starts with the first request.

    Raises:
        NoAnswer: It does not within two minutes.
    """
    served, form = started.side.served, started.side.server.forms.row
    body, path = form.write(served.columns, served.golden[:1]), form.path.format(model=served.name)
    end = time.monotonic() + SHADOW_S
    while time.monotonic() < end:
        post(started.port, path, body)
        time.sleep(REST_S)
        if asked_of(started).shadow > 0:
            return
    raise NoAnswer(f"{served.name}: its shadow answered nothing within {SHADOW_S:.0f} s")


def asked_of(started: Started) -> Asked:
    """Returns what a server counted so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{started.port}/metrics") as answer:
        return read_asked(answer.read().decode(), started.side.served.name)


def read_asked(metrics: str, model: str) -> Asked:
    """Returns what the metrics of a server say of a model."""

    def count(name: str, label: str = "") -> float:
        lines = re.findall(rf"^{name}_total{{(.*)}} (\S+)$", metrics, re.MULTILINE)
        return sum(float(n) for labels, n in lines if f'model="{model}"' in labels.split(",") and label in labels)

    return Asked(
        answered=count("serving_routed_requests", 'model_route="stable"'),
        shadow=count("serving_routed_requests", 'model_route="shadow"'),
        dropped=count("serving_shadow_dropped"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a collector gets of a recording server.

    Attributes:
        n_samples: How many requests.
        n_bytes: The size of the answer.
        seconds: How long it took.
    """

    n_samples: int
    n_bytes: int
    seconds: float


def fetch_samples(started: Started, key: str) -> Fetched:
    """Waits until the minute is over, and fetches the recorded requests of those that are.

    Raises:
        NoAnswer: There are none.
    """
    time.sleep(61 - time.time() % 60)
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"http://127.0.0.1:{started.port}/admin/samples", headers=headers)
    begun = time.perf_counter()
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        body = answer.read()
    seconds = time.perf_counter() - begun
    n_samples = sum(len(replica["samples"]) for replica in json.loads(body)["replicas"])
    if n_samples == 0:
        raise NoAnswer(f"{started.side.server.name}: not one request was recorded")
    return Fetched(n_samples=n_samples, n_bytes=len(body), seconds=seconds)
