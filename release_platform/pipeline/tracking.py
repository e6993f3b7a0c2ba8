"""The estimate without labels beside what came: for rows whose labels were told later, day by day.

Both are of the same rows, so what differs is the estimate's error, and chance as far as the interval says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.estimation import (
    LEAST_ROWS,
    Calibration,
    Quality,
    Tracked,
    estimate_accuracy,
    estimate_binary,
    real_quality,
    tracked,
)
from release_platform.domain.features import Column
from release_platform.domain.metrics import Task
from release_platform.domain.reference import LABEL, REAL_ERROR
from release_platform.pipeline.drift_reference import errors_of, losses_of
from release_platform.pipeline.drift_rows import MOST_ASKED, PREDICTION, SCORE, Recorded, class_text, read_rows

Mask = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Recorded rows whose labels came.

    Attributes:
        frame: The rows; see `drift_rows`.
        labels: What would have been right, as the text that classes are written in; shape (n_rows,).
        came: The day on which each label came, shape (n_rows,), datetime64[D]; None for that of its row.
    """

    frame: pd.DataFrame
    labels: Column
    came: Days | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What labels say of rows.

    Attributes:
        recorded: The rows.
        labels: What would have been right: texts, or float64 of a regression; shape (n_rows,).
        errors: How wrong the answers were, shape (n_rows,); see `errors_of`. None where they are not known.
        came: The day on which each label came, shape (n_rows,), datetime64[D]; None where nobody knows.
        losses: The log loss of each answer as a column, shape (n_rows,), NaN where no score is known; see `losses_of`.
    """

    recorded: Recorded
    labels: Column
    errors: Column | None
    came: Days | None
    losses: Mapping[str, Column] = field(default_factory=dict)

    def on(self, day: date | None) -> dict[str, Column]:
        """Returns what the labels say that came on a day, by column; None: all of them."""
        columns = {LABEL: self.labels} | ({} if self.errors is None else {REAL_ERROR: self.errors}) | {**self.losses}
        if day is not None and self.came is not None:
            rows = self.came == np.datetime64(day)
            columns = {name: values[rows] for name, values in columns.items()}
        return {
            name: values[np.isfinite(values)] if name in self.losses else values for name, values in columns.items()
        }


@dataclass(frozen=True, kw_only=True)
class TrackedRows:
    """What was expected of some rows, and what came.

    Attributes:
        day: Their day; None for all of them.
        n_rows: How many there are.
        qualities: Each quality.
    """

    day: date | None
    n_rows: int
    qualities: Mapping[Quality, Tracked]

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return {
            "day": None if self.day is None else self.day.isoformat(),
            "rows": self.n_rows,
            "qualities": {quality.value: _json(one) for quality, one in self.qualities.items()},
        }


def labelled_rows(frame: pd.DataFrame, package: ModelPackage) -> Labelled | None:
    """Returns the rows of a table that have a `label`; None where it has no such column, or that is an input."""
    if LABEL not in frame or LABEL in {column.name for column in package.plan.inputs}:
        return None
    there = frame[frame[LABEL].notna()].reset_index(drop=True)
    labels = np.array([class_text(one, package.classes) for one in there[LABEL].tolist()], dtype=object)
    return Labelled(frame=there, labels=labels)


def tell(labelled: Labelled, package: ModelPackage, *, positive: object | None, source: str) -> Told | None:
    """Returns what labels say; None where none came.

    Args:
        labelled: The rows.
        package: The version that answered them.
        positive: The positive class of a binary model; None for others.
        source: Where the rows come from, for messages.

    Raises:
        SourceError: The rows' times cannot be read.
    """
    if labelled.frame.empty:
        return None
    most = MOST_ASKED if PREDICTION in labelled.frame else None  # without one no row's error is known
    recorded = read_rows(labelled.frame, package, positive, source=source, most_asked=most)
    labels = labelled.labels
    if package.task is Task.REGRESSION:
        labels = pd.to_numeric(pd.Series(labels), errors="coerce").to_numpy(dtype=np.float64)
    days = None if recorded.at is None else recorded.at.astype("datetime64[D]")
    return Told(
        recorded=recorded,
        labels=labels,
        errors=errors_of(recorded.outputs, labels) if PREDICTION in recorded.outputs else None,
        came=days if labelled.came is None else labelled.came,
        losses=losses_of(recorded.outputs, labels, positive),
    )


def track(told: Told, calibration: Calibration | None, *, positive: object | None) -> tuple[TrackedRows, ...]:
    """Returns all labelled rows together, then each day with enough of them, in order; nothing where none can be said.

    Args:
        told: The rows.
        calibration: How the version's probabilities are to be read; None for a regression.
        positive: The positive class of a binary model; None for others.
    """
    recorded = told.recorded
    if calibration is None or not {SCORE, PREDICTION} <= recorded.outputs.keys():
        return ()
    scores = np.asarray(recorded.outputs[SCORE], dtype=np.float64)
    right: Mask = told.labels == (recorded.outputs[PREDICTION] if positive is None else str(positive))
    known = np.isfinite(scores)

    def of(day: date | None, rows: Mask) -> list[TrackedRows]:
        if rows.sum() < LEAST_ROWS:
            return []
        qualities = _beside(scores[rows], right[rows], calibration, is_binary=positive is not None)
        return [TrackedRows(day=day, n_rows=int(rows.sum()), qualities=qualities)]

    found = of(None, known)
    if recorded.at is not None:
        days = recorded.at.astype("datetime64[D]")
        for day in np.unique(days):
            found += of(day.item(), known & (days == day))
    return tuple(found)


def _beside(
    scores: npt.NDArray[np.float64], right: Mask, calibration: Calibration, *, is_binary: bool
) -> dict[Quality, Tracked]:
    if is_binary:
        return tracked(estimate_binary(scores, calibration), real_quality(scores, right))
    return tracked({Quality.ACCURACY: estimate_accuracy(scores, calibration)}, {Quality.ACCURACY: float(right.mean())})


def _json(one: Tracked) -> dict[str, Any]:
    estimate = one.estimate
    expected = {"expected": estimate.value, "lower": estimate.lower, "upper": estimate.upper}
    return {**expected, "real": one.real, "error": one.error, "held": one.held}
