"""The estimate without labels beside what came: for rows whose labels were told later, day by day.

Both are of the same rows, so what differs is the estimate's error, and chance as far as the interval says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from release_platform.domain.spec import label_text
from release_platform.pipeline.drift_rows import LABEL, SCORE, read_rows

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Recorded rows whose labels came.

    Attributes:
        frame: The rows; see `drift_rows`.
        labels: What would have been right, as the text that classes are written in; shape (n_rows,).
    """

    frame: pd.DataFrame
    labels: Column


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
    labels = np.array([label_text(one) for one in there[LABEL].tolist()], dtype=object)
    return Labelled(frame=there, labels=labels)


def track(
    labelled: Labelled, package: ModelPackage, calibration: Calibration | None, *, positive: object | None, source: str
) -> tuple[TrackedRows, ...]:
    """Returns all labelled rows together, then each day with enough of them, in order; nothing where none can be said.

    Args:
        labelled: The rows.
        package: The version that answered them.
        calibration: How its probabilities are to be read; None for a regression.
        positive: The positive class of a binary model; None for others.
        source: Where the rows come from, for messages.

    Raises:
        SourceError: The rows' times cannot be read.
    """
    if calibration is None or labelled.frame.empty:
        return ()
    recorded = read_rows(labelled.frame, package, positive, source=source)
    if not {SCORE, LABEL} <= recorded.outputs.keys():
        return ()
    scores = np.asarray(recorded.outputs[SCORE], dtype=np.float64)
    right: Mask = labelled.labels == (recorded.outputs[LABEL] if positive is None else str(positive))
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
    chances = calibration.apply(scores)
    if is_binary:
        return tracked(estimate_binary(scores, chances), real_quality(scores, right))
    return tracked({Quality.ACCURACY: estimate_accuracy(chances)}, {Quality.ACCURACY: float(right.mean())})


def _json(one: Tracked) -> dict[str, Any]:
    estimate = one.estimate
    expected = {"expected": estimate.value, "lower": estimate.lower, "upper": estimate.upper}
    return {**expected, "real": one.real, "error": one.error, "held": one.held}
