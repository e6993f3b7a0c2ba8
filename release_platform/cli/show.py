"""`release models`, `status` and `history`: what is, and what was."""

from datetime import UTC, datetime
from time import sleep
from typing import Annotated, Any

import typer

from release_platform.cli.console import out, show_json, show_table
from release_platform.cli.options import Json, Model
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
