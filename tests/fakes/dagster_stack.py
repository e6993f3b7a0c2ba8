"""Dagster as the stack runs it: code server, daemon, and a writable and a read-only web server, each a real process."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.server import until
from tests.integration.homes import BIN, environment_of, free_port

LOCATION = "release_platform"
READY_S = 150


@dataclass(frozen=True)
class DagsterStack:
    """The addresses of the web servers, and where each process writes its log."""

    writable: str
    read_only: str
    logs: Path


@contextmanager
def running_dagster(home: Path, *, shared: Mapping[str, str], web: Mapping[str, str], code: Mapping[str, str]) -> Any:
    """Yields a Dagster over a home that was prepared.

    Args:
        home: The home.
        shared: Environment of every process but the read-only web server.
        web: What the writable web server is told besides.
        code: What the code server is told besides.
    """
    logs = home.parent / "logs"
    logs.mkdir()
    port, writable, read_only = free_port(), free_port(), free_port()
    workspace = home.parent / "workspace.yaml"
    workspace.write_text(
        f"load_from: [{{grpc_server: {{host: localhost, port: {port}, location_name: {LOCATION}}}}}]\n"
    )
    at = {"DAGSTER_HOME": str(home / "dagster")}
    serve = ["dagster-webserver", "-h", "127.0.0.1", "-w", str(workspace), "-p"]
    server = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(port), "-m", f"{LOCATION}.definitions"]
    with ExitStack() as processes:

        def start(name: str, command: list[str], ready: Callable[[], bool], **environment: str) -> None:
            processes.enter_context(
                running_process(logs / f"{name}.log", command, environment_of(home, **at, **environment), ready)
            )

        start("code", [*server, "--location-name", LOCATION], lambda: is_served(port), **shared, **code)
        start("daemon", ["dagster-daemon", "run", "-w", str(workspace)], lambda: True, **shared)
        start("writable", [*serve, str(writable)], lambda: answers(writable), **shared, **web)
        start("read-only", [*serve, str(read_only), "--read-only"], lambda: answers(read_only))
        yield DagsterStack(f"http://127.0.0.1:{writable}", f"http://127.0.0.1:{read_only}", logs)


@contextmanager
def running_process(
    log: Path, command: list[str], environment: dict[str, str], ready: Callable[[], bool]
) -> "Iterator[subprocess.Popen[bytes]]":
    """Yields one of Dagster's processes when it is ready, the first of a group of its own; it is stopped at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env=environment,
            cwd=log.parent,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)],
        )

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return ready()

    try:
        until(is_ready, within_s=READY_S)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_served(port: int) -> bool:
    """Returns whether a code server answers at a port."""
    from dagster._grpc.client import DagsterGrpcClient

    try:
        return DagsterGrpcClient(port=port, host="127.0.0.1").ping("x")["echo"] == "x"
    except Exception:  # noqa: BLE001 - whatever it is, it does not answer yet
        return False


def answers(port: int) -> bool:
    """Returns whether a web server answers at a port."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/server_info", timeout=5).is_success
    except httpx.TransportError:
        return False


def ask(url: str, query: str, variables: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Any]:
    """Returns what a web server answers to a GraphQL query."""
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables or {}}, timeout=60, **how)
    assert answer.status_code in {200, 400, 500}, (answer.status_code, answer.text)  # of its errors it says which
    return dict(answer.json())


LAUNCHED = """{ __typename
  ... on LaunchRunSuccess { run { runId } } ... on UnauthorizedError { message } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } }"""


def launch(url: str, job: str, config: Mapping[str, Any], *, tags: Mapping[str, str] | None = None, **how: Any) -> str:
    """Launches a job as the launchpad does, and returns the run's id."""
    given = {
        "selector": {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "jobName": job},
        "runConfigData": config,
        "mode": "default",
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]},
    }
    query = "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) " + LAUNCHED + "}"
    return _run_id(ask(url, query, {"p": given}, **how)["data"]["launchRun"])


def launch_again(url: str, run_id: str, **how: Any) -> str:
    """Executes a run again with its tags, as the button of its page does, and returns the new run's id."""
    given = {"parentRunId": run_id, "strategy": "ALL_STEPS", "useParentRunTags": True}
    query = "mutation($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) " + LAUNCHED + "}"
    return _run_id(ask(url, query, {"p": given}, **how)["data"]["launchRunReexecution"])


def _run_id(answer: dict[str, Any]) -> str:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])
