"""A stack of its own: a project name, ports, secrets and volumes that no other stack on this machine has."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from dagster import DagsterRunStatus
from dagster_graphql import DagsterGraphQLClient
from requests.auth import HTTPBasicAuth

from tests.integration.homes import ROOT, free_port

MINIO = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
SEAWEEDFS = "docker-compose.yml:deploy/compose.seaweedfs.yml"
PORTS = ("DAGSTER_PORT", "MLFLOW_PORT", "SERVING_PORT", "CONSOLE_PORT", "PROMETHEUS_PORT", "API_PORT")
PATIENCE_S = 240
_ENDED = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


@dataclass(frozen=True)
class Stack:
    """A running stack: where its settings are, and what its containers are called."""

    env_file: Path
    project: str
    seconds_to_healthy: float

    @cached_property
    def settings(self) -> dict[str, str]:
        lines = self.env_file.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    @property
    def operator(self) -> tuple[str, str]:
        return self.settings["OPERATOR_NAME"], self.settings["OPERATOR_KEY"]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.settings[f'{name.upper()}_PORT']}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Runs `docker compose` on this stack and returns what it printed."""
        done = subprocess.run(
            ["docker", "compose", "--env-file", str(self.env_file), *arguments],
            cwd=ROOT,
            env=environment(self.project),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + (done.stderr if not check else "")

    def kill(self, service: str) -> None:
        """Ends a server at once, as a crash does."""
        self.compose("kill", service)

    def start(self, service: str) -> None:
        """Starts that very container again, and no other."""
        subprocess.run(["docker", "start", self.containers()[service]["Id"]], check=True, stdout=subprocess.DEVNULL)

    def make(self, target: str, *, fails: bool = False, **variables: str) -> str:
        """Runs a target of the Makefile, as a user does, and returns what it printed."""
        return make(target, self.env_file, self.project, fails=fails, **variables)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Returns what Docker says of each container, by service; one-off jobs that ended are among them."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(subprocess.check_output(["docker", "inspect", *ids], text=True))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def servers(self) -> dict[str, dict[str, Any]]:
        """Returns the containers that run on."""
        return {
            name: one
            for name, one in self.containers().items()
            if one["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        }

    def wait_until_well(self, *services: str) -> None:
        """Waits until these services are healthy; all that run on when none is named."""

        def all_well() -> bool:
            health = {name: one["State"].get("Health", {}).get("Status") for name, one in self.servers().items()}
            return all(health[name] == "healthy" for name in services or health)

        until(all_well, within_s=PATIENCE_S)

    def sql(self, role: str, database: str, statement: str) -> str:
        """Runs a statement over TCP as a role with its password, and returns what psql says, errors included."""
        password = self.settings[f"{role.upper()}_PASSWORD"]
        address = f"postgresql://{role}:{password}@127.0.0.1/{database}"
        return self.compose("exec", "-T", "postgres", "psql", "-X", "-A", "-t", address, "-c", statement, check=False)

    def launch(self, job: str, config: Mapping[str, Any] | None = None) -> str:
        """Launches a job by Dagster's GraphQL as a signed-in operator does in the browser; returns the run's id."""
        client = DagsterGraphQLClient(
            "127.0.0.1",
            port_number=int(self.settings["DAGSTER_PORT"]),
            auth=HTTPBasicAuth(*self.operator),
            timeout=120,
        )
        run_id = client.submit_job_execution(job, run_config=dict(config or {}))
        until(lambda: client.get_run_status(run_id) in _ENDED, within_s=PATIENCE_S)
        assert client.get_run_status(run_id) is DagsterRunStatus.SUCCESS, self.compose("logs", "dagster-code")[-5000:]
        return run_id

    @property
    def shown(self) -> dict[str, str]:
        """The header that shows the platform's own API key to serving."""
        return {"authorization": f"Bearer {self.settings['SERVING_KEY']}"}

    def served(self, model: str) -> str | None:
        """Returns the version that answers through the proxy."""
        answer = httpx.get(f"{self.url('serving')}/v1/models/{model}", headers=self.shown, timeout=60)
        return answer.headers.get("x-model-version")


def until(holds: Any, *, within_s: float) -> float:
    """Waits until a condition holds and returns how long it took, in seconds."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within_s, "it did not come true in time"
        time.sleep(0.5)
    return time.monotonic() - begun


def environment(project: str) -> dict[str, str]:
    """Returns the environment of a stack's commands: nothing of this process may stand in for its settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PIP_INDEX_URL", "DOCKER_HOST") if name in os.environ}
    return kept | {"COMPOSE_PROJECT_NAME": project}


def make(target: str, env_file: Path, project: str, *, fails: bool = False, **variables: str) -> str:
    """Runs a target of the Makefile for a stack, which must succeed, or must fail."""
    done = subprocess.run(
        ["make", "--no-print-directory", target, f"ENV_FILE={env_file}", *(f"{k}={v}" for k, v in variables.items())],
        cwd=ROOT,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def has_minio() -> bool:
    """Whether MinIO's image is here or can be pulled."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    return any(
        subprocess.run(["docker", *arguments, MINIO], **quiet).returncode == 0
        for arguments in (["image", "inspect"], ["pull", "--quiet"])
    )


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Yields a stack that is up, and takes it down again with everything that it kept."""
    env_file, project = folder / ".env", f"e2e{os.getpid()}"
    subprocess.run([str(ROOT / "deploy/write-env"), str(env_file)], check=True)
    changes = {name: str(free_port()) for name in PORTS}
    if not has_minio():
        print("\nMinIO's image cannot be had on this machine: the stack runs on SeaweedFS instead")
        changes["COMPOSE_FILE"] = SEAWEEDFS
    text = env_file.read_text()
    for name, value in changes.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    env_file.write_text(text)
    begun = time.monotonic()
    try:
        make("up", env_file, project)
        seconds = time.monotonic() - begun
        print(f"\nfrom `make up` to all healthy: {seconds:.0f} s")
        yield Stack(env_file, project, seconds)
    finally:
        subprocess.run(
            ["docker", "compose", "--env-file", str(env_file), "--profile", "*", "down", "--volumes", "--timeout", "5"],
            cwd=ROOT,
            env=environment(project),
            check=True,
        )
