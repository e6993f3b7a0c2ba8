"""Distributions of a column before and now, side by side, and quality by day, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

import numpy as np
import numpy.typing as npt

from release_platform.domain.estimation import Quality
from release_platform.domain.reference import Categories, Numbers, Summary
from release_platform.pipeline.plots import png
from release_platform.pipeline.tracking import TrackedRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

BINS = 30
BARS = 12
_BEFORE, _NOW = "#8a8f98", "#1f5fa8"
_MOST_VALUES = 15
_LEAST_DAYS = 2


def draw_distributions(name: str, before: Summary, now: Summary) -> bytes:
    """Returns the shares of a column's values in training and now.

    Args:
        name: The column.
        before: Its reference.
        now: Its rows now, of the same kind.
    """
    match before:
        case Numbers():
            assert isinstance(now, Numbers)
            few = len({*before.values, *now.values}) <= _MOST_VALUES
            return _bars(name, *_of_values(before, now)) if few else _histogram(name, before, now)
        case Categories():
            assert isinstance(now, Categories)
            return _bars(name, *_of_texts(before, now))
        case _:
            assert_never(before)


def draw_tracked(days: Sequence[TrackedRows]) -> bytes | None:
    """Returns expected and real quality by day: of the area under the ROC curve, or of the accuracy; None for few days.

    Args:
        days: Labelled rows, day by day.
    """
    quality = Quality.ROC_AUC if days and Quality.ROC_AUC in days[0].qualities else Quality.ACCURACY
    known = [(rows.day, rows.qualities[quality]) for rows in days if rows.qualities[quality].error is not None]
    if len(known) < _LEAST_DAYS:
        return None
    ends = [(one.estimate.lower, one.estimate.upper) for _, one in known]
    lower, upper = (np.array(side, dtype=np.float64) for side in zip(*ends, strict=True))
    places = np.arange(len(known))

    def paint(axes: Axes) -> None:
        axes.fill_between(places, lower, upper, color=_NOW, alpha=0.15, label="95 % interval")
        axes.plot(places, [one.estimate.value or 0.0 for _, one in known], color=_NOW, marker="o", label="expected")
        axes.plot(places, [one.real or 0.0 for _, one in known], color="#b3261e", marker="s", label="real")
        shown = places[:: max(1, len(places) // 8)]
        axes.set_xticks(shown, labels=[f"{known[place][0]}" for place in shown], fontsize=8)
        axes.set_ylabel(quality.value)
        axes.legend(loc="best", frameon=False, fontsize=8)

    return png("expected without labels, and real", paint, height=3.0)


def _histogram(name: str, before: Numbers, now: Numbers) -> bytes:
    ends = np.array([one.quantiles(np.array([0.005, 0.995])) for one in (before, now) if one.counts])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)

    def paint(axes: Axes) -> None:
        for one, colour, label in ((before, _BEFORE, "training"), (now, _NOW, "now")):
            missing = one.missing / max(one.n_rows, 1)
            axes.stairs(_shares(one, edges), edges, color=colour, fill=True, alpha=0.45, label=_label(label, missing))
        axes.set_ylabel("share of rows")
        axes.legend(loc="best", frameon=False, fontsize=8)

    return png(_short(name), paint, height=2.6)


def _shares(summary: Numbers, edges: Floats) -> Floats:
    """Returns the share of rows in each bin; what lies outside is in the outermost ones."""
    if not summary.counts:
        return np.zeros(len(edges) - 1)
    reached = np.interp(edges, summary.values, np.cumsum(summary.counts), left=0.0)
    reached[0], reached[-1] = 0.0, summary.n_present
    found: Floats = np.diff(reached) / summary.n_rows
    return found


def _of_values(before: Numbers, now: Numbers) -> tuple[list[str], Floats, Floats]:
    values = sorted({*before.values, *now.values})

    def shares(one: Numbers) -> Floats:
        counts = dict(zip(one.values, one.counts, strict=True))
        return np.array([one.missing, *(counts.get(value, 0) for value in values)]) / one.n_rows

    return ["missing", *(f"{value:g}" for value in values)], shares(before), shares(now)


def _of_texts(before: Categories, now: Categories) -> tuple[list[str], Floats, Floats]:
    every = dict.fromkeys([*before.counts, *now.counts], 0.0)
    for one in (before, now):
        for name, count in one.counts.items():
            every[name] += count / one.n_rows
    names = sorted(every, key=lambda name: (-every[name], name))[:BARS]

    def shares(one: Categories) -> Floats:
        shown = [one.counts.get(name, 0) for name in names]
        return np.array([one.missing, *shown, one.n_rows - one.missing - sum(shown)]) / one.n_rows

    return ["missing", *names, "all others"], shares(before), shares(now)


def _bars(name: str, labels: list[str], before: Floats, now: Floats) -> bytes:
    kept = (before > 0) | (now > 0)
    shown = [_short(label, 14) for label, keep in zip(labels, kept, strict=True) if keep]
    places = np.arange(len(shown))

    def paint(axes: Axes) -> None:
        axes.bar(places - 0.2, before[kept], 0.4, color=_BEFORE, label="training")
        axes.bar(places + 0.2, now[kept], 0.4, color=_NOW, label="now")
        axes.set_xticks(places, labels=shown, rotation=90 if len(shown) > 4 else 0, fontsize=8)
        axes.set_ylabel("share of rows")
        axes.legend(loc="best", frameon=False, fontsize=8)

    return png(_short(name), paint, height=3.0, bottom=0.25 if len(shown) > 4 else 0.13)


def _label(name: str, missing: float) -> str:
    return f"{name} ({missing:.1%} missing)" if missing else name


def _short(name: str, most: int = 40) -> str:
    text = name if len(name) <= most else name[: most - 1] + "…"
    return text.replace("$", r"\$")
