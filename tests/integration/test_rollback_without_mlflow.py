"""A rollback while MLflow is down: a real MLflow server is killed, a real server process answers over its socket."""

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.registries import mlflow_server
from tests.fakes.server import until
from tests.integration.homes import ROOT, Command, Done, environment_of, free_port, open_home, release_in, warm_release

MODEL = "breast_cancer"
NOBODY = "http://127.0.0.1:1"
_LOG = logging.getLogger(__name__)


@dataclass
class Platform:
    """A home, the addresses of its MLflow and of its server, and what runs `release` on it."""

    home: Path
    command: Command
    mlflow_port: int = field(default_factory=free_port)
    serving_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.serving_port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RELEASE_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}",
            "RELEASE_SERVING_URL": f"{self.url},{NOBODY}",
        }

    def release(self, *arguments: str) -> Done:
        return self.command(self.home, *arguments, **self.environment)

    def live(self) -> dict[str, Any]:
        """Returns what `/status` says of the model."""
        return dict(httpx.get(f"{self.url}/status").json()["models"].get(MODEL) or {})

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez").is_success
        except httpx.TransportError:
            return False

    def serves(self, version: str, epoch: int) -> bool:
        found = self.live()
        return (found.get("version"), found.get("epoch")) == (version, epoch)

    def is_confirmed(self) -> bool:
        return self.live()["origin"] == "registry" and self.live()["refusal"] is None

    def mlflow(self) -> Any:
        return mlflow_server(self.home, self.mlflow_port)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Runs a server until the end of the block, and kills it then."""
        environment = environment_of(self.home) | {
            "SERVING_TRACKING_URI": self.environment["RELEASE_MLFLOW_TRACKING_URI"],
            "SERVING_PORT": str(self.serving_port),
            "SERVING_CACHE_DIR": str(self.home / "serving"),
            "SERVING_KEY_FOLDER": str(self.home / "keys"),
            "SERVING_STARTUP_PATIENCE_S": "1",
        }
        with (self.home / "serving.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "serving"], env=environment, cwd=ROOT, stderr=log)
        try:
            until(self.answers, within_s=60)
            yield
        finally:
            process.kill()
            process.wait(10)


class Asking:
    """A client that asks for a prediction again and again, and keeps when each epoch answered first."""

    def __init__(self, url: str) -> None:
        self.first: dict[tuple[str, int], datetime] = {}
        self.statuses: set[int] = set()
        self._url = f"{url}/v1/models/{MODEL}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client() as client:
            row = client.get(self._url).json()["example"]
            while not self._stop.is_set():
                answer = client.post(f"{self._url}/predict", json=row)
                self.statuses.add(answer.status_code)
                self.first.setdefault((answer.json()["version"], answer.json()["epoch"]), datetime.now(UTC))
                time.sleep(0.005)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """Version 1 in Production and version 2 in Staging."""
    with open_home(tmp_path / "home"):
        pass
    with warm_release() as command:
        made = Platform(tmp_path / "home", command)
        with made.mlflow():
            assert made.release("run", MODEL).exit_code == 0
            assert made.release("promote", MODEL, "--reason", "first").exit_code == 0
            assert made.release("run", MODEL).exit_code == 0
        yield made


def test_a_rollback_takes_effect_at_once_survives_a_restart_and_the_registry_follows(platform: Platform) -> None:
    # Given version 1, then version 2, in Production of a server that met both
    with platform.serving():
        with platform.mlflow():
            until(lambda: platform.serves("1", 2), within_s=30)
            promoted = platform.release("promote", MODEL, "--reason", "better")
            assert f"{platform.url}: serves version 2 since epoch 4" in promoted.out
            assert f"{NOBODY}: does not answer; it follows when it reaches the registry" in promoted.out
            until(platform.is_confirmed)
            one, all_of_them = (platform.release("verify", MODEL, *given) for given in (("--url", platform.url), ()))
            assert one.exit_code == 0, one.err
            assert all_of_them.exit_code == 6
            assert re.search(rf"passed: {MODEL} version 2 of epoch \d+ at {platform.url}", all_of_them.out)
            assert NOBODY in all_of_them.err

        # When MLflow was killed, and an operator rolls back
        with Asking(platform.url) as asking:
            until(lambda: ("2", 4) in asking.first)
            begun = datetime.now(UTC)
            rollback = ("rollback", MODEL, "--actor", "ada", "--reason", "errors", "--json")
            done = release_in(platform.home, *rollback, **platform.environment)
            ended = datetime.now(UTC)
            assert done.exit_code == 0, done.err
            row = done.json
            until(lambda: ("1", 5) in asking.first, within_s=2)

        # Then version 1 answered within 2 s of the committed move, and no request failed
        committed = datetime.fromisoformat(row["at"])
        answered = asking.first["1", 5]
        _LOG.info(
            "from the commit %.3f s, from the start of the command %.2f s, the command took %.2f s",
            *(span.total_seconds() for span in (answered - committed, answered - begun, ended - begun)),
        )
        assert (row["version"], row["epoch"]) == ("1", 5)
        assert (answered - committed).total_seconds() < 2
        assert asking.statuses == {200}
        assert f"{platform.url}: serves version 1 since epoch 5" in row["servers"]
        assert platform.live()["origin"] == "push"
        assert httpx.get(f"{platform.url}/readyz").status_code == 200

    # And after a restart without MLflow
    with platform.serving():
        until(lambda: platform.serves("1", 5), within_s=30)
        assert platform.live()["origin"] == "disk"

        # And when MLflow is back it is behind, which takes nothing back, until the aliases follow
        with platform.mlflow(), Asking(platform.url) as asking:
            until(lambda: (platform.live()["refusal"] or {}).get("kind") == "Behind", within_s=30)
            assert 'serving_model_refused{model="breast_cancer"} 0.0' in httpx.get(f"{platform.url}/metrics").text
            assert reconciled(platform) == ()
            until(platform.is_confirmed, within_s=30)
            assert set(asking.first) == {("1", 5)}
            assert asking.statuses == {200}
            assert platform.release("verify", MODEL, "--url", platform.url).exit_code == 0


def reconciled(platform: Platform) -> tuple[str, ...]:
    """Does what the sensor does, and returns the faults that it found."""
    with open_home(platform.home) as home, pytest.MonkeyPatch.context() as environment:
        environment.setenv("RELEASE_MLFLOW_TRACKING_URI", platform.environment["RELEASE_MLFLOW_TRACKING_URI"])
        services = type(home.services)(type(home.services.settings)())
        try:
            return services.releases.projection.reconcile(MODEL, undo=True)
        finally:
            services.store.close()
