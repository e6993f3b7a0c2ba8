"""Runs whose process is killed: they fail, are retried once, and hold nobody up. Real daemon, code and web server."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG

from release_platform.defs.lost_runs import ALIVE_TAG, SILENT_S, beating, build_lost_runs, find_lost
from tests.fakes.dagster_stack import LOCATION, answers, ask, is_served, launch, running_process
from tests.fakes.server import until
from tests.integration.homes import ROOT, environment_of, free_port

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 120
JOBS = """
import os, time
from pathlib import Path
import dagster as dg
from release_platform.defs.lost_runs import build_lost_runs

def job(name, work):
    op = dg.op(name=f"{name}_op")(work)
    @dg.job(name=name, executor_def=dg.in_process_executor)
    def made():
        op()
    return made

def wait(context):
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.05)

def fail(context):
    raise ValueError("a gate did not pass")

defs = dg.Definitions(jobs=[job("waits", wait), job("fails", fail)], sensors=[build_lost_runs()])
"""


@dataclass(frozen=True)
class Platform:
    """A Dagster with the platform's `dagster.yaml`, whose code server can be killed."""

    instance: dg.DagsterInstance
    url: str
    go: Path
    start_code: "Callable[[], Popen[bytes]]"
    code: "list[Popen[bytes]]" = field(default_factory=list)

    def launch(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        return launch(self.url, job, {}, tags=tags)

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def until(self, run_id: str, status: dg.DagsterRunStatus) -> None:
        until(lambda: self.status(run_id) is status, within_s=PATIENCE_S)

    def tags(self, run_id: str) -> Mapping[str, str]:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags

    def process_of(self, run_id: str) -> int:
        """Returns the process that a run says to have."""
        said = [entry.message for entry in self.instance.all_logs(run_id) if "Started process for run" in entry.message]
        return int(said[0].split("pid: ")[1].rstrip(")."))

    def retry_of(self, run_id: str) -> dg.DagsterRun:
        """Returns the run that retries another one, when it is there."""

        def found() -> list[dg.DagsterRun]:
            return [run for run in self.instance.get_runs() if run.parent_run_id == run_id]

        until(found, within_s=PATIENCE_S)
        (retry,) = found()
        return retry

    def said(self, run_id: str) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("lost")
    home, port, web = folder / "dagster", free_port(), free_port()
    home.mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    (folder / "jobs.py").write_text(JOBS)
    (folder / "workspace.yaml").write_text(
        f"load_from: [{{grpc_server: {{host: localhost, port: {port}, location_name: {LOCATION}}}}}]\n"
    )
    environment = environment_of(folder, DAGSTER_HOME=str(home), GO=str(folder / "go"))
    serve = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(port), "-f", str(folder / "jobs.py")]
    with ExitStack() as processes:

        def start(name: str, command: list[str], ready: Callable[[], bool]) -> "Popen[bytes]":
            return processes.enter_context(running_process(folder / f"{name}.log", command, environment, ready))

        def start_code() -> "Popen[bytes]":
            return start("code", [*serve, "--location-name", LOCATION], lambda: is_served(port))

        workspace = ["-w", str(folder / "workspace.yaml")]
        code = start_code()
        start("daemon", ["dagster-daemon", "run", *workspace], lambda: True)
        start("web", ["dagster-webserver", "-h", "127.0.0.1", "-p", str(web), *workspace], lambda: answers(web))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Platform(instance, f"http://127.0.0.1:{web}", folder / "go", start_code, [code])


def test_a_run_whose_process_is_killed_is_retried_and_the_next_of_its_model_waits_no_longer(platform: Platform) -> None:
    platform.go.unlink(missing_ok=True)
    tags = {"release/model": "cancer"}
    first = platform.launch("waits", tags)
    platform.until(first, dg.DagsterRunStatus.STARTED)
    second = platform.launch("waits", tags)
    time.sleep(6)  # a look of the queue later
    assert platform.status(second) is dg.DagsterRunStatus.QUEUED, "one run of a model at a time"
    os.kill(platform.process_of(first), signal.SIGKILL)
    platform.until(first, dg.DagsterRunStatus.FAILURE)
    platform.go.touch()
    platform.until(second, dg.DagsterRunStatus.SUCCESS)
    platform.until(platform.retry_of(first).run_id, dg.DagsterRunStatus.SUCCESS)


def test_runs_are_failed_and_retried_once_when_their_code_server_was_killed_with_them(platform: Platform) -> None:
    platform.go.unlink(missing_ok=True)
    run_id = platform.launch("waits")
    platform.until(run_id, dg.DagsterRunStatus.STARTED)
    pid = platform.process_of(run_id)
    os.killpg(platform.code[0].pid, signal.SIGKILL)  # as a container that is killed
    until(lambda: not Path(f"/proc/{pid}").exists(), within_s=10)
    assert platform.status(run_id) is dg.DagsterRunStatus.STARTED, "nobody has said yet that it is gone"
    platform.code[0] = platform.start_code()
    platform.until(run_id, dg.DagsterRunStatus.FAILURE)
    assert f"Its process {pid} is gone" in platform.said(run_id)
    retry = platform.retry_of(run_id)
    platform.until(retry.run_id, dg.DagsterRunStatus.STARTED)
    os.kill(platform.process_of(retry.run_id), signal.SIGKILL)
    platform.until(retry.run_id, dg.DagsterRunStatus.FAILURE)
    until(lambda: platform.tags(retry.run_id).get("dagster/will_retry") == "false", within_s=PATIENCE_S)


def test_a_run_that_failed_by_itself_is_not_retried(platform: Platform) -> None:
    run_id = platform.launch("fails")
    platform.until(run_id, dg.DagsterRunStatus.FAILURE)
    until(
        lambda: "Not retrying run since it failed due to an asset or op failure" in platform.said(run_id), within_s=60
    )
    assert platform.tags(run_id)["dagster/will_retry"] == "false"


def test_a_run_goes_on_when_its_code_is_loaded_anew(platform: Platform) -> None:
    platform.go.unlink(missing_ok=True)
    run_id = platform.launch("waits")
    platform.until(run_id, dg.DagsterRunStatus.STARTED)
    query = "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
    said = ask(platform.url, query, {"name": LOCATION})["data"]["reloadRepositoryLocation"]["__typename"]
    assert said == "WorkspaceLocationEntry"
    assert find_lost(platform.instance, location=LOCATION) == {}
    platform.go.touch()
    platform.until(run_id, dg.DagsterRunStatus.SUCCESS)


def test_a_number_that_a_later_run_has_is_the_later_runs() -> None:
    """In a new container the numbers of processes begin anew."""
    place = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name=LOCATION)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(place, "__repository__"), "waits")
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    worker.start()
    assert worker.pid is not None
    with dg.DagsterInstance.ephemeral() as instance:
        for name, pid in {"earlier": worker.pid, "later": worker.pid, "of no run": os.getpid()}.items():
            run = dg.DagsterRun("waits", run_id=name, remote_job_origin=origin, tags={GRPC_INFO_TAG: "{}"})
            instance.add_run(run.with_status(dg.DagsterRunStatus.STARTED))
            instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
        assert set(find_lost(instance, location=LOCATION)) == {"earlier", "of no run"}
        assert find_lost(instance, location="another") == {}
        worker.kill()
        worker.join()
        assert "later" in find_lost(instance, location=LOCATION)


# Runs of the command line


def test_a_run_without_a_launcher_is_lost_when_it_says_no_more_that_it_goes_on() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        sensor = build_lost_runs()
        for name, ago_s in (("lost", SILENT_S + 5), ("alive", SILENT_S - 60)):
            run = dg.DagsterRun("release", run_id=name, tags={ALIVE_TAG: f"{time.time() - ago_s:.0f}"})
            instance.add_run(run.with_status(dg.DagsterRunStatus.STARTED))
        sensor(dg.build_sensor_context(instance))
        found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {"lost": dg.DagsterRunStatus.FAILURE, "alive": dg.DagsterRunStatus.STARTED}


def test_a_run_says_again_and_again_that_it_goes_on() -> None:
    with dg.DagsterInstance.ephemeral() as instance, beating(instance, "mine", every_s=0.01) as tags:
        instance.add_run(dg.DagsterRun("release", run_id="mine", tags={**tags, ALIVE_TAG: "0"}))

        def said() -> float:
            run = instance.get_run_by_id("mine")
            assert run is not None
            return float(run.tags[ALIVE_TAG])

        until(lambda: said() > 0, within_s=10)
        assert abs(said() - time.time()) < 5
