"""A real uvicorn over a real socket, on a thread of the test."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn

from release_platform.domain.ports import Clock, Registry
from serving.server import build_server
from serving.settings import Settings
from tests.fakes.registry import trust_signer

DEADLINE_S = 15.0


def settings_for(cache_dir: Path, **given: Any) -> Settings:
    """Returns settings for a test: a free port, a look at the registry each 50 ms."""
    quick: dict[str, Any] = {"port": 0, "refresh_s": 0.05, "startup_patience_s": 0.2, "log_level": "critical"}
    quick["key_folder"] = trust_signer(cache_dir.parent / "keys")
    return Settings(cache_dir=cache_dir, **(quick | given))


@contextmanager
def running(settings: Settings, registry: Registry, *, clock: Clock | None = None) -> Iterator[str]:
    """Yields the address of a server that listens; it is stopped at the end."""
    with on_a_thread(build_server(settings, registry, clock=clock)) as address:
        yield address


@contextmanager
def on_a_thread(server: uvicorn.Server) -> Iterator[str]:
    """Yields the address of a server that runs on a thread of its own; it is stopped at the end."""
    thread = Thread(target=server.run, name="server")
    thread.start()
    try:
        until(lambda: server.started)
        yield address_of(server)
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"


def address_of(server: uvicorn.Server) -> str:
    """Returns where a started server listens."""
    host, port = server.servers[0].sockets[0].getsockname()
    return f"http://{host}:{port}"


def until(holds: Callable[[], object], *, within_s: float = DEADLINE_S) -> None:
    """Waits until a condition holds; fails when it does not in time."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def until_version(client: httpx.Client, model: str, version: str) -> None:
    """Waits until a server answers with a version."""
    until(lambda: client.get(f"/v1/models/{model}").headers.get("x-model-version") == version)
