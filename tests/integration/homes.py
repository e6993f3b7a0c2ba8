"""Platforms of their own: Dagster, MLflow, release store and snapshots in one folder, everything real."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from release_platform.component import build_model
from release_platform.definitions import EXAMPLES, load_projects
from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import build_jobs, build_run_closers, build_sensor
from release_platform.defs.resources import Platform, Records, latest_record
from release_platform.defs.rollout import build_rollout_job, build_rollout_sensor
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.policy import Registration
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}


@cache
def example(name: str) -> Project:
    """Returns one of the examples."""
    return load_projects(EXAMPLES)[name]


def changed(project: Project, **attributes: Any) -> Project:
    """Returns a project with other attributes in its spec."""
    return replace(project, spec=replace(project.spec, **attributes))


def with_gate(project: Project, **gate: Any) -> Project:
    """Returns a project with one gate more."""
    return changed(project, gates=(*project.spec.gates, GateSpec(**gate)))


def free_port() -> int:
    """Returns a port on the loopback interface that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment_of(folder: Path, **more: str) -> dict[str, str]:
    """Returns the environment of a process whose platform lives in a folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RELEASE_", "DAGSTER_", "MLFLOW_", "SERVING_"))}
    nobody = {"RELEASE_SERVING_URL": os.environ["RELEASE_SERVING_URL"]}  # that of tests/conftest.py
    return kept | QUIET | nobody | {"RELEASE_HOME": str(folder), "PYTHONPATH": str(ROOT)} | more


@dataclass(frozen=True)
class Home:
    """One platform: its folder, its Dagster instance, and its services."""

    folder: Path
    instance: dg.DagsterInstance
    services: Services = field(default_factory=lambda: Services(Settings()))

    def definitions(self, *projects: Project) -> dg.Definitions:
        """Returns the definitions of a code location with these models."""
        named = {project.spec.name: project for project in projects}
        jobs = build_jobs(named)
        promote = next(job for job in jobs if job.name == "promote")
        return dg.Definitions.merge(
            *(build_model(project) for project in projects),
            dg.Definitions(
                jobs=[*jobs, build_rollout_job(named)],
                sensors=[build_sensor(named, promote), build_rollout_sensor(named), *build_run_closers()],
                resources={"platform": Platform(), "records": Records()},
                executor=dg.in_process_executor,
            ),
        )

    def release(self, project: Project, **run: Any) -> dg.ExecuteInProcessResult:
        """Runs the release job of a model to its end, whatever that is."""
        job = self.definitions(project).resolve_job_def(f"release_{project.spec.name}")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, **run)

    def launch(self, job: str, project: Project, *, tags: Mapping[str, str] | None = None, **form: Any) -> Any:
        """Runs one of the operator's jobs with its form filled in."""
        made = self.definitions(project).resolve_job_def(job)
        (op,) = made.nodes
        return made.execute_in_process(
            run_config={"ops": {op.name: {"config": form}}},
            instance=self.instance,
            raise_on_error=False,
            tags=dict(tags or {}),
        )

    def materialize(
        self, project: Project, *stages: str, checks: bool = True, days: Sequence[date] = ()
    ) -> dg.ExecuteInProcessResult:
        """Materializes only these stages of a model; of stages by day these days, which follow one another."""
        wanted = dg.AssetSelection.assets(*(asset_key(project.spec.name, stage) for stage in stages))
        job = dg.define_asset_job("chosen", wanted if checks else wanted.without_checks())
        location = dg.Definitions.merge(self.definitions(project), dg.Definitions(jobs=[job]))
        ends = (days[0].isoformat(), days[-1].isoformat()) if days else ()
        tags = dict(zip((ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG), ends, strict=False))
        return location.resolve_job_def("chosen").execute_in_process(
            instance=self.instance, raise_on_error=False, tags=tags
        )

    def registrations(self, project: Project) -> tuple[Registration, ...]:
        """Returns all registered versions of a model, oldest first."""
        return self.services.store.registrations(project.spec.name)

    def record(self, project: Project, stage: str) -> Any:
        """Returns the newest record of a stage."""
        return latest_record(self.instance, asset_key(project.spec.name, stage))[0]

    def materialization(self, project: Project, stage: str) -> dg.AssetMaterialization:
        """Returns the newest materialization of a stage."""
        found = self.instance.get_latest_materialization_event(asset_key(project.spec.name, stage))
        assert found is not None
        assert found.asset_materialization is not None
        return found.asset_materialization


def why(result: dg.ExecuteInProcessResult) -> str:
    """Returns what stopped a run, the causes of each failed step included."""
    said = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None:
                said.append(error.message)
                error = error.cause
    return "\n".join(said)


@contextmanager
def open_home(folder: Path) -> Iterator[Home]:
    """Yields the platform of a folder, made there unless it is there already; the environment points to it."""
    if not folder.exists():
        shutil.copytree(blank_home(), folder)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RELEASE_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI", "DAGSTER_HOME"):
            environment.setenv(name, "")  # so that whatever is written there later is taken back
            environment.delenv(name)
        environment.setenv("RELEASE_HOME", str(folder))
        Settings().prepare()
        with dg.DagsterInstance.get() as instance:
            yield Home(folder, instance)


@cache
def blank_home() -> Path:
    """Returns a home in which nothing happened: databases are made once, and copied for each test that needs one."""
    made = TemporaryDirectory(prefix="home")
    _kept.append(made)
    folder = Path(made.name) / "home"
    folder.mkdir()
    with open_home(folder) as home:
        home.services.store.close()
        home.services.registry.models()
    return folder


_kept: list[TemporaryDirectory[str]] = []


# The command line


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


Command = Callable[..., Done]


def release_in(folder: Path, *arguments: str, cwd: Path | None = None, **more: str) -> Done:
    """Runs the installed `release` on the platform of a folder, as a user would."""
    done = subprocess.run(
        [str(BIN / "release"), *arguments],
        env=environment_of(folder, **more),
        cwd=cwd or folder.parent,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def warm_release() -> Iterator[Command]:
    """Yields what runs `release` as `release_in` does, each in a process of its own, forked after the slow imports."""
    server = subprocess.Popen(
        [sys.executable, "-c", _FORKER],
        env=environment_of(ROOT / ".none"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    stdin, stdout = server.stdin, server.stdout

    def run(folder: Path, *arguments: str, cwd: Path | None = None, **more: str) -> Done:
        with TemporaryDirectory() as parent:
            files = [str(Path(parent) / "out"), str(Path(parent) / "err")]
            order = [list(arguments), environment_of(folder, **more), str(cwd or folder.parent), *files]
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            code = int(stdout.readline())
            return Done(code, *(Path(file).read_text() for file in files))

    with server:
        yield run
        stdin.close()


_FORKER = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandera.pandas, sklearn.linear_model
import release_platform.cli.running, release_platform.cli
for line in sys.stdin:
    arguments, environment, folder, out, err = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.argv, code = ["release", *arguments], 0
        try:
            release_platform.cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # what libraries do at exit is not for a forked process
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def project_folder(models: Path, name: str, text: str) -> Path:
    """Writes a model's `defs.yaml` into a folder of models, as a team would, and returns its folder."""
    place = models / name
    place.mkdir(parents=True)
    for package in (models, place):
        (package / "__init__.py").touch()
    (place / "defs.yaml").write_text(text)
    return place
