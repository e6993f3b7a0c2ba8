"""Evaluates a model on held-out rows: metrics with intervals, per slice, against Production, and its latency."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.evidence import Comparison, Measurement, finite_or_none
from release_platform.domain.features import MISSING, is_missing
from release_platform.domain.metrics import METRICS, Direction, Task
from release_platform.domain.prediction import Predictions
from release_platform.pipeline.bootstrap import MINIMUM_RESAMPLES, interval, n_resamples, quantiles, resample
from release_platform.pipeline.measures import Replicates, Rows, Weights, encode, is_defined, point, replicates

OTHER = "<other>"
MAXIMUM_SLICES = 30
MINIMUM_ROWS_FOR_INTERVAL = 30

Column = npt.NDArray[Any]
SliceMeasurements = dict[str, dict[str, dict[str, Measurement]]]


def measure(
    task: Task,
    metrics: Sequence[str],
    truth: Column,
    predictions: Predictions,
    classes: Sequence[object],
    positive_index: int | None,
    seed: int,
) -> dict[str, Measurement]:
    """Returns each metric over all rows, with its 95 % bootstrap interval.

    Args:
        task: What is predicted.
        metrics: Names of quality metrics of the task.
        truth: Shape (n,): labels (object), or numbers.
        predictions: Of the same rows, in the same order.
        classes: The labels, in the order of the probabilities' columns; empty for a regression.
        positive_index: Which of them is positive; None unless the task is binary.
        seed: Equal seeds give equal intervals.

    Returns:
        A measurement for every metric asked for. Its value is None where the metric is undefined for these rows; its
        interval is None then too, under 30 rows, and where more than a tenth of the resamples leave it undefined.

    Raises:
        DataError: Truth and predictions do not fit together.
    """
    rows = encode(task, truth, predictions, classes, positive_index)
    values = {name: point(name, rows) for name in metrics}
    return _with_intervals(values, rows, n_resamples(rows.n_rows), seed)


def measure_slices(
    task: Task,
    metrics: Sequence[str],
    slices: Mapping[str, Column],
    truth: Column,
    predictions: Predictions,
    classes: Sequence[object],
    positive_index: int | None,
    seed: int,
) -> SliceMeasurements:
    """Returns each metric per value of each slice column: by column, value and metric.

    The 30 most frequent values of a column stand for themselves, the others are pooled as `<other>`; missing ones are
    `<missing>`. Intervals are of 200 resamples, and only for values of 30 rows or more.

    Args:
        task: What is predicted.
        metrics: Names of quality metrics of the task.
        slices: The values by column name, shape (n,), as a feature plan takes them (NaN, NaT, None or `<missing>`:
            missing).
        truth: Shape (n,): labels (object), or numbers.
        predictions: Of the same rows, in the same order.
        classes: See `measure`.
        positive_index: See `measure`.
        seed: Equal seeds give equal intervals.
    """
    rows = encode(task, truth, predictions, classes, positive_index)
    return {
        column: {key: _measure_slice(metrics, rows.take(index), seed) for key, index in group_rows(values).items()}
        for column, values in slices.items()
    }


def group_rows(values: Column) -> dict[str, npt.NDArray[np.int64]]:
    """Returns the rows of each value of a slice column, most frequent first, then `<other>`, then `<missing>`.

    Whole numbers are written without a decimal point, timestamps as ISO 8601.
    """
    keys = _keys(values)
    counts = Counter(keys)
    counts.pop(MISSING, None)
    counts.pop(OTHER, None)
    kept = sorted(counts, key=lambda key: (-counts[key], key))[:MAXIMUM_SLICES]
    place = {key: number for number, key in enumerate([*kept, OTHER, MISSING])}
    codes = np.fromiter((place.get(key, len(kept)) for key in keys), dtype=np.int64, count=len(keys))
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(place)))
    parts = np.split(order, ends[:-1])
    return {key: part for key, part in zip(place, parts, strict=True) if len(part)}


def compare(
    task: Task,
    metrics: Sequence[str],
    truth: Column,
    candidate: Predictions,
    production: Predictions,
    classes: Sequence[object],
    positive_index: int | None,
    seed: int,
    *,
    production_classes: Sequence[object] | None = None,
) -> dict[str, Comparison]:
    """Returns how a candidate does against Production on the same rows, by a paired bootstrap.

    Each resample weights the rows of both alike, so what the rows have in common cancels out (Efron and Tibshirani
    1993, chapter 8).

    Args:
        task: What is predicted.
        metrics: Names of quality metrics of the task.
        truth: Shape (n,): labels (object), or numbers.
        candidate: The candidate's predictions.
        production: Production's predictions of the same rows, in the same order.
        classes: The candidate's labels.
        positive_index: Which of the candidate's labels is positive; None unless the task is binary.
        seed: Equal seeds give equal quantiles.
        production_classes: Production's labels; None: the same ones in the same order.

    Returns:
        A comparison by metric. A metric that is undefined for either model, or in more than a tenth of the resamples,
        is left out: the gate over it is then inconclusive.
    """
    theirs = list(classes if production_classes is None else production_classes)
    their_positive = None
    if positive_index is not None:
        if classes[positive_index] not in theirs:
            return {}
        their_positive = theirs.index(classes[positive_index])
    rows = encode(task, truth, candidate, classes, positive_index)
    others = encode(task, truth, production, theirs, their_positive)
    both = [name for name in metrics if is_defined(name, rows) and is_defined(name, others)]
    forms = {name: _improvement(name, rows, others) for name in both}
    drawn = resample(forms, rows.n_rows, resamples=n_resamples(rows.n_rows), seed=seed)
    compared = {name: _comparison(name, rows, others, drawn[name]) for name in both}
    return {name: found for name, found in compared.items() if found is not None}


def latency_p99_ms(
    predict_one: Callable[[int], object],
    n_rows: int,
    repeats: int = 200,
    *,
    maximum_s: float = 1.0,
    clock: Callable[[], float] = perf_counter,
) -> float | None:
    """Returns the 99th percentile of the time that a prediction of a single row takes, in milliseconds.

    Args:
        predict_one: Predicts the row of this number, 0 to `n_rows` - 1.
        n_rows: How many rows there are to go through, again and again.
        repeats: How many predictions are timed at most; three more go first, untimed.
        maximum_s: After how many seconds no further prediction is begun.
        clock: Seconds since any moment.

    Returns:
        The percentile, linearly interpolated; None when there is no row.
    """
    if n_rows < 1 or repeats < 1:
        return None
    started = clock()
    for number in range(3):
        predict_one(number % n_rows)
    spent: list[float] = []
    while len(spent) < repeats and (not spent or clock() - started < maximum_s):
        before = clock()
        predict_one(len(spent) % n_rows)
        spent.append(clock() - before)
    return float(np.percentile(spent, 99)) * 1e3


def _measure_slice(metrics: Sequence[str], rows: Rows, seed: int) -> dict[str, Measurement]:
    # The weighted forms equal scikit-learn's values to 1e-9 and, for a small slice, are many times faster.
    once = np.ones((1, rows.n_rows), dtype=np.uint8)
    values = {
        name: finite_or_none(replicates(name, rows)(once)[0]) if is_defined(name, rows) else None for name in metrics
    }
    return _with_intervals(values, rows, MINIMUM_RESAMPLES, seed)


def _with_intervals(
    values: Mapping[str, float | None], rows: Rows, resamples: int, seed: int
) -> dict[str, Measurement]:
    drawn = {}
    if rows.n_rows >= MINIMUM_ROWS_FOR_INTERVAL:
        forms = {name: replicates(name, rows) for name, value in values.items() if value is not None}
        drawn = resample(forms, rows.n_rows, resamples=resamples, seed=seed)
    ends = {name: interval(of) or (None, None) for name, of in drawn.items()}
    return {
        name: Measurement(
            value=value,
            lower=ends.get(name, (None, None))[0],
            upper=ends.get(name, (None, None))[1],
            n_rows=rows.n_rows,
        )
        for name, value in values.items()
    }


def _improvement(metric: str, rows: Rows, others: Rows) -> Replicates:
    mine, theirs, sign = replicates(metric, rows), replicates(metric, others), _sign(metric)

    def of(weights: Weights) -> npt.NDArray[np.float64]:
        return sign * (mine(weights) - theirs(weights))

    return of


def _comparison(metric: str, rows: Rows, others: Rows, improvements: npt.NDArray[np.float64]) -> Comparison | None:
    mine, theirs, found = point(metric, rows), point(metric, others), quantiles(improvements)
    if mine is None or theirs is None or found is None:
        return None
    return Comparison(candidate=mine, production=theirs, improvement=_sign(metric) * (mine - theirs), quantiles=found)


def _sign(metric: str) -> float:
    return 1.0 if METRICS[metric].direction is Direction.HIGHER else -1.0


def _keys(values: Column) -> list[str]:
    if values.dtype.kind in "fM":
        is_time = values.dtype.kind == "M"
        text = np.datetime_as_string(values).tolist() if is_time else [f"{x:.12g}" for x in values.tolist()]
        return [MISSING if gone else key for key, gone in zip(text, is_missing(values).tolist(), strict=True)]
    return [MISSING if value is None or value != value else str(value) for value in values.tolist()]
