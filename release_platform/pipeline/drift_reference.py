"""The reference of a version: its training rows, what it said of its held-out rows, and how its own past days differed.

Floors are learned from windows of these very rows: by day where the data has a time and ten days or more, else from
blocks of rows in their order: that of the classifier from fewer and larger ones, since it learns little from few rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.alarms import MINIMUM_WINDOWS
from release_platform.domain.data_spec import SplitStrategy, label_text
from release_platform.domain.drift import with_floors
from release_platform.domain.estimation import Calibration, calibrated
from release_platform.domain.features import Column, ColumnType
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import LABEL, REAL_ERROR, REAL_LOSS, Reference, summarised
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.domain_classifier import MOST_ROWS, DomainClassifier, learned
from release_platform.pipeline.drift_rows import PREDICTION, SCORE, outputs_of
from release_platform.pipeline.features import build_feature_table, read_features

BLOCKS = 30
LEAST_ROWS = 50
MOST_WINDOWS = 200
LEAST_GIVEN = 1e-12
"""What a log loss takes for the least probability."""

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A version as drift knows it.

    Attributes:
        reference: Its reference.
        classifier: What tells new rows from its training rows by all features together.
        calibration: How its probabilities are to be read, learned from the held-out rows; None for a regression.
    """

    reference: Reference
    classifier: DomainClassifier
    calibration: Calibration | None


def build_reference(spec: ModelSpec, package: ModelPackage, raw: pd.DataFrame, *, version: str) -> Known:
    """Returns a version as drift knows it, from the raw data that it was trained on.

    Args:
        spec: The spec that it was trained by.
        package: The version, loaded.
        raw: The raw data, in the snapshot dtypes.
        version: Its number.

    Raises:
        DataError: The data cannot be split as it was.
    """
    table = read_features(build_feature_table(raw, spec))
    times = _times(raw, spec)
    training = ~table.held_out
    columns = {str(name): table.features[name].to_numpy() for name in table.features.columns}
    past = {name: values[training] for name, values in columns.items()}
    judged = {name: values[table.held_out] for name, values in columns.items()}
    outputs = outputs_of(package, package.predict_features(judged), spec.target.positive_label)
    right, truth = {LABEL: table.target[training]}, table.target[table.held_out]
    missed = {REAL_ERROR: errors_of(outputs, truth), **losses_of(outputs, truth, spec.target.positive_label)}
    summaries, said, came = (
        {name: summarised(one) for name, one in part.items()} for part in (past, outputs, right | missed)
    )
    windows = windows_of(None if times is None else times[training], int(training.sum()))
    judged_windows = windows_of(None if times is None else times[table.held_out], int(table.held_out.sum()))
    floors = with_floors(summaries, [_rows(past, rows) for rows in windows])
    floors |= with_floors(said, [_rows(outputs, rows) for rows in judged_windows])
    floors |= with_floors({LABEL: came[LABEL]}, [_rows(right, rows) for rows in windows])
    floors |= with_floors({name: came[name] for name in missed}, [_rows(missed, rows) for rows in judged_windows])
    rows = table.features[training].reset_index(drop=True)
    n_blocks = min(max(len(rows) // MOST_ROWS, MINIMUM_WINDOWS), BLOCKS)
    larger = windows_of(None if times is None else times[training], len(rows), most_blocks=n_blocks)
    classifier, together = learned(rows, larger, named=f"{spec.name} {version}")
    return Known(
        reference=Reference(
            model=spec.name,
            version=version,
            columns=summaries,
            outputs=said,
            labels=came,
            floors=floors | {DOMAIN_CLASSIFIER: together},
            n_windows=len(windows),
        ),
        classifier=classifier,
        calibration=_calibration(outputs, table.target[table.held_out], spec),
    )


def windows_of(times: Any, n_rows: int, *, most_blocks: int = BLOCKS) -> tuple[Places, ...]:
    """Returns the rows of each past window, at most the last `MOST_WINDOWS`; none where the rows are too few.

    Args:
        times: When each row was, shape (n_rows,), datetime64; None where nobody knows.
        n_rows: How many rows there are.
        most_blocks: How many blocks there are at most, where the windows are not days.
    """
    order: Places = np.arange(n_rows) if times is None else np.argsort(times, kind="stable")
    if times is not None:
        days = times[order].astype("datetime64[D]").astype(np.int64)
        by_day = np.split(order, np.flatnonzero(np.diff(days)) + 1)
        enough = [rows for rows in by_day if len(rows) >= LEAST_ROWS]
        if len(enough) >= MINIMUM_WINDOWS and sum(map(len, enough)) >= 0.8 * n_rows:
            return tuple(enough[-MOST_WINDOWS:])
    n_blocks = min(most_blocks, n_rows // LEAST_ROWS)
    return tuple(np.array_split(order, n_blocks)) if n_blocks >= MINIMUM_WINDOWS else ()


def errors_of(outputs: Mapping[str, Column], labels: Column) -> Column:
    """Returns how wrong answers were: 1 or 0 of a class, the absolute difference of a number; shape (n_rows,).

    Args:
        outputs: What was answered; see `outputs_of`.
        labels: What would have been right: texts, or float64 of a regression.
    """
    said = outputs[PREDICTION]
    if said.dtype.kind == "O":
        return np.asarray(said != labels, dtype=np.float64)
    return np.abs(np.asarray(said - labels, dtype=np.float64))


def losses_of(outputs: Mapping[str, Column], labels: Column, positive: object | None) -> dict[str, Column]:
    """Returns the log loss of each answer of a binary model as a column; none of another model, or without scores.

    Args:
        outputs: What was answered; see `outputs_of`.
        labels: What would have been right: texts.
        positive: The positive class; None for another model.
    """
    if positive is None or SCORE not in outputs:
        return {}
    scores = np.asarray(outputs[SCORE], dtype=np.float64)
    given = np.where(labels == label_text(positive), scores, 1 - scores)
    return {REAL_LOSS: -np.log(np.maximum(given, LEAST_GIVEN))}


def _rows(columns: dict[str, Column], rows: Places) -> dict[str, Column]:
    return {name: values[rows] for name, values in columns.items()}


def _times(raw: pd.DataFrame, spec: ModelSpec) -> Any:
    """Returns when each row was, by the partitions, the split, or the only time among the columns; None for unknown."""
    named = [spec.partitions.column] if spec.partitions else []
    named += [spec.split.column] if spec.split.strategy is SplitStrategy.TIME and spec.split.column else []
    stamps = [name for name, rules in spec.contract.columns.items() if rules.type is ColumnType.TIMESTAMP]
    named += stamps if len(stamps) == 1 else []
    if not named or raw[named[0]].isna().any():
        return None
    values = raw[named[0]]
    return values.to_numpy() if values.dtype.kind == "M" else None


def _calibration(outputs: dict[str, Column], truth: Column, spec: ModelSpec) -> Calibration | None:
    if SCORE not in outputs:
        return None
    positive = spec.target.positive_label
    came_true = truth == (outputs[PREDICTION] if positive is None else str(positive))
    return calibrated(outputs[SCORE], came_true)
