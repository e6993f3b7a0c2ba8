"""`release models`, `status`, `history` and `lineage`: what is, what was, and where a version comes from."""

from datetime import UTC, datetime
from time import sleep
from typing import Annotated, Any

import typer
from rich.tree import Tree

from release_platform.cli.console import out, show_json, show_table
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import NotFound
from release_platform.domain.freeze import find_freeze
from release_platform.domain.policy import PromotionRequest, RequestState, decide, judged_approvals


def models(json: Json = False) -> None:
    """List all models and where their versions stand.

    Example:

        release models
    """
    from release_platform.cli import running

    rows = []
    for name, project in sorted(running.projects().items()):
        head = running.services().store.head(name)
        rows.append(
            (name, project.spec.task.value, project.spec.owner, head.staging, head.production, project.spec.description)
        )
    columns = ("model", "task", "owner", "staging", "production", "description")
    if json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    show_table("models", columns[:-1], [row[:-1] for row in rows])


def status(
    model: Annotated[str | None, typer.Argument(help="Name of the model; default: all.")] = None, json: Json = False
) -> None:
    """Show where the versions of a model stand, what is asked for, and what is missing.

    Example:

        release status flight_delay
    """
    from release_platform.cli import running

    names = [model] if model else sorted(running.projects())
    found = [_status(name) for name in names]
    if json:
        show_json(found[0] if model else found)
        return
    for state in found:
        _show_status(state)


def _status(name: str) -> dict[str, Any]:
    from release_platform.cli import running

    policy = running.project(name).spec.policy
    services = running.services()
    head = services.store.head(name)
    freeze = find_freeze(policy.freeze, datetime.now(UTC))
    return {
        **head.to_json(),
        "registry_wrong": _lasting_deviations(name) if head.epoch else [],
        "frozen": freeze.said if freeze else None,
        "requests": [_request_status(request) for request in services.store.requests(name, RequestState.OPEN)],
    }


def _request_status(request: PromotionRequest) -> dict[str, Any]:
    from release_platform.cli.promotion import facts_of
    from release_platform.defs.readiness import missing_of

    facts = facts_of(request)
    return {
        "request_id": request.request_id,
        "version": request.version,
        "actor": request.actor,
        "reason": request.reason,
        "missing": list(missing_of(decide(facts))),
        "approvals": [
            {
                "actor": judged.approval.actor,
                "reason": judged.approval.reason,
                "standing": judged.standing.value,
                "valid_until": judged.until.isoformat() if judged.until else None,
                "said": judged.said,
            }
            for judged in judged_approvals(facts)
        ],
    }


def _lasting_deviations(name: str) -> list[str]:
    """Returns what the registry shows wrongly now and a moment later: a move that is under way is no fault."""
    from release_platform.cli import running

    projection = running.services().releases.projection
    if not projection.deviations(name):
        return []
    sleep(2)
    return [one.sentence for one in projection.deviations(name)]


def _show_status(state: dict[str, Any]) -> None:
    out.print(
        f"[bold]{state['model']}[/]  epoch {state['epoch']}  production: {state['production'] or '-'}  "
        f"staging: {state['staging'] or '-'}  previous: {', '.join(reversed(state['previous'])) or '-'}"
    )
    for fault in state["registry_wrong"]:
        out.print(f"  [red]{fault}[/]")
    if state["frozen"]:
        out.print(f"  {state['frozen']}", markup=False, soft_wrap=True)
    for request in state["requests"]:
        waits = "; ".join(request["missing"]) or "ready; the promotion sensor, or `release promote`, carries it out"
        asked = f"  request {request['request_id']}: version {request['version']} by {request['actor']}"
        out.print(f"{asked}: {waits}", markup=False, soft_wrap=True)
        for said in [approval["said"] for approval in request["approvals"]]:
            if said not in request["missing"]:
                out.print(f"    {said}", markup=False, soft_wrap=True)


def history(model: Model, json: Json = False) -> None:
    """List every transition of a model, from the ledger: who moved what, when and why.

    Example:

        release history flight_delay --json
    """
    from release_platform.cli import running

    running.project(model)
    rows = running.services().store.ledger(model)
    if json:
        show_json([row.to_json() for row in rows])
        return
    show_table(
        f"ledger of {model}",
        ("epoch", "at (UTC)", "move", "version", "before", "actor", "reason", "request"),
        [
            (
                r.epoch,
                r.at[:19].replace("T", " "),
                r.move,
                r.version,
                r.before["production"],
                r.actor,
                r.reason,
                r.request_id,
            )
            for r in rows
        ],
    )


def lineage(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(help="The version; default: the one in Production, else Staging.")
    ] = None,
    json: Json = False,
) -> None:
    """Show where a version comes from: data, code, parameters, metrics, gates, approvals, runs.

    Example:

        release lineage flight_delay 1
    """
    found = _lineage(model, version)
    if json:
        show_json(found)
        return
    tree = Tree(f"[bold]{model} version {found['version']}[/]")
    _grow(tree, {key: value for key, value in found.items() if key not in {"model", "version"}})
    out.print(tree)


def _grow(tree: Tree, value: dict[str, Any]) -> None:
    for name, part in value.items():
        if isinstance(part, dict):
            _grow(tree.add(f"[bold]{name}[/]"), part)
        elif isinstance(part, list):
            branch = tree.add(f"[bold]{name}[/]")
            for item in part:
                branch.add("  ".join(f"{k}: {v}" for k, v in item.items()) if isinstance(item, dict) else str(item))
        else:
            tree.add(f"{name}: {part}")


def _lineage(model: str, version: str | None) -> dict[str, Any]:
    from release_platform.cli import running

    running.project(model)
    services = running.services()
    head = services.store.head(model)
    wanted = version or head.production or head.staging
    registration = services.store.find_registration(model, wanted or "")
    if registration is None:
        raise NotFound(
            f"{model}: there is no version {wanted or 'yet'}",
            remedy=f"`release history {model}` lists its versions; `release run {model}` makes one",
        )
    run = services.tracking.get_run(registration.mlflow_run_id).data
    settings = services.settings
    experiment = f"{settings.mlflow_url}/#/experiments/{services.tracking.experiment(model)}"
    return {
        "model": model,
        "version": registration.version,
        "digest": registration.digest,
        "model_digest": registration.model_digest,
        "registered_at": registration.registered_at.isoformat(),
        "data": {
            "fingerprint": registration.fingerprint,
            "training_rows": run.metrics.get("training_rows"),
            "snapshots": services.tracking.snapshots_of(registration.mlflow_run_id),
        },
        "code": {
            "code_version": registration.code_version,
            **services.tracking.environment_of(registration.mlflow_run_id),
        },
        "parameters": dict(sorted(run.params.items())),
        "metrics": dict(sorted(run.metrics.items())),
        "gates": [{"gate": g.gate, "verdict": g.verdict.value, "reason": g.reason} for g in registration.gates],
        "compared_with": registration.baseline or "nothing: first release",
        "moves": [
            {"epoch": r.epoch, "move": r.move.value, "actor": r.actor, "reason": r.reason, "at": r.at}
            for r in services.store.ledger(model)
            if r.version == registration.version
        ],
        "approvals": [
            {"actor": approval.actor, "reason": approval.reason, "at": approval.approved_at.isoformat()}
            for request in services.store.requests(model)
            if request.version == registration.version
            for approval in services.store.approvals(request.request_id)
        ],
        "runs": {
            "dagster": f"{settings.dagster_url}/runs/{registration.dagster_run_id}",
            "mlflow": f"{experiment}/runs/{registration.mlflow_run_id}",
            "model_version": f"{settings.mlflow_url}/#/models/{model}/versions/{registration.version}",
        },
    }
