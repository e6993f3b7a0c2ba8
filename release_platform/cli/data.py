"""`release data diff`: what changed between the data of two versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from release_platform.cli.console import out, show_json
from release_platform.cli.options import Json
from release_platform.domain.errors import NotFound

if TYPE_CHECKING:
    from release_platform.domain.snapshot import Snapshot

data = typer.Typer(help="Compare the data of versions.", no_args_is_help=True)


@data.callback()
def _data() -> None:
    """Compare the data of versions."""


@data.command("diff")
def diff(
    before: Annotated[
        str, typer.Argument(help="MODEL/VERSION, or the path or address of a snapshot.", show_default=False)
    ],
    after: Annotated[str, typer.Argument(help="The same for the other one.", show_default=False)],
    partition: Annotated[str | None, typer.Option("--partition", help="Compare this partition of both.")] = None,
    any_order: Annotated[
        bool, typer.Option("--any-order", help="Compare which rows there are, whatever their order.")
    ] = False,
    json: Json = False,
) -> None:
    """Name the columns, blocks of rows and first rows that differ between two datasets.

    Examples:

        release data diff churn/3 churn/4

        release data diff flight_delay/1 flight_delay/2 --partition 2013-02

        release data diff churn/3 churn/4 --any-order
    """
    from release_platform.cli import running
    from release_platform.pipeline.data_diff import diff as compare

    store = running.services().snapshots
    one, other = _snapshot(before, partition), _snapshot(after, partition)
    if any_order:
        _in_any_order(one, other, json)
        return
    found = compare(store.read(one), store.read(other), one.fingerprint, other.fingerprint)
    if json:
        show_json(
            {
                "before": one.digest,
                "after": other.digest,
                "same": found.same,
                "same_rows_in_any_order": found.same_rows,
                "differences": list(found.sentences),
                "first_rows": {name: [_plain(row) for row in rows] for name, rows in found.rows.items()},
            }
        )
        return
    if found.same:
        out.print("the same data")
        return
    for sentence in found.sentences:
        out.print(f"- {sentence}", markup=False, soft_wrap=True)
    for name, rows in found.rows.items():
        for row in rows:
            out.print(
                f"  {name}, row {row.row:,}: {_said(row.before)} -> {_said(row.after)}", markup=False, soft_wrap=True
            )
    if found.same_rows:
        out.print("the rows are the same, in another order" if found.rows else "the values are the same")


def _said(value: Any) -> str:
    """Returns a value as it is shown: text in quotes, so that it is told from numbers; times as they are."""
    return repr(value) if isinstance(value, (str, float, int)) or value is None else str(value)


def _in_any_order(one: "Snapshot", other: "Snapshot", json: bool) -> None:
    from release_platform.cli import running
    from release_platform.pipeline.data_diff import diff_in_any_order

    store = running.services().snapshots
    found = diff_in_any_order(store.read(one), store.read(other), one.fingerprint, other.fingerprint)
    if json:
        show_json({"before": one.digest, "after": other.digest, **found.to_json()})
        return
    for sentence in found.sentences:
        out.print(f"- {sentence}", markup=False, soft_wrap=True)
    for side, rows in (("before", found.only_before), ("after", found.only_after)):
        if rows is not None and rows.count:
            where = ", ".join(f"{row:,}" for row in rows.first)
            out.print(f"- {rows.count:,} row(s) only {side}, the first: {where}", soft_wrap=True)
    if found.same:
        out.print("the same rows, whatever their order")


def _plain(row: Any) -> dict[str, Any]:
    return {"row": row.row, "before": row.before, "after": row.after}


def _snapshot(named: str, partition: str | None) -> "Snapshot":
    from release_platform.cli import running

    services = running.services()
    model, _, version = named.partition("/")
    if not (version.isdigit() and model in running.projects()):
        if "://" not in named and not Path(named).exists():
            raise NotFound(
                f"'{named}' is neither MODEL/VERSION of a known model nor a file",
                remedy="write e.g. churn/3; `release models` lists the models, `release history MODEL` the versions",
            )
        return services.snapshots.get(named if "://" in named else str(Path(named).resolve()))
    registration = services.store.find_registration(model, version)
    if registration is None:
        raise NotFound(
            f"{model}: there is no version {version}", remedy=f"`release history {model}` lists its versions"
        )
    uris = services.tracking.snapshots_of(registration.mlflow_run_id)
    if partition is None and len(uris) > 1:
        raise NotFound(f"{named} has {len(uris)} partitions", remedy=f"name one with --partition: {', '.join(uris)}")
    key = partition or next(iter(uris))
    if key not in uris:
        raise NotFound(f"{named} has no partition '{key}'", remedy=f"choose one of: {', '.join(uris)}")
    return services.snapshots.get(uris[key])
