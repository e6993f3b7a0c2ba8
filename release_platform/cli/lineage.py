"""`release lineage`: where a version comes from, as a tree, as JSON, or as OpenLineage events."""

import json as json_module
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import Refused, Unavailable
from release_platform.domain.lineage import Lineage

DISTRIBUTION = "model-release-platform"
WIDTH = 2_000  # lines are not cut, so that addresses and digests can be copied
LINES = {
    "snapshots": ("partition", "rows", "column_digests", "fingerprint"),
    "gates": ("gate", "verdict", "reason", "value", "direction", "limit"),
    "requests": ("request_id", "state", "actor", "reason", "requested_at"),
    "approvals": ("request_id", "actor", "reason", "approved_at", "state"),
    "moves": ("epoch", "move", "actor", "reason", "at", "certificate"),
    "materializations": ("stage", "partition", "at", "storage_id"),
    "runs": ("system", "job", "status", "at"),
}
BELOW = {"uri", "link", "hash"}


def lineage(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(help="The version; default: the one in Production, else Staging.")
    ] = None,
    json: Json = False,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Print OpenLineage run events, one JSON value on each line.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="With --openlineage: the file to write them to.")
    ] = None,
) -> None:
    """Show where a version comes from: data, code, parameters, metrics, gates, approvals, moves, runs, with links.

    It also compares what Dagster, MLflow, the snapshots and the release store say. What does not answer is named, and
    the rest is shown.

    Examples:

        release lineage flight_delay 1

        release lineage flight_delay 1 --openlineage --output events.jsonl
    """
    if (json and openlineage) or (output and not openlineage):
        raise Refused("these options do not go together", remedy="--json alone, or --openlineage with --output FILE")
    found = _traced(model, version)
    if json:
        show_json(found.to_json())
    elif openlineage:
        _show_events(found, output)
    else:
        Console(width=WIDTH).print(_tree(found.to_json()), soft_wrap=True)
    for part in found.missing if openlineage else ():
        err.print(f"missing: {part}", style="yellow", markup=False, soft_wrap=True)


def _traced(model: str, version: str | None) -> Lineage:
    from release_platform.cli import running
    from release_platform.defs.lineage import DagsterHistory
    from release_platform.lineage import find_version, trace

    policy, services = running.project(model).spec.policy, running.services()
    history = DagsterHistory(running.instance, services.settings.dagster_url)
    return trace(services, find_version(services, model, version), policy, history)


def _show_events(found: Lineage, output: Path | None) -> None:
    from release_platform.cli import running
    from release_platform.domain.openlineage import run_events

    namespace = f"dagster://{urlsplit(running.services().settings.dagster_url).netloc}"
    events = run_events(found, producer=f"pkg:pypi/{DISTRIBUTION}@{installed(DISTRIBUTION)}", namespace=namespace)
    lines = "".join(json_module.dumps(event) + "\n" for event in events)
    if output is None:
        typer.echo(lines, nl=False)
        return
    try:
        output.write_text(lines, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{output} cannot be written: {error}", remedy="name a file that can be written") from None
    out.print(f"{len(events)} event(s) written to {output}", soft_wrap=True)


def _tree(found: dict[str, Any]) -> Tree:
    tree = Tree(Text(f"{found['model']} version {found['version']}", style="bold"))
    shown = {name: part for name, part in found.items() if name not in {"model", "version"}}
    _grow(tree, {**shown, "stands": ", ".join(found["stands"]) or "nowhere", "consistent": _said(found["consistent"])})
    return tree


def _said(consistent: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known, a part is missing"}[consistent]


def _grow(tree: Tree, value: dict[str, Any]) -> None:
    for name, part in value.items():
        match part:
            case {"value": _}:
                tree.add(_metric(name, part))
            case dict():
                _grow(tree.add(Text(name, style="bold")), part)
            case [] | None | "":
                tree.add(Text(f"{name}: none"))
            case list():
                branch = tree.add(Text(name, style="bold"))
                for item in part:
                    _add_item(branch, name, item)
            case _:
                tree.add(_field(name, part))


def _metric(name: str, metric: dict[str, float]) -> Text:
    interval = f" ({metric['lower']:.6g} to {metric['upper']:.6g})" if "lower" in metric else ""
    return Text(f"{name}: {metric['value']:.6g}{interval}")


def _add_item(branch: Tree, kind: str, item: Any) -> None:
    if not isinstance(item, dict):
        branch.add(Text(str(item)))
        return
    line = Text("  ").join(_field(name, item[name]) for name in LINES[kind] if item.get(name) not in (None, ""))
    below = branch.add(line)
    for name in BELOW & item.keys():
        below.add(_field(name, item[name]))


def _field(name: str, value: object) -> Text:
    """Returns a name and its value; an address can be clicked on where the terminal shows links."""
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return Text.assemble(f"{name}: ", (shown, f"link {shown}" if shown.startswith("http") else ""))
