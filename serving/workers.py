"""Several processes on one port: each is a whole server, and a supervisor that imports next to nothing keeps them."""

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from serving.settings import Settings
from serving.shares import Shares

if TYPE_CHECKING:
    from serving.server import Server

WRONG_CONFIGURATION = 2
STARTUP_FAILED = 3
SOON_S = 5.0
"""Seconds within which a worker that ends has not come up."""

_NOT_STARTED = 1
_HOPELESS = {WRONG_CONFIGURATION, STARTUP_FAILED}
_MARGIN_S = 3.5
_LONGEST_WAIT_S = 10.0
_LONGEST_FOLDER = 60  # a socket's path has 107 bytes at most: see `Siblings`
_LOG = logging.getLogger("serving.workers")


def supervise(settings: Settings, command: Sequence[str]) -> int:
    """Keeps `settings.workers` processes until SIGTERM or SIGINT; returns the exit status.

    A worker that dies is started again, unless it says that no other would fare better, and none does. All accept from
    one socket, so that none of the connections that wait there is lost with a worker, and see how many the others have,
    so that each takes its part. When the supervisor dies the workers notice, by their standard input, and end in good
    order.

    Args:
        settings: Address, number of workers, and the times of their end.
        command: Starts a worker; put at its end is what `run_worker` is to be given.

    Raises:
        ValueError: The folder of temporary files has too long a path for the sockets of the workers.
    """
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        raise ValueError(
            f"the path of TMPDIR has more than {_LONGEST_FOLDER} bytes: too many for the sockets there, over which "
            "workers ask each other; set it to a shorter one, e.g. /tmp"
        )
    with (
        tempfile.TemporaryDirectory(prefix="serving-metrics-") as folder,
        tempfile.TemporaryFile() as shared,
        _listen(settings) as listener,
    ):
        shared.truncate(Shares.n_bytes(settings.workers))
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        return asyncio.run(_Supervisor(settings, command, listener, shared.fileno(), environment).run())


def run_worker(server: "Server", inherited: Sequence[str]) -> None:
    """Runs a server beside others; it ends, as by SIGTERM, when its supervisor is gone.

    Args:
        server: It is not started yet.
        inherited: The numbers of the listening socket, of the file of `Shares`, and of this worker's place in it.
    """
    listener, shared, place = map(int, inherited)

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
    server.run_beside_others(socket.socket(fileno=listener), Shares(shared), place)


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        listener: socket.socket,
        shared: int,
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._command = command
        self._listener = listener
        self._shared = shared
        self._shares = Shares(shared)
        self._environment = environment
        self._running: dict[Process, float] = {}  # and since when
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        host, port = self._listener.getsockname()[:2]
        _LOG.info("%d workers answer on %s port %d", self._settings.workers, host, port)
        keeping = [asyncio.create_task(self._keep(place)) for place in range(self._settings.workers)]
        await self._stopping.wait()
        self._listener.close()  # else connections would go on to wait here for workers that are gone
        await asyncio.wait(keeping, timeout=self._settings.drain_s + self._settings.shutdown_s + _MARGIN_S)
        self._signal(signal.SIGKILL)
        await asyncio.gather(*keeping)
        return self._status

    async def _keep(self, place: int) -> None:
        """Keeps the worker at a place alive."""
        wait_s = 0.0
        while not await self._stops_within(wait_s):
            begun = asyncio.get_running_loop().time()
            status = await self._run_worker(place)
            lived_s = asyncio.get_running_loop().time() - begun
            wait_s = 0.0 if lived_s > SOON_S else min(_LONGEST_WAIT_S, max(0.5, 2 * wait_s))
            if self._stopping.is_set():
                self._status = self._status or int(
                    status not in {0, -signal.SIGTERM}
                )  # by signal: it was starting still
            elif status in _HOPELESS and not self._has_good_worker():
                self._status = status
                self._stop()
            else:
                _LOG.error("a worker ended with status %d; another is started in %.1f s", status, wait_s)

    def _has_good_worker(self) -> bool:
        """Whether one is beyond its start: then what a new one does not bear, e.g. a broken key file, may pass."""
        now = asyncio.get_running_loop().time()
        return any(now - begun > SOON_S for begun in self._running.values())

    async def _run_worker(self, place: int) -> int:
        inherited = (self._listener.fileno(), self._shared)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *map(str, (*inherited, place)),
                stdin=PIPE,
                pass_fds=inherited,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor alone, which passes it on once
            )
        except OSError as error:  # no memory, or no more processes or files are allowed: that may pass
            _LOG.error("a worker could not be started: %s", error)
            return _NOT_STARTED
        self._running[process] = asyncio.get_running_loop().time()
        if self._stopping.is_set():
            process.terminate()
        try:
            return await process.wait()
        finally:
            del self._running[process]
            self._shares.leave(place)

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._signal(signal.SIGTERM)

    def _interrupt(self) -> None:
        """Begins the end; the second time it does not wait for requests."""
        if self._stopping.is_set():
            self._signal(signal.SIGKILL)
        self._stop()

    def _signal(self, what: signal.Signals) -> None:
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(what)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
