"""Measures one server with one model: start, equal answers, load, memory."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import numpy as np

from benchmarks.load.awake import awake
from benchmarks.load.figures import AT_64, SETTINGS, Measured, TwoWorkers
from benchmarks.load.forms import Body, Form, Table, http_request
from benchmarks.load.models import N_BODIES, N_MANY, N_SINGLE, ROOT, Served
from benchmarks.load.process import NoAnswer, Running, pinned_to, post
from benchmarks.load.servers import Kind, Server
from benchmarks.load.wrk import Load, drive, write_requests
from release_platform.cli.processes import free_port

TOLERANCE = 1e-9
N_CHECKED_SINGLY = 50
START_S = 180.0
SETTLE_S = 3.0  # which worker gave the first answer does not show, and the other may not have the model yet
HOLDS_GIL = "scaled"
"""The model whose predictions hold the GIL in JSON: one worker uses one core, and another can use the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which cores a server of one worker, one of two workers, and the load generator run on; empty: not pinned."""

    server: tuple[int, ...]
    workers: tuple[int, ...]
    load: tuple[int, ...]

    @classmethod
    def here(cls, *, pin: bool = True) -> "Cores":
        """Returns how the cores of this machine are given out."""
        return cls.of(sorted(os.sched_getaffinity(0)), can_pin=pin and shutil.which("taskset") is not None)

    @classmethod
    def of(cls, cores: list[int], *, can_pin: bool) -> "Cores":
        """Returns how these cores are given out."""
        if not can_pin or len(cores) < 2:
            return cls(server=(), workers=(), load=())
        return cls(server=(cores[0],), workers=tuple(cores[:2]), load=(cores[-1],))

    @property
    def enough_for_workers(self) -> bool:
        """Whether two workers and the load generator have a core each."""
        return bool(self.load) and self.load[0] not in self.workers

    def __str__(self) -> str:
        if not self.load:
            return "nothing is pinned"
        return f"servers on core {self.server[0]}, wrk on core {self.load[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Measures servers.

    Attributes:
        place: A folder for logs, requests and recorded answers.
        seconds: How long a setting is measured.
        keeps_awake: Whether cores are kept awake over one connection, where a client sleeps while it waits.
    """

    place: Path
    cores: Cores
    seconds: int
    keeps_awake: bool = False

    def measure(self, server: Server, served: Served, measured: Measured) -> None:
        """Starts a server, checks its answers, measures it in each setting, and adds all that to what was measured.

        Raises:
            NoAnswer: It does not start, or answers wrongly.
        """
        if server.kind is Kind.OURS:
            measured.empty_start_s.append(self._empty_start_s(server, served))
        port = free_port()
        with self.start(server, served, port, self.cores.server) as running:
            measured.first_answer_s.append(self.first_answer_s(running, server, served, port))
            offered = self._offered(server, served, port)
            for setting in offered:
                difference = self._difference(server, served, port, setting)
                measured.difference = max(measured.difference, difference)
            for name, (setting, connections) in SETTINGS.items():
                if setting in offered:
                    with awake(wanted=self.keeps_awake and connections == 1):
                        load = self.drive(server, served, port, setting, connections, self.cores.load)
                    measured.loads.setdefault(name, []).append(load)
            memory = running.memory()
            measured.memory_bytes.append(memory.rss if memory.pss is None else memory.pss)
            measured.shares_counted_once &= memory.pss is not None

    def two_workers(self, server: Server, served: Served, rounds: int) -> TwoWorkers | None:
        """Returns how two workers compare with one, both on the cores of two.

        Single rows cost `wrk` much, so where it has no core of its own 1,000 rows in JSON are sent. None where that
        says nothing of the model, the server has no such setting, or requests failed.
        """
        apart = self.cores.enough_for_workers
        if not apart and served.name != HOLDS_GIL:
            return None
        setting, connections = SETTINGS[AT_64] if apart else ("json", 16)
        cores = self.cores.load if apart else self.cores.workers
        one, two = Measured(), Measured()
        n_processes: dict[str, int] = {}
        for _ in range(rounds):
            for measured, workers in ((one, "1"), (two, "2")):
                port = free_port()
                with self.start(server, served, port, self.cores.workers, SERVING_WORKERS=workers) as running:
                    self.first_answer_s(running, server, served, port)
                    sleep(SETTLE_S)
                    load = self.drive(server, served, port, setting, connections, cores)
                    n_processes[workers] = len(running.tree())
                    measured.loads.setdefault(setting, []).append(load)
        alone, both = one.at(setting), two.at(setting)
        assert alone is not None
        assert both is not None
        if n_processes["1"] == n_processes["2"] or alone.n_errors or both.n_errors:
            return None
        times = both.per_second / alone.per_second
        return TwoWorkers(times=times, generator_share=both.generator_share, apart=apart)

    def start(self, server: Server, served: Served, port: int, cores: tuple[int, ...], **variables: str) -> Running:
        """Starts a server with a model; it ends with the `with` block."""
        command = [*pinned_to(cores), *server.command(served, port)]
        environment = server.environment(served, port) | variables
        return Running(command, environment, self.place / f"{server.name.replace(' ', '-')}.log", ROOT)

    def _empty_start_s(self, server: Server, served: Served) -> float:
        shutil.rmtree(server.variables["SERVING_CACHE_DIR"], ignore_errors=True)
        port = free_port()
        with self.start(server, served, port, self.cores.server) as running:
            return self.first_answer_s(running, server, served, port)

    def first_answer_s(self, running: Running, server: Server, served: Served, port: int) -> float:
        """Returns the seconds from the start of a server to its first right answer.

        Raises:
            NoAnswer: It gives none.
        """

        def is_right() -> bool:
            return self._compare(server, served, port, "row", served.golden[:1]) <= TOLERANCE

        return running.wait_for(is_right, timeout_s=START_S)

    def _offered(self, server: Server, served: Served, port: int) -> list[str]:
        """Returns what a server can be sent, and records what ours answers for the limits."""
        offered = []
        for setting, form in server.forms.by_setting.items():
            if form is None:
                continue
            if server.kind is Kind.LIMIT:
                if self._recorded(served, setting).exists():
                    offered.append(setting)
                continue
            status, answer = self._ask(form, served, port, self._rows(served, setting)[0])
            if status == 404 and setting == "binary":
                print(f"  {server.name} has no {form.path}", file=sys.stderr, flush=True)
                continue
            if server.kind is Kind.OURS:
                self._recorded(served, setting).write_bytes(answer.data)
            offered.append(setting)
        return offered

    def _difference(self, server: Server, served: Served, port: int, setting: str) -> float:
        """Returns the largest difference from the registered model's probabilities; it is at most the tolerance.

        Raises:
            NoAnswer: It is larger, or an answer cannot be read.
        """
        beside = served.beside_thresholds
        rows = [*served.golden, *beside[:N_CHECKED_SINGLY]] if setting == "row" else []
        tables = [row.reshape(1, -1) for row in rows] or [beside]
        try:
            worst = max(self._compare(server, served, port, setting, table) for table in tables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"its answer to '{setting}' cannot be read: {error!r}") from error
        if not worst <= TOLERANCE:
            raise NoAnswer(f"its answers to '{setting}' differ from the registered model's by {worst:.3g}")
        return worst

    def _compare(self, server: Server, served: Served, port: int, setting: str, rows: Table) -> float:
        form = server.forms.by_setting[setting]
        assert form is not None
        status, answer = self._ask(form, served, port, rows)
        if status != 200:
            raise ValueError(f"status {status}: {answer.data[:300]!r}")
        if server.kind is Kind.LIMIT:
            return 0.0 if answer.data == self._recorded(served, setting).read_bytes() else float("inf")
        found, wanted = form.read(answer), served.probabilities(rows)
        return float(np.max(np.abs(found - wanted))) if found.shape == wanted.shape else float("inf")

    def _ask(self, form: Form, served: Served, port: int, rows: Table) -> tuple[int, Body]:
        return post(port, form.path.format(model=served.name), form.write(served.columns, rows))

    def _recorded(self, served: Served, setting: str) -> Path:
        return served.folder / f"{setting}.answer"

    def _rows(self, served: Served, setting: str) -> list[Table]:
        n_bodies, n_rows = (N_SINGLE, 1) if setting == "row" else (N_BODIES, N_MANY)
        return np.split(served.different_rows(n_bodies * n_rows, seed=11), n_bodies)

    def drive(
        self,
        server: Server,
        served: Served,
        port: int,
        setting: str,
        connections: int,
        cores: tuple[int, ...],
        pause_ms: int = 0,
    ) -> Load:
        """Returns what a server did under load, after a warm-up."""
        form = server.forms.by_setting[setting]
        assert form is not None
        path = form.path.format(model=served.name)
        bodies = [form.write(served.columns, rows) for rows in self._rows(served, setting)]
        requests = self.place / "requests"
        write_requests(requests, [http_request(path, port, body) for body in bodies])

        def drive_for(seconds: int) -> Load:
            pinned = pinned_to(cores)
            return drive(port, requests, connections=connections, seconds=seconds, pinned=pinned, pause_ms=pause_ms)

        drive_for(max(1, self.seconds // 3))
        # What the end of the warm-up left in the queue of a slow server would be counted against it.
        post(port, path, bodies[0])
        return drive_for(self.seconds)
