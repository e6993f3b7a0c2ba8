"""The registries that hold the contract: MLflow over SQLite, MLflow behind a server, its REST API, and the fake."""

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from mlflow import MlflowClient

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.mlflow_rest import RestRegistry
from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG
from release_platform.cli.dev import MLFLOW_ENV, mlflow_command
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import Registry, VersionRecord
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import until
from tests.integration.homes import free_port

MODEL = "cancer"
SPOILT = "spoilt"


class Kept(ABC):
    """A registry in which `MODEL` has versions 1 and 2, and what an outsider may do to it."""

    registry: Registry

    @abstractmethod
    def remove_file(self, version: str, path: str) -> None:
        """Deletes a file of a version behind the registry's back."""


class KeptInMemory(Kept):
    """The fake, over two folders."""

    def __init__(self, folder: Path) -> None:
        self._folders = {
            version: build_linear_classifier(folder / version, model=MODEL, n_rows=n_rows)
            for version, n_rows in (("1", 300), ("2", 400))
        }
        self.registry = FakeRegistry({(MODEL, version): place for version, place in self._folders.items()})

    def remove_file(self, version: str, path: str) -> None:
        (self._folders[version] / path).unlink()


class Claims:
    """Remembers nothing: each test opens its runs itself."""

    def find_tracked_run(self, dagster_run_id: str, model: str) -> str | None:
        return None

    def claim_tracked_run(self, dagster_run_id: str, model: str, mlflow_run_id: str) -> str:
        return mlflow_run_id

    def tracked_runs(self, dagster_run_id: str) -> list[tuple[str, str]]:
        return []


class KeptInMlflow(Kept):
    """A real MLflow, with versions registered as `release run` registers them."""

    def __init__(self, folder: Path, tracking_uri: str, model: str = MODEL) -> None:
        self.model = model
        self.registry = self.connect(tracking_uri)
        self.client = MlflowClient(tracking_uri)
        self.stored = folder / "artifacts"
        self.tracking = MlflowTracking(tracking_uri, self.artefact_root(), Claims())
        for key, n_rows in (("first", 300), ("second", 400)):
            self.register(build_linear_classifier(folder / model / key, model=model, n_rows=n_rows), key)
        self.client.create_registered_model(f"not_of_the_platform_{model}")

    def connect(self, tracking_uri: str) -> Registry:
        """Returns the registry under test."""
        return MlflowRegistry(tracking_uri)

    def artefact_root(self) -> str:
        """Returns where experiments keep their files."""
        return self.stored.as_uri()

    def log(self, package: Path) -> tuple[str, str, Manifest]:
        """Logs a package in a run; returns the run, the logged model and the manifest."""
        run_id = self.tracking.open_run(self.model, "dagster-run", {})
        manifest = manifest_of(package)
        return run_id, self.tracking.log_package(self.model, run_id, package, {}), manifest

    def register(self, package: Path, key: str) -> VersionRecord:
        """Logs and registers a package."""
        run_id, model_id, manifest = self.log(package)
        return MlflowRegistry(self.tracking.uri).register(
            model=self.model, model_id=model_id, run_id=run_id, manifest=manifest, key=key, tags={"made": key}
        )

    def remove_file(self, version: str, path: str) -> None:
        self.path_of(version, path).unlink()

    def path_of(self, version: str, path: str) -> Path:
        """Returns where the artefact storage has a file of a version."""
        location = self.client.get_model_version_download_uri(self.model, version)
        return self.stored / location.removeprefix(self.artefact_root()).lstrip("/") / path

    def set_tag(self, version: str, name: str, value: str) -> None:
        """Edits a tag, as anyone with access to MLflow can."""
        self.client.set_model_version_tag(self.model, version, name, value)

    def forge(self, version: str) -> None:
        """Edits the manifest, but not the digest of it."""
        manifest = json.loads(self.client.get_model_version(self.model, version).tags[MANIFEST_TAG])
        manifest[0]["sha256"] = "0" * 64
        self.set_tag(version, MANIFEST_TAG, json.dumps(manifest))

    def forget(self, version: str) -> None:
        """Takes the platform's tags away, so that it looks like a version that somebody else registered."""
        self.client.delete_model_version_tag(self.model, version, DIGEST_TAG)


class OverRest(RestRegistry):
    """Reads over REST; what it cannot do, it leaves to MLflow."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri)
        writer = MlflowRegistry(tracking_uri)
        self.set_alias, self.set_tag, self.remove = writer.set_alias, writer.set_tag, writer.remove


class KeptOverRest(KeptInMlflow):
    """A real MLflow server that hands its artefacts out itself, read over REST."""

    def connect(self, tracking_uri: str) -> Registry:
        return OverRest(tracking_uri)

    def artefact_root(self) -> str:
        return "mlflow-artifacts:"


@contextmanager
def mlflow_server(home: Path, port: int | None = None, *, proxied: bool = False) -> Iterator[str]:
    """Yields the address of an MLflow server that `release dev` would start over this home, on a free port if none.

    Args:
        home: Where its database and artefacts are.
        port: Where it listens.
        proxied: Whether it hands its artefacts out itself, as the one of `release dev` does not.
    """
    port = port or free_port()
    command = mlflow_command(home, port)
    if proxied:
        command[command.index("--default-artifact-root") :] = ["--artifacts-destination", str(home / "artifacts")]
    with mlflow_process(command, port, home / "server.log") as url:
        yield url


def proxying_command(port: int, database: str, artifacts: str) -> list[str]:
    """Returns how an MLflow server is started that hands out the artefacts of an object store itself."""
    listening = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    kept = ["--backend-store-uri", database, "--artifacts-destination", artifacts]
    return [sys.executable, "-m", "mlflow", "server", *listening, *kept]


@contextmanager
def mlflow_process(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """Yields the address of an MLflow server that a command starts at a port."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **MLFLOW_ENV, **environment}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(url), within_s=90)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def blank_mlflow(blank_home: Path, folder: Path) -> Path:
    """Returns a folder with an MLflow database in which nothing happened."""
    folder.mkdir()
    shutil.copyfile(blank_home / "mlflow.db", folder / "mlflow.db")
    return folder
