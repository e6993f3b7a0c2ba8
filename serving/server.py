"""Runs the application on uvicorn, and ends it without losing a request."""

import asyncio
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from release_platform.domain.ports import Clock, RegistryReader
from serving.app import create_app
from serving.busy_poll import BusyPoll
from serving.connection import Connection, Lobby
from serving.handover import Handover
from serving.logs import log_config
from serving.models import Live
from serving.observations import Observations
from serving.settings import Settings
from serving.shares import Shares
from serving.taking import Taker

PATIENCE_S = 3.0
"""Seconds beyond `drain_s` and `shutdown_s` after which the process is gone, whatever hangs."""

_LAST_WORDS_S = 1.0
_SWITCH_S = 0.0005  # how long the event loop waits for a thread that computes; Python's 5 ms add up to a slow answer
_SPARE_FILES = 256
_LOG = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn that first says that it is not ready, then stops listening, then lets requests end.

    ```
    SIGTERM     not ready; each answer closes its connection
    + drain_s   stops listening; who has no request under way has a last chance to send one
    + shutdown_s requests that still run are answered with 503, and what cannot be answered is cut off
    + PATIENCE_S the process ends itself, with status 1 and the stacks of the threads that hang
    ```
    SIGTERM and SIGINT are the orderly way to end it, so the process then exits with status 0. What it counted of its
    requests it then leaves to the next one in its place, if it answered all of them.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        live: Live,
        drain_s: float,
        lobby: Lobby,
        observations: Observations,
        handover: Handover,
    ) -> None:
        super().__init__(config)
        self.server_state = self._lobby = lobby
        self._live = live
        self._drain_s = drain_s
        self._taker: Taker | None = None
        self._observations = observations
        self._handover = handover
        self._place = 0
        self._all_answered = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end; a second SIGINT does not wait for requests."""
        if not self.should_exit:
            # A thread that never returns would hold up the interpreter's own end for ever.
            shutdown_s = self.config.timeout_graceful_shutdown or 0
            faulthandler.dump_traceback_later(self._drain_s + shutdown_s + PATIENCE_S, exit=True)
        elif sig == signal.SIGINT:
            self.force_exit = True
        self._live.draining = self._lobby.stopping = self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until a signal ends it."""
        sys.setswitchinterval(_SWITCH_S)
        super().run(sockets)

    def run_beside_others(self, listener: socket.socket, shares: Shares, place: int) -> None:
        """Serves, until a signal ends it, a fair part of the connections to a socket that several workers share."""
        self._place = place
        self._taker = Taker(listener, shares, place, self._new_connection)
        self._lobby.on_gone = self._taker.forget_one
        self.run(sockets=[])  # uvicorn itself takes none

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to serve."""
        self._observations.go_on_from(self._handover.take(self._place))
        await super().startup(sockets)
        if self._taker is not None:
            self._taker.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening after the time that load balancers are given, then ends every connection."""
        self._lobby.stopping = True
        for connection in self._connections:
            connection.answer_for_the_last_time()
        if not self.force_exit:
            await asyncio.sleep(self._drain_s)
        await self._stop_listening()
        patience_s = max(0.0, (self.config.timeout_graceful_shutdown or 0) - _LAST_WORDS_S)
        asyncio.get_running_loop().call_later(patience_s, self._cut_the_deaf)
        await super().shutdown(sockets)
        await self._cut_off()
        if self._all_answered and not self.force_exit:
            self._handover.leave(self._observations.end())

    async def _wait_tasks_to_complete(self) -> None:
        await super()._wait_tasks_to_complete()  # cancelled when the time is over: what was not answered is lacking
        self._all_answered = True

    @property
    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))

    def _cut_the_deaf(self) -> None:
        """Cuts off who does not read, so that the answers to them end by themselves."""
        for connection in self._connections:
            if connection.flow.write_paused:
                connection.cut()

    async def _stop_listening(self) -> None:
        """Stops listening; connections that the system took in our name are served: a mere close would reset them."""
        listening = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        if self._taker is not None:
            listening.append(self._taker.close())
        for server in self.servers:
            server.close()
        taken = []
        for listener in listening:
            with listener, suppress(BlockingIOError):
                for _ in range(self.config.backlog):
                    taken.append(listener.accept()[0])  # noqa: PERF401 - what was taken before it blocks is kept
        loop = asyncio.get_running_loop()
        for one in taken:
            await loop.connect_accepted_socket(self._new_connection, one)

    def _new_connection(self) -> asyncio.Protocol:
        create = cast(Any, self.config.http_protocol_class)
        return cast(
            asyncio.Protocol,
            create(config=self.config, server_state=self.server_state, app_state=self.lifespan.state),
        )

    async def _cut_off(self) -> None:
        """Lets the last answers be sent, then cuts the connections whose clients do not read them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self.force_exit else _LAST_WORDS_S):
                while self.server_state.tasks or self.server_state.connections:
                    await asyncio.sleep(0.02)
        for connection in self._connections:
            connection.cut()


def build_server(settings: Settings, registry: RegistryReader | None = None, *, clock: Clock | None = None) -> Server:
    """Returns a server that is not started yet.

    Args:
        settings: How it is configured.
        registry: Where versions come from; None for the MLflow registry at `settings.tracking_uri`.
        clock: The time; None for the machine's.

    Raises:
        ValueError: There is neither a registry nor an address of one.
    """
    app: FastAPI = create_app(settings, registry, clock=clock)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=cast(Any, partial(Connection, settings=_as_files_allow(settings), edge=app.state.edge)),
        lifespan="on",
        ws="none",
        server_header=False,
        access_log=False,
        log_level=settings.log_level,
        log_config=log_config(settings.log_level, settings.log_format),
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    observations: Observations = app.state.observations
    return Server(
        config,
        live=app.state.live,
        drain_s=settings.drain_s,
        lobby=Lobby(app.state.metrics.connection_cut, BusyPoll(settings.busy_poll_us / 1e6)),
        observations=observations,
        handover=Handover(settings.cache_dir / "handover", (settings.host, settings.port), observations.replica),
    )


def _as_files_allow(settings: Settings) -> Settings:
    """Returns the settings with no more connections than this process may open files; it first asks for as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, settings.max_connections + _SPARE_FILES)
    soft = max(soft, min(hard, settings.max_connections + _SPARE_FILES))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    allowed = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES)
    if allowed >= settings.max_connections:
        return settings
    _LOG.warning(
        "SERVING_MAX_CONNECTIONS is %d instead of %d: no more files may be open", allowed, settings.max_connections
    )
    return settings.model_copy(update={"max_connections": allowed})
