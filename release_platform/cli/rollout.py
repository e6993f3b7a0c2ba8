"""`release rollout`: where a rollout stands, and what a person orders of it."""

from collections.abc import Callable
from time import sleep
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from release_platform.cli import remote
from release_platform.cli.console import out, show_json
from release_platform.cli.options import Actor, Json, Model, Reason

LOOK_EVERY_S = 2.0
MOST_FLIPS = 10

rollout = typer.Typer(help="Look at a rollout, pause, resume, abort or promote it.", no_args_is_help=True)


@rollout.command("status")
def status(
    model: Model,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until it has ended, or Ctrl-C.")] = False,
) -> None:
    """Show where a model's rollout stands and what the judge finds; of none under way, the one that began last.

    Examples:

        release rollout status churn

        release rollout status churn --watch
    """
    api = remote.find_api()

    def look() -> dict[str, Any]:
        return rollout_here(model) if api is None else remote.rollout_status(api, model)

    if watch and not json:
        _watch(look)
    else:
        show_rollout(look(), json)


@rollout.command("pause")
def pause(model: Model, reason: Reason, actor: Actor = None, json: Json = False) -> None:
    """Let a rollout go no further; its traffic stays, and a gate that fails aborts it all the same.

    Example:

        release rollout pause churn --reason "waiting for the labels of today"
    """
    _order(model, "pause", reason, actor, json)


@rollout.command("resume")
def resume(model: Model, reason: Reason, actor: Actor = None, json: Json = False) -> None:
    """Let a paused rollout go on; the pause does not count in its times.

    Example:

        release rollout resume churn --reason "labels look right"
    """
    _order(model, "resume", reason, actor, json)


@rollout.command("abort")
def abort(model: Model, reason: Reason, actor: Actor = None, json: Json = False) -> None:
    """Take the version's traffic away at once; after all traffic had moved, the version before comes back.

    Example:

        release rollout abort churn --reason "clients complain"
    """
    _order(model, "abort", reason, actor, json)


@rollout.command("promote")
def promote(model: Model, reason: Reason, actor: Actor = None, json: Json = False) -> None:
    """Give the version all traffic at once, without waiting for the judge; during the bake time, end that.

    Example:

        release rollout promote churn --reason "fix for the outage, looked at by hand"
    """
    _order(model, "promote", reason, actor, json)


def rollout_here(model: str) -> dict[str, Any]:
    """Returns where a model's rollout stands, from the release store.

    Raises:
        NotFound: There is no such model, or it never had a rollout.
    """
    from release_platform.cli import running
    from release_platform.standing import rollout_status

    return rollout_status(running.services().rollouts, running.project(model))


def show_rollout(state: dict[str, Any], json: bool) -> None:
    """Prints where a rollout stands."""
    if json:
        show_json(state)
    else:
        out.print(_drawn(state))


def _order(model: str, order: str, reason: str, actor: str | None, json: bool) -> None:
    if (api := remote.find_api(actor)) is not None:
        show_rollout(remote.order_rollout(api, model, order, reason), json)
        return
    from release_platform.cli import running

    running.project(model)
    form = {"model": model, "order": order, "actor": running.operator(actor), "reason": reason}
    running.run_job("order_rollout", config={"ops": {"carry_out_order": {"config": form}}})
    show_rollout(rollout_here(model), json)


def _watch(look: Callable[[], dict[str, Any]]) -> None:
    from rich.live import Live

    state = look()
    with Live(_drawn(state), console=out, auto_refresh=False) as live:
        while not state["settled"]:
            sleep(LOOK_EVERY_S)
            state = look()
            live.update(_drawn(state), refresh=True)


def _drawn(state: dict[str, Any]) -> Group:
    beside = f"beside version {state['stable']}" if state["stable"] else "the first"
    title = Text(f"{state['model']}: version {state['version']} {beside}, {state['strategy']}", style="bold")
    where = Text(f"  {state['said']} (request {state['request_id']})")
    parts: list[Any] = [title, where]
    if state["state"] in {"running", "paused"}:
        parts.append(Text(f"  for {state['elapsed_s']:,.0f} s; {state['reason']}"))
    if state.get("overdue"):  # an API of before does not say it
        parts.append(Text(f"  {state['overdue']}", style="yellow"))
    parts.append(_stages(state))
    if state["gates"]:
        parts.append(_gates(state))
    if len(state["flips"]) > 1 or any(of["flips"] for of in state["flips"]):
        parts.append(_flips(state))
    return Group(*parts)


def _stages(state: dict[str, Any]) -> Table:
    table = Table("", "stage", "at least", "time", header_style="bold")
    for number, stage in enumerate(state["stages"], start=1):
        done = number < state["stage"] or state["state"] == "completed"
        mark = "done" if done else "now" if number == state["stage"] else ""
        mark = "aborted" if mark == "now" and state["state"] == "aborted" else mark
        least = "" if stage["kind"] == "full" else f"{stage['minimum']:,} {_unit(stage)}"
        most = "" if stage["maximum_s"] is None else f", at most {stage['maximum_s']:,.0f} s"
        table.add_row(mark, stage["said"], least, f"{stage['minimum_s']:,.0f} s{most}")
    return table


def _unit(stage: dict[str, Any]) -> str:
    return "pairs" if stage["kind"] == "shadow" else "requests"


def _gates(state: dict[str, Any]) -> Table:
    styles = {"passed": "green", "failed": "red", "inconclusive": "yellow"}
    table = Table("gate", "verdict", "found", header_style="bold")
    for gate in state["gates"]:
        name = gate["gate"] if gate["blocking"] else f"{gate['gate']} (advisory)"
        table.add_row(name, Text(gate["verdict"], style=styles.get(gate["verdict"], "")), Text(gate["reason"]))
    return table


def _flips(state: dict[str, Any]) -> Table:
    table = Table("slice", "pairs", "differ", "most often", header_style="bold")
    for of in state["flips"][:MOST_FLIPS]:
        often = ", ".join(f"{what} ({n:,})" for what, n in of["flips"][:3])
        table.add_row(of["slice"] or "all", f"{of['pairs']:,}", f"{of['share']:.2%}", often)
    return table
