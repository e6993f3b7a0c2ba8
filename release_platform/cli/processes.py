"""Starts processes, waits until they answer, and stops all of them with everything that they started."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

import httpx

from release_platform.domain.errors import Unavailable

STOP_S = 10.0
_SAFE = {"PYTHONSAFEPATH": "1"}


def apart_from_here(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns variables with which Python, and every Python that it starts, imports nothing from the current folder.

    `python -m` puts that folder first, so that a `serving` or a `queue.py` of whoever calls would be taken for the real
    one. Dagster takes the first entry off the path while it loads a code location, since it expects that folder there;
    so that nothing of a PYTHONPATH is lost, one that holds nothing goes first.
    """
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in {"", os.devnull}]
    kept = {"PYTHONPATH": os.pathsep.join([os.devnull, *paths])} if paths else {}
    return {**environment, **_SAFE, **kept}


def free_port(wanted: int = 0) -> int:
    """Returns a port on the loopback interface: the wanted one if nothing listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not count
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("port 0 always binds")


class Processes:
    """Child processes that end together, each in a group of its own, with its output in a file."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, args: Sequence[str], env: Mapping[str, str], *, folder: Path | None = None) -> None:
        """Starts a process, apart from what lies in the current folder; its output goes to `<name>.log`.

        Args:
            name: What it is called.
            args: Its command.
            env: Its environment.
            folder: Where it works; None for the current folder.
        """
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                args,
                env=apart_from_here(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_default_signals,
            )

    def wait_until_ready(self, name: str, url: str, timeout_s: float) -> None:
        """Waits until a process answers an address with success.

        Raises:
            Unavailable: It ended, or did not answer in time; names its log.
        """
        until = monotonic() + timeout_s
        while monotonic() < until:
            code = self._running[name].poll()
            if code is not None:
                raise self._gone(name, f"ended with code {code}")
            try:
                if httpx.get(url, timeout=5).is_success:
                    return
            except httpx.HTTPError:
                pass
            sleep(0.1)
        raise self._gone(name, f"did not answer {url} within {timeout_s:.0f} s")

    def wait_for_end(self) -> str:
        """Waits until any process ends and returns its name."""
        while True:
            for name, process in self._running.items():
                if process.poll() is not None:
                    return name
            sleep(0.3)

    def stop(self) -> None:
        """Stops every process and what it started: politely, then after ten seconds by force."""
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        until = monotonic() + STOP_S
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def _gone(self, name: str, problem: str) -> Unavailable:
        log = self._logs / f"{name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        return Unavailable(f"{name} {problem}; its last words:\n{tail}", remedy=f"read {log}")


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
