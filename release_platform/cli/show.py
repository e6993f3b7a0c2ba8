"""`release models`, `status` and `history`: what is, and what was."""

from textwrap import indent
from typing import Annotated, Any

import typer

from release_platform.cli import remote
from release_platform.cli.console import err, out, show_json, show_table
from release_platform.cli.options import Json, Model
from release_platform.domain.ledger import LedgerRow, moves_production
from release_platform.domain.percent import percent

_MARGIN = " " * 7


def models(json: Json = False) -> None:
    """List all models and where their versions stand.

    Example:

        release models
    """
    api = remote.find_api()
    found = api.get("/v1/models") if api else _models_here()
    if json:
        show_json(found)
        return
    columns = ("model", "task", "owner", "staging", "production")
    show_table("models", columns, [[one[column] for column in columns] for one in found])


def _models_here() -> list[dict[str, Any]]:
    from release_platform.cli import running
    from release_platform.standing import model_status

    projects, store = running.projects(), running.services().store
    return [model_status(projects[name], store.head(name)) for name in sorted(projects)]


def status(
    model: Annotated[str | None, typer.Argument(help="Name of the model; default: all.")] = None, json: Json = False
) -> None:
    """Show the profile, where the versions of a model stand, what is asked for, and what is missing.

    Example:

        release status flight_delay
    """
    api = remote.find_api()
    found = remote.statuses(api, model) if api else _statuses_here(model)
    if json:
        show_json(found[0] if model else found)
        return
    if api is None:
        _show_profile()
    for state in found:
        _show_status(state)


def _show_profile() -> None:
    from release_platform.adapters.receivers import find_fault
    from release_platform.cli import running

    settings = running.services().settings
    err.print(settings.described, markup=False, highlight=False, soft_wrap=True)
    fault = find_fault(settings.notify_url.get_secret_value(), settings.notify_secret.get_secret_value())
    if fault is not None:
        err.print(f"no message can be sent: {fault.problem}; {fault.remedy}", markup=False, soft_wrap=True)


def _statuses_here(model: str | None) -> list[dict[str, Any]]:
    from release_platform.cli import running
    from release_platform.standing import status_of

    names = [model] if model else sorted(running.projects())
    return [status_of(running.services().releases, running.project(name)) for name in names]


def _show_status(state: dict[str, Any]) -> None:
    out.print(
        f"[bold]{state['model']}[/]  epoch {state['epoch']}  production: {state['production'] or '-'}  "
        f"staging: {state['staging'] or '-'}  previous: {', '.join(reversed(state['previous'])) or '-'}"
    )
    for route in ("canary", "shadow"):
        if route in state:
            share = percent(state[route]["weight"])
            out.print(f"  {route}: version {state[route]['version']} with {share} of the traffic")
    for fault in state["registry_wrong"]:
        out.print(f"  [red]{fault}[/]")
    if state.get("rollback"):  # an operators' API of an older platform does not say it
        out.print(f"  {state['rollback']['said']}", markup=False, highlight=False, soft_wrap=True)
    for message in state.get("messages_given_up", ()):  # as above
        out.print(
            f"  message given up, not everybody was told: {message}", markup=False, highlight=False, soft_wrap=True
        )
    if state.get("messages_waiting"):
        out.print(f"  {state['messages_waiting']}", markup=False, highlight=False, soft_wrap=True)
    if state.get("drift"):
        style = "red" if state["drift"]["alarmed"] and not state["drift"]["lift"] else None
        out.print(f"  {state['drift']['said']}", markup=False, highlight=False, soft_wrap=True, style=style)
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
    api = remote.find_api()
    rows = remote.history(api, model) if api else _history_here(model)
    if json:
        show_json([row.to_json() for row in rows])
        return
    for row in rows:
        out.print(said_of(row), markup=False, highlight=False, soft_wrap=True)


def said_of(row: LedgerRow) -> str:
    """Returns a row of the ledger as text. Only its first line begins at the left, whatever actor and reason hold."""
    move = row.move if row.weight is None else f"{row.move} {percent(row.weight)}"
    before = row.before["production"] if moves_production(row) else None
    after = f", after version {before}" if before is not None else ""
    first = f"{row.at[:19].replace('T', ' ')}  {move}: version {row.version}{after}, by {row.actor}"
    text = indent(f"{first}\n{row.reason}\nrequest {row.request_id}", _MARGIN)
    return f"{row.epoch:>5}  {text.removeprefix(_MARGIN)}"


def _history_here(model: str) -> tuple[LedgerRow, ...]:
    from release_platform.cli import running

    running.project(model)
    return running.services().store.ledger(model)
