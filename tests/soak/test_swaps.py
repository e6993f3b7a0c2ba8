"""Production moves again and again under load: no answer fails, is mixed, or of a version that might not answer then.

The server is a process of its own with a registry in memory; the clients are other processes, with connections that are
kept. Moves alternate between the registry, which the server looks at, and pushes; some go back to the version before.
"""

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from tests.fakes.server import until
from tests.soak.client import Report, ask_all
from tests.soak.server import serve
from tests.soak.sizes import AT_LENGTH, CLIENTS, CONNECTIONS, REQUESTS, SWAPS
from tests.soak.versions import BODIES, MODEL, VERSIONS, answers_of, build_versions

_SPAWN = multiprocessing.get_context("spawn")
_MB = 1024**2
_JSON = {"content-type": "application/json"}
MOST_GROWTH_MB = 10.0
MOST_SLOWER = 1.5
QUIET = 0.1  # the share of the requests before the first move, and after the last
AFTER_S = 0.1  # after the first answer of a new version: it is noted on disk, and the one before is kept warm


@dataclass(slots=True)
class Ledger:
    """Which version might answer when: the epochs in order, each from when its move began until the next was seen."""

    versions: dict[int, str] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    until: dict[int, float] = field(default_factory=dict)

    def faults(self, report: Report) -> list[str]:
        """Returns what a client was answered that no version might answer then."""
        return [
            f"epoch {epoch} (version {version}) answered outside its time"
            for epoch, version in report.versions.items()
            if self.versions.get(epoch) != version
            or report.first_received[epoch] < self.since[epoch]
            or report.last_sent[epoch] > self.until.get(epoch, np.inf)
        ]

    def swaps(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns when each move began, and when all that it takes was over."""
        begun = [self.since[epoch] for epoch in sorted(self.since)][1:]
        return np.array(begun), np.array(sorted(self.until.values())) + AFTER_S


class Operator:
    """Moves Production, in turns by the registry and by a push; every third move is a rollback."""

    def __init__(self, pipe: Connection, client: httpx.Client) -> None:
        self._pipe = pipe
        self._client = client
        self._choices = random.Random(0)
        self._before = VERSIONS[0]
        self._version = VERSIONS[0]
        self.n_moves = 0
        self.ledger = Ledger(versions={1: VERSIONS[0]}, since={1: 0.0})

    def move(self) -> None:
        """Moves, and returns when the server answers with the new version."""
        others = [version for version in VERSIONS if version not in (self._version, self._before)]
        back = self.n_moves % 3 == 2
        self._before, self._version = self._version, self._before if back else self._choices.choice(others)
        begun = time.monotonic()
        pushed = self.n_moves % 2 == 1
        self._pipe.send((self._version, pushed))
        epoch, body = self._pipe.recv()
        if pushed:
            assert self._client.post(f"/v1/models/{MODEL}/certificate", json=body).status_code == 200
            self._pipe.send("pushed")
        until(lambda: self._epoch() == epoch)
        self.ledger.versions[epoch], self.ledger.since[epoch] = self._version, begun
        self.ledger.until[max(self.ledger.since.keys() - {epoch})] = time.monotonic()
        self.n_moves += 1

    def _epoch(self) -> int:
        answer = self._client.post(f"/v1/models/{MODEL}/predict", content=BODIES[0], headers=_JSON)
        return int(answer.headers["x-model-epoch"])


@contextmanager
def server_process(root: Path) -> Iterator[tuple[Any, Connection, str, dict[str, Path]]]:
    folders = build_versions(root / "packages")
    pipe, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=serve, args=(folders, root / "served" / "cache", theirs))
    process.start()
    try:
        assert pipe.poll(60), "the server did not start"
        yield process, pipe, pipe.recv(), folders
        pipe.send(None)
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


@pytest.mark.timeout(7200)
def test_swaps_under_load_leave_no_trace(tmp_path: Path) -> None:
    with server_process(tmp_path) as (process, pipe, url, folders), httpx.Client(base_url=url, timeout=30) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        operator = Operator(pipe, http)
        expected = {version: answers_of(folder) for version, folder in folders.items()}
        memory = psutil.Process(process.pid)
        reports, grown = _under_load(url, expected, operator, lambda: memory.memory_info().rss / _MB)
    n = sum(report.n for report in reports)
    faults = [fault for report in reports for fault in (*report.faults, *operator.ledger.faults(report))]
    print(f"\n{len(faults)} of {n:,} answers wrong (95 %: below {3 / n:.1e}) in {operator.n_moves} swaps")
    print("server MB:", ", ".join(f"{done:.0%} {rss:.1f}" for done, rss in grown))
    assert faults == []
    assert (n, operator.n_moves) == (REQUESTS // CLIENTS * CLIENTS, SWAPS)
    assert len({epoch for report in reports for epoch in report.versions}) > SWAPS / 2  # the load saw them
    assert grown[-1][1] - next(rss for done, rss in grown if done >= 0.5) < MOST_GROWTH_MB
    if AT_LENGTH:  # else what is quiet is too short
        during, outside = _percentiles(reports, *operator.ledger.swaps())
        print(f"p50 / p99 ms: {during[0]:.2f} / {during[1]:.2f} during swaps, {outside[0]:.2f} / {outside[1]:.2f} else")
        assert during[1] <= MOST_SLOWER * outside[1]


def _under_load(
    url: str, expected: Any, operator: Operator, rss: Any
) -> tuple[list[Report], list[tuple[float, float]]]:
    """Returns what the clients saw, and the server's memory as the share of requests grew."""
    n_each = REQUESTS // CLIENTS
    done: dict[Connection, int] = {}  # requests, by the pipe of each client
    processes = []
    for _ in range(CLIENTS):
        ours, theirs = _SPAWN.Pipe()
        processes.append(_SPAWN.Process(target=ask_all, args=(url, expected, n_each, CONNECTIONS, theirs)))
        done[ours] = 0
        processes[-1].start()
        theirs.close()
    reports: list[Report] = []
    memory: list[tuple[float, float]] = []
    marks = [0.0, 0.1, 0.5, 1.0]
    while len(reports) < CLIENTS:
        for pipe in wait([pipe for pipe, n in done.items() if n < n_each], timeout=60):
            assert isinstance(pipe, Connection)
            told = pipe.recv()
            if isinstance(told, Report):
                reports.append(told)
                told = n_each
            done[pipe] = told
        share = sum(done.values()) / (n_each * CLIENTS)
        while marks and share >= marks[0]:
            memory.append((marks.pop(0), rss()))
        while operator.n_moves < min(SWAPS, int((share - QUIET) / (1 - 2 * QUIET) * SWAPS)):
            operator.move()
    while operator.n_moves < SWAPS:
        operator.move()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    return reports, memory + [(1.0, rss()) for _ in marks]


def _percentiles(
    reports: list[Report], begun: npt.NDArray[np.float64], over: npt.NDArray[np.float64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns p50 and p99 in ms of what was under way during a swap, and of all else, while all clients asked."""
    sent, took = (np.concatenate([getattr(report, name) for report in reports]) for name in ("sent", "took"))
    all_ask = (sent > max(min(report.sent) for report in reports)) & (sent < min(max(r.sent) for r in reports))
    sent, took = sent[all_ask], took[all_ask]
    during = np.searchsorted(begun, sent + took) > np.searchsorted(over, sent)
    assert during.any()
    assert not during.all()
    (p50, p99), (p50_else, p99_else) = (np.percentile(part * 1000, [50, 99]) for part in (took[during], took[~during]))
    return (float(p50), float(p99)), (float(p50_else), float(p99_else))
