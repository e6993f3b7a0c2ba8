"""The tables and the plot of `docs/drift.md`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.drifting.experiments import PATIENCE, SHIFT_COLUMNS, SHIFT_ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "drift-alarms.svg"
_BEGIN, _END = "<!-- begin: benchmarks/drift.py -->", "<!-- end: benchmarks/drift.py -->"
_RULES = {
    "ours": ("drift alarms, budget 1", "o-", "#1f5fa8"),
    "p_value": ("any column's p < 0.05", "s-", "#c75b12"),
    "evidently_column": ("Evidently, any column", "^--", "#555555"),
    "evidently_dataset": ("Evidently, data set", "v--", "#b8860b"),
}


def tables(figures: Mapping[str, Any]) -> str:
    """Returns the figures of a run as Markdown."""
    return "\n\n".join((_stationary(figures), _delays(figures), *_evidently(figures), *_cost(figures)))


def write(figures: Mapping[str, Any], docs: Path) -> None:
    """Puts the tables between their marks in `drift.md`, and the plot beside it."""
    page = docs / "drift.md"
    between = f"{_BEGIN}\n\n{tables(figures)}\n\n{_END}"
    page.write_text(
        re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: between, page.read_text(), flags=re.DOTALL)
    )
    draw(figures, docs / PLOT)


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """Draws alarms in 30 stationary days by number of columns, as SVG; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    sizes = sorted({one["rows"] for one in figures["stationary"]})
    with mpl.rc_context({"svg.hashsalt": "drift", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, n_rows in zip(figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0], sizes, strict=True):
            _paint(axes, [one for one in figures["stationary"] if one["rows"] == n_rows], n_rows)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.read_text()
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _paint(axes: "Axes", found: list[Mapping[str, Any]], n_rows: int) -> None:
    columns = [one["columns"] for one in found]
    for rule, (name, mark, colour) in _RULES.items():
        axes.plot(columns, [one[rule] for one in found], mark, color=colour, label=name)
    axes.axhline(1, color="#1f5fa8", linewidth=0.8, linestyle=":")
    axes.set_title(f"{n_rows:,} rows a day", fontsize=10, loc="left")
    axes.set_xlabel("columns")
    axes.set_xticks(columns)
    axes.set_ylim(-0.8, 31)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    place = axes.get_subplotspec()
    if place is not None and place.is_first_col():
        axes.set_ylabel("alarms in 30 days")
        axes.legend(frameon=False, fontsize=8, loc="center right")


def _stationary(figures: Mapping[str, Any]) -> str:
    head = (
        "**Stationary days**: alarms in 30 days\n\n"
        "| columns | rows a day | days | ours, budget 1 | any p < 0.05 | Evidently, any column | data set |\n"
        "|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {one['columns']} | {one['rows']:,} | {one['days']} | {' | '.join(f'{one[rule]:.1f}' for rule in _RULES)} |"
        for one in figures["stationary"]
    ]
    return "\n".join((head, *rows))


def _delays(figures: Mapping[str, Any]) -> str:
    head = (
        f"**{figures['repeats']} streams of each shift** among {SHIFT_COLUMNS} columns of {SHIFT_ROWS:,} rows a day: "
        f"found within {PATIENCE} days, and after how many days, median (90 %)\n\n"
        "| shift | ours | days | Evidently, the column | days | its p < 0.05, days |\n|---|---|---|---|---|---|"
    )
    rows = []
    for one in figures["delays"]:
        ours, theirs, p_value = one["ours"], one["evidently"], one["p_value"]
        cells = (
            one["said"],
            f"{ours['found']:.0%}",
            _days(ours),
            f"{theirs['found']:.0%}",
            _days(theirs),
            _days(p_value),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join((head, *rows))


def _evidently(figures: Mapping[str, Any]) -> tuple[str, ...]:
    found = figures["evidently"]
    if found is None:
        return ()
    return (
        f"The rule that stands for Evidently says the same as Evidently {found['version']} itself of {found['same']} "
        f"of {found['of']} columns and days, {found['flagged']} of which it flags.",
    )


def _cost(figures: Mapping[str, Any]) -> tuple[str, ...]:
    one = figures["cost"]
    if one is None:
        return ()
    return (
        f"**{one['rows']:,} recorded rows** of {one['features']} features over 30 days, from the files to the page: "
        f"{one['seconds']:.0f} s "
        f"({one['cpu_seconds']:.0f} s of processor time), {one['megabytes']:,.0f} MB at most, on 2 cores. They were "
        f"{one['files']:,} files, a file for each minute, which the sensor had joined by day: "
        f"{one['joining_s_a_day']:.1f} s a day.",
    )


def _days(found: Mapping[str, Any]) -> str:
    if found["median"] is None:
        return ""
    late = f"{found['late']:.0f}" if found["late"] is not None else "more"
    return f"{found['median']:.0f} ({late})"
