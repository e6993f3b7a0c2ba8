"""`release run`: from data to a version in Staging."""

from typing import Annotated, Any

import typer
from filelock import FileLock, Timeout

from release_platform.cli.console import err, show_json, show_pairs, show_table
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import Refused
from release_platform.domain.policy import Registration


def run(
    model: Model,
    partitions: Annotated[
        str | None,
        typer.Option(
            "--partitions", help="Use these partitions only, first to last, e.g. 2013-01:2013-03.", metavar="A:B"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Ingest, featurize, train, judge and register a model, up to Staging.

    Examples:

        release run breast_cancer

        release run flight_delay --partitions 2013-01:2013-09
    """
    from release_platform.cli import running

    err.print(f"[bold]release run {model}[/]")
    registration = run_release(model, partitions)
    head = running.services().store.head(model)
    if json:
        show_json({**_identity(registration), "gates": [gate.to_json() for gate in registration.gates]})
        return
    show_pairs(f"{model} version {registration.version}", _identity(registration))
    show_gates(registration)
    if head.staging == registration.version:
        err.print(f"In Staging. Next: [bold]release promote {model} --reason '...'[/]", soft_wrap=True)


def run_release(model: str, partitions: str | None = None) -> Registration:
    """Runs the release job of a model and returns what it registered."""
    from release_platform.adapters.clock import SystemClock
    from release_platform.cli import running
    from release_platform.defs.resources import partition_tags

    months = running.project(model).months(partitions, SystemClock().now())
    locks = running.services().settings.root / "locks"
    locks.mkdir(exist_ok=True)
    try:
        with FileLock(locks / f"{model}.lock", timeout=0):
            run_id, _ = running.run_job(f"release_{model}", tags=partition_tags(months))
    except Timeout:
        raise Refused(f"a release of {model} is running here already", remedy="wait until it has ended") from None
    made = [r for r in running.services().store.registrations(model) if r.dagster_run_id == run_id]
    if not made:
        raise Refused(f"{model}: this run registered nothing new", remedy=f"see `release history {model}`")
    return made[-1]


def show_gates(registration: Registration) -> None:
    """Prints the results of the gates."""
    rows = [
        (
            g.gate,
            g.verdict,
            _number(g.value),
            f"{g.direction} {_number(g.limit)}" if g.limit is not None else "",
            g.reason,
        )
        for g in registration.gates
    ]
    show_table("gates", ("gate", "verdict", "value", "limit", "reason"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _identity(registration: Registration) -> dict[str, Any]:
    return {
        "model": registration.model,
        "version": registration.version,
        "digest": registration.digest,
        "data fingerprint": registration.fingerprint,
        "MLflow run": registration.mlflow_run_id,
        "Dagster run": registration.dagster_run_id,
    }
