"""The proxy of the stack for people: a real HAProxy over `deploy/proxy/people.cfg`, in front of what a test runs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.server import until
from tests.integration.homes import ROOT, free_port

SECRET = "outer-proxy-secret-of-a-test-0123456789abcdef"
NOBODY = "127.0.0.1:1"
NOT_HERE = "HAPROXY IS NOT ON THIS MACHINE: nothing shows here what the proxy lets through (apt-get install haproxy)"
# What `haproxy.cfg` of the stack holds that `people.cfg` builds on.
_BASE = """
global
  maxconn 400
resolvers docker
  nameserver dns 127.0.0.1:53
defaults base
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 120s
  timeout http-request 10s
"""


@dataclass(frozen=True)
class Proxy:
    """The addresses of a running proxy."""

    dagster: str
    mlflow: str
    api: str


@contextmanager
def running_proxy(
    folder: Path,
    *,
    api: str = NOBODY,
    mlflow: str = NOBODY,
    dagster_read: str = NOBODY,
    dagster_write: str = NOBODY,
    **more: str,
) -> Iterator[Proxy]:
    """Yields a proxy in front of these hosts and ports; skips the test, loudly, where there is no HAProxy."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(NOT_HERE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.cfg").write_text(_BASE)
    ports = {name: free_port() for name in ("DAGSTER", "MLFLOW", "API", "PROMETHEUS")}
    environment = {
        **{f"BIND_{name}": f"127.0.0.1:{port}" for name, port in ports.items()},
        "API": api,
        "MLFLOW": mlflow,
        "PROMETHEUS": NOBODY,
        "DAGSTER_READ": dagster_read,
        "DAGSTER_WRITE": dagster_write,
        "WHOAMI_URL": f"http://{api}/v1/whoami",
        "PROXY_FILES": str(ROOT / "deploy" / "proxy"),
        "PROXY_SHARED_SECRET": SECRET,
        "PROXY_HOSTS": "localhost",
        **more,
    }
    command = [program, "-db", "-f", str(folder / "base.cfg"), "-f", str(ROOT / "deploy/proxy/people.cfg")]
    log = folder / "haproxy.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=file,
            stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        )
    try:
        until(lambda: _listens(process, ports["MLFLOW"], log), within_s=30)
        yield Proxy(*(f"http://127.0.0.1:{ports[name]}" for name in ("DAGSTER", "MLFLOW", "API")))
    finally:
        process.terminate()
        process.wait(10)


def _listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
    except httpx.TransportError:
        return False
    return True
