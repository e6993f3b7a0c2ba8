"""`release drift` holds rows against what the Production version was trained on; `release lift-hold` lifts a hold."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli import remote
from release_platform.cli.console import err, out, show_json, show_table
from release_platform.cli.options import Actor, Json, Model, Reason, parse_since
from release_platform.domain.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from release_platform.domain.history import DayShape
    from release_platform.domain.refusals import Calls
    from release_platform.pipeline.drift import DriftReport

SHOWN = 15


Since = Annotated[
    timedelta | None,
    typer.Option(
        "--since",
        parser=parse_since,
        metavar="TIME",
        help="How far back, e.g. 24h, 7d, 4w; default: the model's since_days.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="A Parquet file of rows instead of the recorded ones; --since is not used."),
]
Html = Annotated[Path | None, typer.Option("--html", help="Write the report with all distributions to this file.")]
PerMonth = Annotated[
    float | None,
    typer.Option("--budget", help="False alarms in 30 days, on average, at most; default: the model's.", min=1e-6),
]
Smallest = Annotated[
    float | None,
    typer.Option("--smallest", help="Share of rows that matters; default: the model's.", min=0.0, max=0.99),
]


def drift(
    model: Model,
    since: Since = None,
    data: Data = None,
    html: Html = None,
    budget: PerMonth = None,
    smallest: Smallest = None,
    json: Json = False,
) -> None:
    """Compare recorded requests, or the rows of a file, with what the Production version was trained on.

    Days without drift alarm at most as often as the budget says, however many columns there are; see docs/drift.md. A
    file may have the columns at (UTC), prediction and probability; what it lacks is asked of the model. Where labels
    came, by POST /v1/outcomes or as the column label of the file, the real quality stands beside the expected one. An
    accuracy that fell by more than the model's quality_margin is said first. The exit code is 0 whether there is drift
    or not.

    Examples:

        release drift churn --since 7d

        release drift churn --data july.parquet --html july.html
    """
    from release_platform.adapters.recordings import read_parquet
    from release_platform.cli import running
    from release_platform.defs.monitoring import load_version, read_calls, read_history, read_labelled, read_recordings
    from release_platform.pipeline.drift import run
    from release_platform.pipeline.drift_report import render_drift
    from release_platform.pipeline.tracking import labelled_rows

    project, services, now = running.project(model), running.services(), datetime.now(UTC)
    version = load_version(services, project)
    history: tuple[DayShape, ...] = ()
    calls: dict[date, Calls] = {}
    if data is not None:
        frame, source = read_parquet(str(data)), str(data)
        labelled = labelled_rows(frame, version.package)
    else:
        begins, source = now - (since or timedelta(days=project.spec.drift.since_days)), "the recorded requests"
        frame = read_recordings(services, version, since=begins, until=now)
        labelled = read_labelled(services, version, since=begins.date(), until=now.date() + timedelta(days=1))
        history = read_history(services, model, begins.date())
        calls = read_calls(
            services, version, [(begins + timedelta(days=n)).date() for n in range((now - begins).days + 2)]
        )
    if frame.empty and not calls:
        raise NotFound(
            f"{model}: there are no rows in {source}",
            remedy="name a file with --data, look further back with --since, or see that the servers record requests",
        )
    if not json:
        if version.made_anew:
            err.print(version.made_anew, markup=False, soft_wrap=True)
        err.print(f"comparing {len(frame):,} rows with the training data of version {version.version} ...")
    report = run(
        version.known,
        version.package,
        frame,
        positive=version.positive,
        budget=project.spec.drift.promise(budget=budget, smallest=smallest),
        at=now,
        source=source,
        labelled=labelled,
        quality_margin=project.spec.drift.quality_margin,
        history=history,
        calls=calls,
    )
    if html is not None:
        try:
            html.write_text(render_drift(report), encoding="utf-8")
        except OSError as error:
            raise Unavailable(f"{html} cannot be written: {error}", remedy="name a file that can be written") from None
    if json:
        show_json(report.to_json())
    else:
        _show(report, html)


def lift_hold(model: Model, reason: Reason, actor: Actor = None, json: Json = False) -> None:
    """Let promotions go on although a drift alarm holds them; it is of the day that alarmed, not of later ones.

    Example:

        release lift-hold churn --reason "the new shop is known; version 4 was trained with its rows"
    """
    if (api := remote.find_api(actor)) is not None:
        found = remote.lift_hold(api, model, reason)
    else:
        from release_platform.cli import running
        from release_platform.standing import drift_status

        running.project(model)
        lifted = running.services().releases.lift_hold(model, actor=running.operator(actor), reason=reason)
        found = drift_status(lifted)
    if json:
        show_json(found)
    else:
        out.print(f"{model}: {found['said']}", markup=False, highlight=False, soft_wrap=True)


def _show(report: "DriftReport", html: Path | None) -> None:
    from release_platform.pipeline.drift_report import COLUMNS, measures, ordered_columns

    out.print(report.said, markup=False, soft_wrap=True, style="green" if report.is_fine else "red")
    if report.calls.refused:
        out.print(report.calls.said, markup=False, soft_wrap=True)
    out.print(report.calibrated, markup=False, soft_wrap=True)
    for window in report.alarms:
        named = ", ".join(window.alarm.columns) if window.alarm else "; ".join(window.schema)
        out.print(f"  {window.begins:%Y-%m-%d}, {window.n_rows:,} rows: {named}", markup=False, soft_wrap=True)
    rows = [(name, *measures(report.altogether[name])) for name in ordered_columns(report)[:SHOWN]]
    show_table("all rows, by column", ("column", *COLUMNS), rows)
    if (found := report.together) is not None:
        out.print(
            "all columns together: a domain classifier tells the rows from training rows with an AUC of "
            f"{found.auc:.3f} (p = {found.p_value:.2g} of no difference at all)"
        )
    for quality, expected in report.quality.items():
        if expected.value is not None:
            ends = f"{expected.lower:.4f} to {expected.upper:.4f}"
            out.print(f"expected {quality.value}, without labels: {expected.value:.4f} ({ends})")
    if report.real is not None and not report.real.fell:  # else it was said first
        out.print(report.real.said, markup=False, soft_wrap=True)
    _show_tracked(report)
    if html is not None:
        out.print(f"report: {html}", markup=False, soft_wrap=True)


def _show_tracked(report: "DriftReport") -> None:
    if report.labelled is None:
        return
    rows = []
    for quality, one in report.labelled.qualities.items():
        held = [day.qualities[quality].held for day in report.tracked[1:]]
        within = f"{held.count(True)} of {len(held) - held.count(None)}" if held else ""
        rows.append((quality.value, *(_number(n) for n in (one.estimate.value, one.real, one.error)), within))
    columns = ("quality", "expected", "real", "error", "days within the interval")
    show_table(f"{report.labelled.n_rows:,} rows whose labels came", columns, rows)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
