"""Plots that people read, as PNG bytes. matplotlib is imported when the first one is drawn, and never as `pyplot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.metrics import METRICS, PRIMARY, Direction, Task
from release_platform.domain.prediction import Predictions
from release_platform.pipeline.measures import N_BINS, Rows, encode, point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Column = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

MAXIMUM_POINTS = 500
MAXIMUM_DOTS = 2_000
MAXIMUM_CLASSES = 30
MAXIMUM_FEATURES = 30
IMPORTANCE_ROWS = 2_000
IMPORTANCE_SECONDS = 3.0

_BLUE, _ORANGE, _GREY = "#1f5fa8", "#c75b12", "#8a8f98"


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much worse the model is when one column is shuffled (Breiman 2001, section 10: permutation importance).

    Attributes:
        metric: What got worse.
        losses: The loss by column, in the metric's unit, positive where the column matters; largest first.
        n_rows: How many held-out rows were used.
        notes: What was left out, in a sentence each.
    """

    metric: str
    losses: Mapping[str, float]
    n_rows: int
    notes: tuple[str, ...] = ()


def draw(
    task: Task,
    truth: Column,
    predictions: Predictions,
    classes: Sequence[object],
    positive_index: int | None,
    *,
    unit: str = "",
) -> dict[str, bytes]:
    """Returns the plots of a task over held-out rows, as PNG bytes by name.

    Binary: `roc`, `precision_recall`, `calibration`, `confusion`. Multiclass: `calibration`, `confusion`. Regression:
    `predicted_vs_true`, `residuals`. A plot that needs what the rows do not have (both classes, any row, finite
    numbers) is left out. Curves are thinned to 500 points, scatter plots to 2,000.

    Args:
        task: What is predicted.
        truth: Shape (n,): labels (object), or numbers.
        predictions: Of the same rows, in the same order.
        classes: The labels, in the order of the probabilities' columns; empty for a regression.
        positive_index: Which of them is positive; None unless the task is binary.
        unit: The unit of a regression's target, for the axes.
    """
    rows = encode(task, truth, predictions, classes, positive_index)
    if rows.n_rows == 0 or not rows.is_finite:
        return {}
    if task is Task.REGRESSION:
        return {"predicted_vs_true": _predicted_vs_true(rows, unit), "residuals": _residuals(rows, unit)}
    plots = {}
    if task is Task.BINARY and rows.is_positive.any() and not rows.is_positive.all():
        name = str(classes[positive_index or 0])
        plots = {"roc": _roc(rows, name), "precision_recall": _precision_recall(rows, name)}
    return plots | {"calibration": _calibration(rows), "confusion": _confusion(rows, [str(name) for name in classes])}


def importance(
    predict: Callable[[Mapping[str, Column]], Predictions],
    columns: Mapping[str, Column],
    task: Task,
    truth: Column,
    classes: Sequence[object],
    positive_index: int | None,
    seed: int,
    *,
    metric: str | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Importance:
    """Returns the permutation importance of each input column.

    At most 2,000 rows, 30 columns and three seconds are spent, one shuffle per column.

    Args:
        predict: Predicts rows given as columns, e.g. `ModelPackage.predict`.
        columns: The held-out rows, each column of shape (n,).
        task: What is predicted.
        truth: Shape (n,): labels (object), or numbers.
        classes: The labels, in the order of the probabilities' columns; empty for a regression.
        positive_index: Which of them is positive; None unless the task is binary.
        seed: Equal seeds sample and shuffle alike.
        metric: What is measured; None: the task's primary metric.
        clock: Seconds since any moment.
    """
    name = metric or PRIMARY[task]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(truth))[:IMPORTANCE_ROWS])
    sample = {key: column[chosen] for key, column in columns.items()}

    def value_of(rows: Mapping[str, Column]) -> float | None:
        return point(name, encode(task, truth[chosen], predict(rows), classes, positive_index)) if len(chosen) else None

    started, before, losses = clock(), value_of(sample), {}
    notes = [f"only the first {MAXIMUM_FEATURES} of {len(columns)} columns"] if len(columns) > MAXIMUM_FEATURES else []
    if before is None:
        return Importance(metric=name, losses={}, n_rows=len(chosen), notes=(f"{name} is undefined for these rows",))
    for key in list(sample)[:MAXIMUM_FEATURES]:
        if clock() - started > IMPORTANCE_SECONDS:
            notes.append(f"stopped after {IMPORTANCE_SECONDS:g} s, before '{key}'")
            break
        after = value_of({**sample, key: rng.permutation(sample[key])})
        if after is not None:
            losses[key] = (before - after) if METRICS[name].direction is Direction.HIGHER else (after - before)
    largest_first = dict(sorted(losses.items(), key=lambda item: (-item[1], item[0])))
    return Importance(metric=name, losses=largest_first, n_rows=len(chosen), notes=tuple(notes))


def draw_importance(of: Importance) -> bytes | None:
    """Returns the bar chart of an importance as PNG bytes, or None when there is nothing to show."""
    if not of.losses:
        return None

    def paint(axes: Axes) -> None:
        names, losses = list(of.losses), list(of.losses.values())
        axes.barh(range(len(names)), losses, color=[_BLUE if loss > 0 else _GREY for loss in losses])
        axes.set_yticks(range(len(names)), labels=[_short(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel(f"loss of {of.metric} when shuffled ({of.n_rows:,} rows)")

    return png("Permutation importance", paint, height=1.6 + 0.24 * len(of.losses), left=0.34)


def _roc(rows: Rows, positive: str) -> bytes:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(rows.is_positive, rows.scores)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="by chance")
        axes.plot(*_thin(false, true), color=_BLUE, label=f"model, area {point('roc_auc', rows):.4f}")
        axes.set_xlabel("false positive rate (share of negatives)")
        axes.set_ylabel("true positive rate (share of positives)")
        axes.legend(loc="lower right", frameon=False)

    return png(f"ROC curve of '{_short(positive)}'", paint)


def _precision_recall(rows: Rows, positive: str) -> bytes:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(rows.is_positive, rows.scores)
    share = float(rows.is_positive.mean())

    def paint(axes: Axes) -> None:
        axes.axhline(share, color=_GREY, linestyle="--", linewidth=1, label=f"by chance {share:.3f}")
        label = f"model, average precision {point('average_precision', rows):.4f}"
        axes.step(*_thin(recall, precision), color=_BLUE, where="post", label=label)
        axes.set_xlabel("recall (share of positives found)")
        axes.set_ylabel("precision (share of right alarms)")
        axes.set_ylim(0, 1.03)
        axes.legend(loc="best", frameon=False)

    return png(f"Precision and recall of '{_short(positive)}'", paint)


def _calibration(rows: Rows) -> bytes:
    bins = np.minimum((rows.confidence * N_BINS).astype(np.int64), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    held = counts > 0
    said = np.bincount(bins, weights=rows.confidence, minlength=N_BINS)[held] / counts[held]
    came = np.bincount(bins, weights=rows.hits, minlength=N_BINS)[held] / counts[held]

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="calibrated")
        centres = (np.arange(N_BINS) + 0.5) / N_BINS
        axes.bar(centres, counts / counts.sum(), width=0.9 / N_BINS, color=_GREY, alpha=0.35, label="share of rows")
        axes.plot(said, came, color=_BLUE, marker="o", markersize=4, label="model")
        axes.set_xlabel("predicted probability" if rows.positive is not None else "probability of the predicted class")
        axes.set_ylabel("share that came true")
        axes.set_title(f"error {point('expected_calibration_error', rows):.4f}", fontsize=9, loc="right")
        axes.legend(loc="upper left", frameon=False)

    return png("Calibration", paint)


def _confusion(rows: Rows, classes: list[str]) -> bytes:
    k = len(classes)
    known = rows.truth >= 0
    counts = np.bincount(rows.truth[known] * k + rows.predicted[known], minlength=k * k).reshape(k, k)
    names = [_short(name, 12) for name in classes][:MAXIMUM_CLASSES]
    turned = len(names) > 4 and max(map(len, names)) > 5
    counts = counts[: len(names), : len(names)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def paint(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ticks = range(len(names))
        axes.set_xticks(ticks, labels=names, rotation=90 if turned else 0)
        axes.set_yticks(ticks, labels=names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(names) <= 12:
            for i, j in np.ndindex(counts.shape):
                text = f"{counts[i, j]:,}" + (f"\n{shares[i, j]:.1%}" if len(names) <= 4 else "")
                colour = "white" if shares[i, j] > 0.65 else "black"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9 if len(names) <= 4 else 7)

    left_out = f", first {MAXIMUM_CLASSES} of {k}" if k > MAXIMUM_CLASSES else ""
    bottom = 0.28 if turned else 0.13
    return png(
        f"Confusion (rows of each class{left_out})", paint, height=3.8 + 0.1 * len(names), bottom=bottom, left=0.2
    )


def _predicted_vs_true(rows: Rows, unit: str) -> bytes:
    truth, predicted = _sample(rows)

    def paint(axes: Axes) -> None:
        ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
        axes.plot(ends, ends, color=_GREY, linestyle="--", linewidth=1, label="exact")
        axes.scatter(truth, predicted, s=10, alpha=0.5, color=_BLUE, linewidths=0, label=f"{len(truth):,} rows")
        axes.set_xlabel(_with_unit("true value", unit))
        axes.set_ylabel(_with_unit("predicted value", unit))
        axes.legend(loc="upper left", frameon=False)

    return png("Predicted and true values", paint, left=0.18)


def _residuals(rows: Rows, unit: str) -> bytes:
    residuals = rows.predicted - rows.truth

    def paint(axes: Axes) -> None:
        axes.hist(residuals, bins=min(40, max(5, int(len(residuals) ** 0.5))), color=_BLUE, alpha=0.8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(float(residuals.mean()), color=_ORANGE, linewidth=1.5, label=f"mean {residuals.mean():.4g}")
        axes.set_xlabel(_with_unit("predicted minus true", unit))
        axes.set_ylabel("rows")
        axes.legend(loc="best", frameon=False)

    return png("Residuals", paint, left=0.16)


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Returns at most `MAXIMUM_POINTS` points, evenly along the length of the curve, both ends included."""
    if len(x) <= MAXIMUM_POINTS:
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], MAXIMUM_POINTS - 1)))
    kept = np.unique(np.append(np.minimum(kept, len(x) - 1), len(x) - 1))
    return x[kept], y[kept]


def _sample(rows: Rows) -> tuple[Floats, Floats]:
    step = np.unique(np.linspace(0, rows.n_rows - 1, min(rows.n_rows, MAXIMUM_DOTS)).astype(np.int64))
    order = np.argsort(rows.truth, kind="stable")[step]
    return rows.truth[order], rows.predicted[order]


def _short(name: str, most: int = 24) -> str:
    text = name if len(name) <= most else name[: most - 1] + "…"
    return text.replace("$", r"\$")


def _with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else f"{label} (in the target's unit)"


def png(
    title: str, paint: Callable[[Axes], None], *, height: float = 4.0, left: float = 0.13, bottom: float = 0.13
) -> bytes:
    """Returns a plot in the style of all of them, as PNG.

    Args:
        title: Its title.
        paint: Draws into the axes.
        height: In inches; the width is 5.4.
        left: Share of the width left of the axes.
        bottom: Share of a height of 4 inches below the axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), dpi=100)
    axes = figure.add_axes((left, bottom * 4.0 / height, 0.96 - left, 1 - (bottom * 4.0 + 0.4) / height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    paint(axes)
    axes.set_title(title, fontsize=11, loc="left")
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """Returns a figure as PNG bytes, the same for the same figure."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=100, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return out.getvalue()
