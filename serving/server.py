"""Runs the application on uvicorn, and ends it without losing a request."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from release_platform.domain.ports import RegistryReader
from serving.app import create_app
from serving.models import Live
from serving.settings import Settings

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Server(uvicorn.Server):
    """A uvicorn that first says that it is not ready, then stops listening, then lets requests end.

    SIGTERM and SIGINT are the orderly way to end it, so the process then exits with status 0.
    """

    def __init__(self, config: uvicorn.Config, *, live: Live, drain_s: float) -> None:
        super().__init__(config)
        self._live = live
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end; a second SIGINT does not wait for requests."""
        self._live.draining = True
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening after the time that load balancers are given."""
        if not self.force_exit:
            await asyncio.sleep(self._drain_s)
        await super().shutdown(sockets)


def build_server(settings: Settings, registry: RegistryReader | None = None) -> Server:
    """Returns a server that is not started yet.

    Raises:
        ValueError: There is neither a registry nor an address of one.
    """
    app: FastAPI = create_app(settings, registry)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        ws="none",
        server_header=False,
        access_log=settings.log_level == "debug",
        log_level=settings.log_level,
        log_config=_log_config(settings.log_level),
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    return Server(config, live=app.state.live, drain_s=settings.drain_s)


def _log_config(level: str) -> dict[str, object]:
    named = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": _FORMAT}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {"uvicorn": named, "uvicorn.error": {"level": level.upper()}, "serving": named},
    }
