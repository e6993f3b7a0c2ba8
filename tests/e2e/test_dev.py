"""`release dev`: Dagster with its daemon, MLflow and serving together, used as an operator and a client would."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from dagster import DagsterRunStatus
from dagster_graphql import DagsterGraphQLClient
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from release_platform.adapters.release_store import ReleaseStore
from tests.integration.homes import BIN, environment_of, example, free_port

MODEL = "breast_cancer"
READY_S = 90
STOP_S = 20


@dataclass(frozen=True)
class Dev:
    """A running `release dev`."""

    process: subprocess.Popen[bytes]
    log: Path
    home: Path
    ports: dict[str, int]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    plant(folder)
    ports = {name: free_port() for name in ("dagster", "mlflow", "serving")}
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    log = folder / "dev.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / "release"), "dev", *options],
            env=environment_of(folder / "home", RELEASE_SERVING_URL=""),
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    started = Dev(process, log, folder / "home", ports)
    try:
        until(lambda: "Dagster   http" in log.read_text() or process.poll() is not None, within_s=READY_S)
        assert process.poll() is None, log.read_text()
        yield started
    finally:
        for child in family(process):
            child.kill()
        process.wait(10)


def plant(folder: Path) -> None:
    """Puts packages into a folder that end whoever imports them: a person's own folders may be called so."""
    for name in ("serving", "release_platform", "dagster", "dagster_webserver", "mlflow", "uvicorn", "fastapi"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('raise SystemExit(f"{__name__} of the current folder is imported")')


def until(holds: Callable[[], object], *, within_s: float) -> float:
    """Waits until a condition holds and returns how long it took, in seconds."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within_s, "it did not come true in time"
        time.sleep(0.1)
    return time.monotonic() - begun


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Returns a process and everything that it started, as far as it still runs."""
    try:
        parent = psutil.Process(process.pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def launch(dev: Dev, job: str, config: dict[str, Any] | None = None) -> str:
    """Launches a job through Dagster's GraphQL, as its web interface does, and waits until it succeeded."""
    client = DagsterGraphQLClient("127.0.0.1", port_number=dev.ports["dagster"])
    run_id = client.submit_job_execution(job, run_config=config or {})
    ended = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
    until(lambda: client.get_run_status(run_id) in ended, within_s=60)
    assert client.get_run_status(run_id) is DagsterRunStatus.SUCCESS
    return run_id


def served_version(dev: Dev) -> str | None:
    return httpx.get(f"{dev.url('serving')}/v1/models/{MODEL}").headers.get("x-model-version")


def test_all_three_answer_and_are_announced_with_their_addresses(dev: Dev) -> None:
    assert httpx.get(f"{dev.url('dagster')}/server_info").json()["dagster_webserver_version"]
    assert httpx.get(f"{dev.url('mlflow')}/health").text == "OK"
    assert httpx.get(f"{dev.url('serving')}/livez").status_code == 200
    assert httpx.get(f"{dev.url('serving')}/docs").status_code == 200
    said = dev.log.read_text()
    assert all(dev.url(name) in said for name in dev.ports)


def test_a_port_that_is_taken_is_named_before_anything_starts(dev: Dev) -> None:
    done = subprocess.run(
        [str(BIN / "release"), "dev", "--mlflow-port", str(dev.ports["mlflow"]), "--dagster-port", str(free_port())],
        env=environment_of(dev.home.parent / "other"),
        cwd=dev.home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert f"port {dev.ports['mlflow']} is taken" in done.stderr
    assert "--mlflow-port" in done.stderr


def test_a_model_is_released_promoted_and_served_by_what_runs_in_the_background(dev: Dev) -> None:
    # Given a release that an operator launched in the web interface
    run_id = launch(dev, f"release_{MODEL}")
    store = ReleaseStore(f"sqlite:///{dev.home / 'release.db'}")
    (registration,) = store.registrations(MODEL)
    assert registration.dagster_run_id == run_id
    assert served_version(dev) is None

    # When somebody asks for its promotion
    form = {"model": MODEL, "actor": "ada", "reason": "first release", "request_id": "q"}
    launch(dev, "request_promotion", {"ops": {"open_request": {"config": form}}})

    # Then the daemon's sensor promotes it, once
    until(lambda: store.head(MODEL).production == "1", within_s=60)
    (row,) = [row for row in store.ledger(MODEL) if row.move == "promoted"]
    assert (row.actor, row.reason, row.request_id) == ("ada", "first release", "q")

    # and serving picks it up by itself and answers
    until(lambda: served_version(dev) == "1", within_s=20)
    rows = [dict.fromkeys((name for name in _inputs(dev)), 1.0)]
    answer = httpx.post(f"{dev.url('serving')}/v1/models/{MODEL}/predict", json={"rows": rows}).json()
    assert (answer["model"], answer["version"], answer["digest"]) == (MODEL, "1", registration.digest)

    # and the release's MLflow run was closed by the sensor, on the server, with artefacts in the home
    client = MlflowClient(dev.url("mlflow"))
    until(lambda: client.get_run(registration.mlflow_run_id).info.status == "FINISHED", within_s=30)
    assert str(client.get_run(registration.mlflow_run_id).info.artifact_uri).startswith(dev.home.as_uri())
    store.close()


def _inputs(dev: Dev) -> list[str]:
    described = httpx.get(f"{dev.url('serving')}/v1/models/{MODEL}").json()
    return [column["name"] for column in described["inputs"]]


def test_the_command_line_uses_the_same_servers_and_lets_the_sensor_decide(dev: Dev) -> None:
    made = release(dev, "run", MODEL, "--json")
    assert made["version"] == "2"
    row = release(dev, "promote", MODEL, "--reason", "second", "--actor", "grace", "--json")
    assert (row["version"], row["actor"], row["before"]["production"]) == ("2", "grace", "1")
    until(lambda: served_version(dev) == "2", within_s=20)
    assert httpx.get(f"{dev.url('serving')}/v1/models/{MODEL}").json()["digest"] == made["digest"]


def release(dev: Dev, *arguments: str) -> Any:
    """Runs a command beside the servers and returns the JSON that it printed."""
    done = subprocess.run(
        [str(BIN / "release"), *arguments],
        env=environment_of(dev.home, RELEASE_MLFLOW_TRACKING_URI=dev.url("mlflow")),
        cwd=dev.home.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_operator_launches_a_promotion_in_the_web_interface(dev: Dev, page: Page) -> None:
    # Given a version in Staging, and the form of the job
    version = release(dev, "run", MODEL, "--json")["version"]
    page.goto(f"{dev.url('dagster')}/locations/release_platform/jobs/request_promotion/playground")
    expect(page.get_by_text("Missing required config entries")).to_be_visible()

    # When an operator fills it in and launches it
    form = {"model": MODEL, "actor": "edsger", "reason": "looked at in the browser"}
    page.locator(".CodeMirror").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(yaml.safe_dump({"ops": {"open_request": {"config": form}}}))
    page.get_by_role("button", name="Launch Run").click()

    # Then the sensor promotes it, and the asset shows who asked for it, and why
    store = ReleaseStore(f"sqlite:///{dev.home / 'release.db'}")
    until(lambda: store.head(MODEL).production == version, within_s=60)
    store.close()
    said = f"promoted: version {version}, by edsger: looked at in the browser"
    until(lambda: shows(page, f"{dev.url('dagster')}/assets/{MODEL}/production_version?view=events", said), within_s=60)


def shows(page: Page, url: str, text: str) -> bool:
    page.goto(url)
    page.wait_for_load_state("networkidle")
    return page.get_by_text(text).count() > 0


def test_a_data_scientist_reads_the_quality_gates_in_the_web_interface(dev: Dev, page: Page) -> None:
    page.goto(f"{dev.url('dagster')}/assets/{MODEL}/evaluation_report?view=checks")
    for gate in example(MODEL).spec.every_gate:
        expect(page.get_by_text(gate.name, exact=True).first).to_be_visible()
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    assert page.get_by_text("Failed").count() == 0
    page.goto(f"{dev.url('dagster')}/locations/release_platform/asset-groups/{MODEL}")
    for asset in ("raw_data", "features", "trained_model", "evaluation_report", "registered_version"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()


def test_a_client_tries_the_server_in_its_documentation(dev: Dev, page: Page) -> None:
    page.goto(f"{dev.url('serving')}/docs")
    operation = page.locator(".opblock", has_text=f"/v1/models/{MODEL}/predict").first
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer).to_contain_text('"prediction_id"')
    expect(answer).to_contain_text("x-model-route: stable")


def test_one_interrupt_stops_all_and_leaves_no_process_behind(dev: Dev) -> None:
    members = family(dev.process)
    assert len(members) > 5
    os.kill(dev.process.pid, signal.SIGINT)
    took = until(lambda: dev.process.poll() is not None, within_s=STOP_S)
    assert dev.process.returncode == 0, dev.log.read_text()
    until(lambda: not alive(members), within_s=max(0.1, STOP_S - took))
    for name in dev.ports:
        with pytest.raises(httpx.TransportError):
            httpx.get(dev.url(name))
    assert not re.search(r"Traceback", dev.log.read_text())
