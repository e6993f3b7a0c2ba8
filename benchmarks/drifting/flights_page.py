"""The table and the plot of the replayed year in `docs/drift.md`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "drift-flights.svg"
_BEGIN, _END = "<!-- begin: benchmarks/flight_drift.py -->", "<!-- end: benchmarks/flight_drift.py -->"
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHOWN = 6


def table(figures: Mapping[str, Any]) -> str:
    """Returns the months as Markdown."""
    release = figures["release"]
    lines = [
        "| month | flights | days with an alarm | columns, by days | late | AUC | expected | log loss | expected |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| held out | | | | {figures['rate']:.1%} | {release['roc_auc']:.3f} | | {release['log_loss']:.3f} | |",
    ]
    lines += [_line(one) for one in figures["months"]]
    return "\n".join(lines)


def write(figures: Mapping[str, Any], docs: Path) -> None:
    """Puts the table between its marks in `drift.md`, and the plot beside it."""
    page = docs / "drift.md"
    between = f"{_BEGIN}\n\n{table(figures)}\n\n{_END}"
    page.write_text(
        re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: between, page.read_text(), flags=re.DOTALL)
    )
    draw(figures, docs / PLOT)


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """Draws the alarms of each month above its real and its expected score, as SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "drift", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8.0, 5.2), layout="constrained")
        FigureCanvasSVG(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _paint_columns(upper, figures)
        _paint_score(lower, figures)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.read_text()
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _paint_columns(axes: "Axes", figures: Mapping[str, Any]) -> None:
    months = figures["months"]
    total: dict[str, int] = {}
    for one in months:
        for name, days in one["columns"].items():
            total[name] = total.get(name, 0) + days
    names = sorted(total, key=lambda name: (-total[name], name))[:12]
    for row, name in enumerate(names):
        for one in months:
            share = one["columns"].get(name, 0) / one["days"]
            if share:
                axes.scatter([one["month"]], [row], s=20 + 200 * share, color="#1f5fa8", alpha=0.8, linewidths=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title("Columns that alarmed; the area grows with the days of the month", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.6)


def _paint_score(axes: "Axes", figures: Mapping[str, Any]) -> None:
    months = [one["month"] for one in figures["months"]]
    quality = [one["quality"]["roc_auc"] for one in figures["months"]]
    axes.axhline(figures["release"]["roc_auc"], color="#8a8f98", linewidth=1, label="at release, held out in March")
    axes.plot(months, [one["real"] for one in quality], "o-", color="#c75b12", label="real, once labels are known")
    axes.plot(months, [one["estimate"] for one in quality], "s--", color="#1f5fa8", label="expected without labels")
    axes.set_xticks(months, [_MONTHS[month] for month in months])
    axes.set_ylabel("ROC AUC")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _line(one: Mapping[str, Any]) -> str:
    names = list(one["columns"].items())
    shown = ", ".join(f"`{name}` {days}" for name, days in names[:_SHOWN])
    shown += f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    area, loss = one["quality"]["roc_auc"], one["quality"]["log_loss"]
    cells = (
        _MONTHS[one["month"]],
        f"{one['rows']:,}",
        f"{one['alarm_days']} of {one['days']}",
        shown,
        f"{one['rate']:.1%}",
        f"{area['real']:.3f}",
        f"{area['estimate']:.3f}",
        f"{loss['real']:.3f}",
        f"{loss['estimate']:.3f}",
    )
    return f"| {' | '.join(cells)} |"
