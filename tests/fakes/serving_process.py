"""A real server in processes of its own, over a fake registry.

It has routes more than the product: `/slow` and `/hang` work on a thread, as a prediction does, `/block` holds up
everything, as nothing in the product may, and `/pid` says which worker answers. With `FAKE_SPEED=30` its minutes take
two seconds.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.server import until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers.

    Attributes:
        process: The server, or the supervisor of its workers.
        log: Where its standard error goes.
    """

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout_s: float = 30.0) -> socket.socket:
        """Returns a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def worker_ids(self) -> list[int]:
        """Returns the process ids of the supervisor's workers."""
        return [
            int(word) for word in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def ended_within(self, seconds: float) -> float:
        """Waits until it is gone, and returns the seconds that this took."""
        begun = time.monotonic()
        self.process.wait(seconds)
        return time.monotonic() - begun


@contextmanager
def running_process(folder: Path, *, package: Path | None = None, **settings: Any) -> Iterator[Running]:
    """Yields a server that answers; what is left of it at the end is killed.

    Args:
        folder: Holds its cache and its log.
        package: Version 1 of the model `cancer`, in Production; None for a registry with nothing in it.
        settings: Fields of its `Settings`; without a port it has a free one.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = settings.pop("port", free.getsockname()[1])
    folder.mkdir(exist_ok=True, parents=True)
    given = {"port": port, "cache_dir": folder / "cache", "key_folder": folder / "keys", "refresh_s": 0.2, **settings}
    environment = os.environ | {f"SERVING_{name.upper()}": str(value) for name, value in given.items()}
    log = folder / "log"
    command = [sys.executable, "-m", "tests.fakes.serving_process", str(package or "")]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file)
    started = Running(process=process, port=port, log=log)
    try:
        until(lambda: _answers(started), within_s=90)
        yield started
    finally:
        workers = started.worker_ids() if process.poll() is None else []
        for pid in (process.pid, *workers):
            if process.poll() is None or pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _answers(started: Running) -> bool:
    assert started.process.poll() is None, started.log.read_text()
    try:
        return httpx.get(f"{started.url}/livez").status_code == 200
    except httpx.TransportError:
        return False


def main(package: str, *inherited: str) -> int:
    """Serves; returns the exit status."""
    from serving.settings import Settings
    from serving.workers import WRONG_CONFIGURATION, run_worker, supervise

    settings = Settings()
    if settings.workers > 1 and not inherited:
        return supervise(settings, [sys.executable, "-m", "tests.fakes.serving_process", package])
    from serving.server import build_server

    speed = os.environ.get("FAKE_SPEED")
    clock = None if speed is None else _QuickClock(float(speed))
    try:
        server = build_server(settings, _registry(package, settings.key_folder), clock=clock)
    except ValueError as error:  # as the product does
        print(f"serving: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return WRONG_CONFIGURATION
    app: Any = server.config.app

    async def block(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    app.add_api_route("/block", block)
    app.add_api_route("/slow", _sleep)
    app.add_api_route("/hang", lambda: _sleep(3600))
    app.add_api_route("/pid", os.getpid)
    if inherited:
        run_worker(server, inherited)
    else:
        server.run()
    return 0


class _QuickClock:
    """A `Clock` that is alike in all processes, and faster than others."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() * self._speed, UTC)


class _Empty:
    """A registry with nothing in it; unlike the fake, it imports nothing."""

    def models(self) -> list[str]:
        return []


def _registry(package: str, key_folder: Path) -> Any:
    if not package:
        return _Empty()
    from tests.fakes.registry import FakeRegistry, trust_signer

    trust_signer(key_folder)
    return FakeRegistry({("cancer", "1"): Path(package)}, aliases={("cancer", "production"): "1"})


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
