"""The drift report as one page that people read: a single HTML file that needs nothing else."""

from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from release_platform.domain.distances import Difference
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.pipeline.drift import DriftReport
from release_platform.pipeline.drift_plots import draw_distributions, draw_tracked

if TYPE_CHECKING:
    from jinja2 import Template

MOST_PLOTS = 40


def render_drift(report: DriftReport) -> str:
    """Returns the page: what alarmed when, each column's measures, distributions side by side, and what labels say.

    Styles and images are inside; it loads nothing and runs no script. All text from data is escaped. The columns that
    alarmed come first, then those with the largest PSI; the first `MOST_PLOTS` have a plot.
    """
    names = ordered_columns(report)
    plots = {
        name: b64encode(draw_distributions(name, report.reference.every[name], report.now[name])).decode()
        for name in names[:MOST_PLOTS]
    }
    drawn = draw_tracked(report.tracked[1:])
    return _template().render(
        report=report,
        names=names,
        plots=plots,
        budget=report.detector.budget,
        number=_number,
        domain_classifier=DOMAIN_CLASSIFIER,
        floor=max(report.detector.budget.smallest, report.reference.floors.get(DOMAIN_CLASSIFIER, 0.0)),
        tracked_plot=b64encode(drawn).decode() if drawn else "",
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def ordered_columns(report: DriftReport) -> list[str]:
    """Returns the compared columns: those that alarmed first, then by PSI."""
    alarmed = {name: place for place, name in enumerate(report.columns)}
    return sorted(
        report.altogether, key=lambda name: (alarmed.get(name, len(alarmed)), -report.altogether[name].psi, name)
    )


def shares(one: Difference) -> tuple[str, str]:
    """Returns the shares of missing and of unseen values, in words."""
    return f"{one.distance.missing:.1%}", f"{one.distance.unseen or 0:.1%}"


def markdown(report: DriftReport, most: int = 20) -> str:
    """Returns the first columns' measures as a Markdown table."""
    lines = ["| column | PSI | share of rows | missing | unseen |", "|---|---|---|---|---|"]
    for name in ordered_columns(report)[:most]:
        one = report.altogether[name]
        cells = (name.replace("|", "\\|"), f"{one.psi:.3f}", f"{one.distance.share:.3f}", *shares(one))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("drift.html.j2")
