"""`release reproduce`: train a version again in a clean process and compare."""

from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import IntegrityError

if TYPE_CHECKING:
    from release_platform.pipeline.reproduction import Reproduction


def reproduce(
    model: Model,
    version: Annotated[str, typer.Argument(help="The version.", show_default=False)],
    json: Json = False,
) -> None:
    """Train a version again from its recorded data, spec and seed, and compare with the registered model.

    It runs in a process of its own, on the recorded BLAS core type and threads. What came of it is kept as the asset
    check `reproduced`. Exit code 7: another model, or data that was changed; the cause is named.

    Example:

        release reproduce breast_cancer 1
    """
    from release_platform.cli import running
    from release_platform.defs.reproduction import evaluation, reproduce_version, said

    project = running.project(model)
    err.print("training again ...")
    outcome: Reproduction | IntegrityError
    try:
        outcome = reproduce_version(running.services(), project, version)
    except IntegrityError as error:
        outcome = error
    with running.instance() as instance:
        instance.report_runless_asset_event(evaluation(project, version, outcome))
    if isinstance(outcome, IntegrityError):
        raise IntegrityError(f"{model} version {version} is not reproduced: {outcome.problem}", remedy=outcome.remedy)
    if json:
        show_json({"model": model, "version": version, **outcome.to_json()})
    if not outcome.same:
        raise IntegrityError(
            f"{model} version {version} is not reproduced: {said(outcome)}",
            remedy="restore what differs (the commit, the packages of the lock file, the kind of machine), then "
            "reproduce again",
        )
    if not json:
        out.print(f"{model} version {version}: {said(outcome)}", soft_wrap=True)
