"""`RELEASE_PROFILE=local release dev`: a real PostgreSQL and a real S3 server, stopped and started again."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from mlflow import MlflowClient

from release_platform.profiles import SERVERS
from tests.e2e.test_dev import MODEL, READY_S, STOP_S, Dev, alive, family, launch, served_version, until
from tests.integration.homes import BIN, environment_of, free_port, release_in

LOCAL = {"RELEASE_PROFILE": "local"}


@contextmanager
def running_dev(folder: Path) -> Iterator[Dev]:
    ports = {name: free_port() for name in ("dagster", "mlflow", "serving")} | {"object-store": free_s3_port()}
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    log = folder / f"dev-{ports['object-store']}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / "release"), "dev", *options],
            env=environment_of(folder / "home", RELEASE_SERVING_URL="", **LOCAL),
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: "Dagster   http" in log.read_text() or process.poll() is not None, within_s=2 * READY_S)
        assert process.poll() is None, log.read_text()
        yield Dev(process, log, folder / "home", ports)
    finally:
        for child in family(process) + postgres_in(folder):
            child.kill()
        process.wait(10)


def free_s3_port() -> int:
    """Returns a free port below those that its gRPC twin may not have."""
    return next(port for port in (free_port() - 10_000 for _ in range(100)) if 20_000 < port < 50_000)


def postgres_in(folder: Path) -> list[psutil.Process]:
    """Returns the PostgreSQL servers whose data is in a folder; they are no children of who started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and any(str(folder) in text for text in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def interrupt(dev: Dev) -> None:
    members = family(dev.process) + postgres_in(dev.home)
    assert any(process.name() == "postgres" for process in members)
    os.kill(dev.process.pid, signal.SIGINT)
    until(lambda: dev.process.poll() is not None, within_s=2 * STOP_S)
    assert dev.process.returncode == 0, dev.log.read_text()
    until(lambda: not alive(members), within_s=STOP_S)
    assert postgres_in(dev.home) == []
    assert not (dev.home / "local" / SERVERS).exists()


def test_a_release_on_real_servers_survives_a_stop(tmp_path: Path) -> None:
    # Given a release and a promotion through Dagster, on PostgreSQL and S3
    with running_dev(tmp_path) as dev:
        assert "profile local" in dev.log.read_text()
        launch(dev, f"release_{MODEL}")
        form = {"model": MODEL, "actor": "ada", "reason": "first release"}
        launch(dev, "request_promotion", {"ops": {"open_request": {"config": form}}})
        until(lambda: served_version(dev) == "1", within_s=60)
        status = release_in(dev.home, "status", MODEL, **LOCAL)
        assert status.exit_code == 0, status.err
        assert "profile local" in status.err
        assert "production: 1" in status.out
        version = MlflowClient(dev.url("mlflow")).get_model_version(MODEL, "1")
        artifacts = MlflowClient(dev.url("mlflow")).get_run(str(version.run_id)).info.artifact_uri
        assert str(artifacts).startswith("mlflow-artifacts:")
        assert list((dev.home / "local").rglob("*.db")) == []  # nothing fell back to SQLite
        assert not (dev.home / "release.db").exists()

        # When it is stopped
        interrupt(dev)
        with_nothing = release_in(dev.home, "status", MODEL, **LOCAL)
        assert with_nothing.exit_code == 6
        assert "RELEASE_PROFILE=local release dev" in with_nothing.err

    # Then all is still there when it is started again, on other ports
    with running_dev(tmp_path) as dev:
        until(lambda: served_version(dev) == "1", within_s=60)
        verified = release_in(dev.home, "verify", MODEL, "--url", dev.url("serving"), **LOCAL)
        assert verified.exit_code == 0, verified.err
        assert (
            httpx.get(f"http://127.0.0.1:{dev.ports['object-store']}/release/").status_code == 403
        )  # not without the key
        interrupt(dev)
