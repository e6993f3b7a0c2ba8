"""Runs Dagster jobs in this process, on the same instance and with the same records as the web interface would."""

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster.components.core.component_tree import ComponentTreeException

from release_platform.cli.console import PROGRESS, Progress, err
from release_platform.definitions import build_definitions, definitions_of, load_projects, model_folders
from release_platform.defs.lost_runs import beating
from release_platform.defs.promotion import Projects, get_project
from release_platform.domain.errors import GatesNotPassed, Refused, SpecError
from release_platform.project import Project, read_projects
from release_platform.services import Services
from release_platform.settings import Settings


@lru_cache(maxsize=1)
def services() -> Services:
    """Returns the services of this process, its folders prepared."""
    settings = Settings()
    settings.prepare()
    return Services(settings)


def operator(actor: str | None) -> str:
    """Returns who acts on this store: who is named, or who the settings say.

    Raises:
        Refused: This store takes no name that is merely said.
    """
    settings = services().settings
    if settings.require_keys:
        raise Refused(
            "this release store is moved by holders of an API key of the scope operator, not by who says a name",
            remedy="set RELEASE_API_URL to the address of `release api`, and RELEASE_API_KEY_FILE to your key's file",
        )
    return actor or settings.acting


def caretaker(actor: str | None) -> str:
    """Returns who removes what nothing reaches: who is named, or who the settings say.

    Raises:
        Refused: Somebody is named, and this store takes no name that is merely said.
    """
    settings = services().settings
    if settings.require_keys and actor is not None:
        raise Refused(
            "this release store takes no name that is merely said",
            remedy=f"leave --actor out: the user of this process is kept, {settings.acting}",
        )
    return actor or settings.acting


@lru_cache(maxsize=1)
def _loaded() -> tuple[Projects, dict[str, SpecError]]:
    try:
        return load_projects(*model_folders()), {}
    except ComponentTreeException:  # one wrong defs.yaml must not keep the other models from a rollback
        found, wrong = read_projects(*model_folders())
        if not wrong:
            raise
        for error in wrong.values():
            err.print(f"left out: {error.problem}", style="yellow", markup=False, soft_wrap=True)
        return found, wrong


def projects() -> Projects:
    """Returns all models whose defs.yaml is right, by name; says which are left out."""
    return _loaded()[0]


def project(model: str) -> Project:
    """Returns a model's project.

    Raises:
        SpecError: Its defs.yaml is wrong.
        NotFound: There is no such model.
    """
    found, wrong = _loaded()
    if model not in found and model in wrong:
        raise wrong[model]
    return get_project(found, model)


@lru_cache(maxsize=1)
def definitions() -> dg.Definitions:
    """Returns the definitions of the code location, without the models that are left out."""
    found, wrong = _loaded()
    return definitions_of(found) if wrong else build_definitions(*model_folders())


def instance() -> dg.DagsterInstance:
    """Returns the Dagster instance of the settings."""
    services()
    return dg.DagsterInstance.get()


def run_job(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> tuple[str, Progress]:
    """Runs a job to its end and returns its run id and what was shown.

    Args:
        name: The job.
        config: Its run config.
        tags: Tags of its run.
        run_id: The id of its run, for who looks at what a failed one left; None for a new one.

    Raises:
        ReleaseError: What stopped it.
    """
    run_id = run_id or str(uuid.uuid4())
    job = definitions().resolve_job_def(name)
    status = "FAILED"
    with instance() as on, Progress(err) as progress, beating(on, run_id) as alive:
        try:
            job.execute_in_process(
                run_config={"loggers": {PROGRESS.replace(".", "_"): {}}, **(config or {})},
                instance=on,
                tags={**(tags or {}), **alive},
                run_id=run_id,
            )
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except DagsterAssetCheckFailedError:
            failed = [f"{check}: {reason}" for check, (passed, reason) in progress.checks.items() if not passed]
            raise GatesNotPassed(name.removeprefix("release_"), failed) from None
        finally:
            services().tracking.close_runs(run_id, status)
    return run_id, progress
