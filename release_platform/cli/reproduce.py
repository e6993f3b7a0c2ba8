"""`release reproduce`: train a version again in a clean process and compare."""

import os
import re
import subprocess
import sys
from typing import Annotated

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import IntegrityError


def reproduce(
    model: Model,
    version: Annotated[str, typer.Argument(help="The version.", show_default=False)],
    json: Json = False,
    here: Annotated[bool, typer.Option("--here", hidden=True)] = False,
) -> None:
    """Train a version again from its recorded data, spec and seed, and compare with the registered model.

    It runs in a process of its own, on the recorded BLAS core type, and is kept as the asset check `reproduced`.

    Example:

        release reproduce breast_cancer 1
    """
    if not here:
        raise typer.Exit(_in_clean_process(model, version, json))
    from release_platform.cli import running
    from release_platform.defs.reproduction import evaluation, reproduce_version, said

    project = running.project(model)
    found = reproduce_version(running.services(), project, version)
    with running.instance() as instance:
        instance.report_runless_asset_event(evaluation(project, version, found))
    if json:
        show_json({"model": model, "version": version, **found.to_json()})
    if not found.same:
        raise IntegrityError(
            f"{model} version {version} is not reproduced: {said(found)}",
            remedy="restore what differs (the lock file, the commit), then reproduce again",
        )
    if not json:
        out.print(f"{model} version {version}: {said(found)}", soft_wrap=True)


def _in_clean_process(model: str, version: str, json: bool) -> int:
    from release_platform.cli import running

    running.project(model)
    services = running.services()
    err.print("training again ...")
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    registration = services.store.find_registration(model, version)
    if registration is not None:
        blas = services.tracking.environment_of(registration.mlflow_run_id).get("native.blas", "")
        core = re.fullmatch(r"openblas \S+ (\S+) \d+", blas)
        if core is not None:
            environment["OPENBLAS_CORETYPE"] = core.group(1)
    command = [sys.executable, "-m", "release_platform", "reproduce", model, version, "--here"]
    return subprocess.call([*command, *(["--json"] if json else [])], env=environment)
