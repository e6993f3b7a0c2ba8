"""The daemon that evaluates the sensor is killed inside a tick; started again, it promotes what was asked for, once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from release_platform.audit import observe
from release_platform.defs.promotion import REQUEST_TAG
from release_platform.domain.invariants import violations
from release_platform.domain.policy import RequestState
from release_platform.settings import shipped
from tests.chaos.seeds import only_at_length
from tests.chaos.sensor import FLAGS
from tests.fakes.server import until
from tests.integration.homes import BIN, ROOT, Home, environment_of, example, open_home, why

MODEL = "diabetes"
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 in Staging, and an open request for it."""
    folder = tmp_path_factory.mktemp("asked") / "home"
    with open_home(folder) as home, closing(home.services.store):
        result = home.release(example(MODEL))
        assert result.success, why(result)
        home.services.releases.request(MODEL, version="1", actor="ada", reason="good", request_id="q")
    return folder


@contextmanager
def started(home: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process; it and what it started are killed at the end."""
    environment = environment_of(home, DAGSTER_HOME=str(home / "dagster"))
    with (home / "process.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def state(home: Home) -> RequestState:
    return home.services.store.get_request("q").state


@only_at_length
@pytest.mark.timeout(600)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_request_is_promoted_once_although_the_daemon_is_killed_at(
    flag: str, asked_once: Path, tmp_path: Path
) -> None:
    with open_home(shutil.copytree(asked_once, tmp_path / "home")) as home, closing(home.services.store):
        with started(home.folder, sys.executable, "-m", "tests.chaos.sensor", flag) as sensor:
            assert sensor.wait(120) == KILLED
        assert state(home) is RequestState.OPEN
        os.environ["DAGSTER_HOME"] = str(home.services.settings.dagster_home)
        daemon = (str(BIN / "dagster-daemon"), "run", "-w", str(shipped("workspace.yaml")))
        with started(home.folder, *daemon):
            until(lambda: state(home) is not RequestState.OPEN, within_s=120)
            until(lambda: all(run.is_finished for run in promotions(home)), within_s=60)
        assert state(home) is RequestState.PROMOTED
        assert [run.status for run in promotions(home)] == [dg.DagsterRunStatus.SUCCESS]
        assert [row.request_id for row in home.services.store.ledger(MODEL)].count("q") == 1
        assert violations(observe(home.services.releases, MODEL)) == ()
    print(f"\nthe daemon killed at {flag}: promoted once, by one run")


def promotions(home: Home) -> list[dg.DagsterRun]:
    found = home.instance.get_runs(dg.RunsFilter(job_name="promote", tags={REQUEST_TAG: "q"}))
    return list(found)
