"""Measures one server with one model: start, equal answers, load, memory."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load.figures import AT_64, SETTINGS, Measured
from benchmarks.load.forms import Body, Form, Table, http_request
from benchmarks.load.models import N_BODIES, N_MANY, N_SINGLE, ROOT, Served
from benchmarks.load.process import NoAnswer, Running, pinned_to, post
from benchmarks.load.servers import Kind, Server
from benchmarks.load.wrk import Load, drive, write_requests
from release_platform.cli.processes import free_port

TOLERANCE = 1e-9
N_CHECKED_SINGLY = 50
START_S = 180.0


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

    @property
    def note_on_workers(self) -> str:
        """What two workers ran on."""
        if self.enough_for_workers:
            return "two cores for the workers, another for wrk"
        return "wrk ran on the workers' cores, so this says little: it needs three idle cores"

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
    """

    place: Path
    cores: Cores
    seconds: int

    def measure(self, server: Server, served: Served, measured: Measured) -> None:
        """Starts a server, checks its answers, measures it in each setting, and adds all that to what was measured.

        Raises:
            NoAnswer: It does not start, or answers wrongly.
        """
        if server.kind is Kind.OURS:
            measured.empty_start_s.append(self._empty_start_s(server, served))
        port = free_port()
        with self._start(server, served, port, self.cores.server) as running:
            measured.first_answer_s.append(self._first_answer_s(running, server, served, port))
            offered = self._offered(server, served, port)
            for setting in offered:
                difference = self._difference(server, served, port, setting)
                measured.difference = max(measured.difference, difference)
            for name, (setting, connections) in SETTINGS.items():
                if setting in offered:
                    load = self._drive(server, served, port, setting, connections, self.cores.load)
                    measured.loads.setdefault(name, []).append(load)
            memory = running.memory()
            measured.memory_bytes.append(memory.rss if memory.pss is None else memory.pss)
            measured.shares_counted_once &= memory.pss is not None

    def two_workers(self, server: Server, served: Served, rounds: int) -> float | None:
        """Returns the requests per second of two workers divided by those of one, both on the cores of two.

        None where the server has no such setting, or it is not alive.
        """
        one, two = Measured(), Measured()
        n_processes: dict[str, int] = {}
        for _ in range(rounds):
            for measured, workers in ((one, "1"), (two, "2")):
                port = free_port()
                with self._start(server, served, port, self.cores.workers, SERVING_WORKERS=workers) as running:
                    self._first_answer_s(running, server, served, port)
                    load = self._drive(server, served, port, "row", SETTINGS[AT_64][1], self.cores.load)
                    n_processes[workers] = len(running.tree())
                    measured.loads.setdefault(AT_64, []).append(load)
        if n_processes["1"] == n_processes["2"]:
            return None
        alone, both = one.at(AT_64), two.at(AT_64)
        assert alone is not None
        assert both is not None
        return both.per_second / alone.per_second

    def _start(self, server: Server, served: Served, port: int, cores: tuple[int, ...], **variables: str) -> Running:
        command = [*pinned_to(cores), *server.command(served, port)]
        environment = server.environment(served, port) | variables
        return Running(command, environment, self.place / f"{server.name.replace(' ', '-')}.log", ROOT)

    def _empty_start_s(self, server: Server, served: Served) -> float:
        shutil.rmtree(server.variables["SERVING_CACHE_DIR"], ignore_errors=True)
        port = free_port()
        with self._start(server, served, port, self.cores.server) as running:
            return self._first_answer_s(running, server, served, port)

    def _first_answer_s(self, running: Running, server: Server, served: Served, port: int) -> float:
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

    def _drive(
        self, server: Server, served: Served, port: int, setting: str, connections: int, cores: tuple[int, ...]
    ) -> Load:
        form = server.forms.by_setting[setting]
        assert form is not None
        path = form.path.format(model=served.name)
        bodies = [form.write(served.columns, rows) for rows in self._rows(served, setting)]
        requests = self.place / "requests"
        write_requests(requests, [http_request(path, port, body) for body in bodies])
        words = pinned_to(cores)
        drive(port, requests, connections=connections, seconds=max(1, self.seconds // 3), pinned=words)
        # What the end of the warm-up left in the queue of a slow server would be counted against it.
        post(port, path, bodies[0])
        return drive(port, requests, connections=connections, seconds=self.seconds, pinned=words)
