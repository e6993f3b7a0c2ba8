"""features: the table that a model is fitted and judged on.

Features by the plan that serving applies too, the target, which rows are held out, and what slices are cut along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import SplitStrategy, label_text
from release_platform.domain.errors import DataError
from release_platform.domain.features import MISSING, Column, ColumnType, FeaturePlan
from release_platform.domain.metrics import Task
from release_platform.domain.records import FeatureTable, RawData
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.ingest import store_frame
from release_platform.pipeline.split import held_out_rows

TARGET = "__target__"
HELD_OUT = "__held_out__"
SLICE = "__slice__"
MINIMUM_ROWS = 20
GOLDEN_ROWS = 50

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRows:
    """A feature table in memory, as scikit-learn takes it.

    Attributes:
        features: Shape (n_rows, n_features), in the plan's order: float64 (NaN: missing) and object (text).
        target: Shape (n_rows,): float64 for a regression, text labels (object) otherwise.
        held_out: Shape (n_rows,), bool: rows that the model is judged on; all others it is fitted on.
        slices: The text of each slice column, shape (n_rows,), object; `MISSING` where there is none.
    """

    features: pd.DataFrame
    target: Column
    held_out: Mask
    slices: Mapping[str, Column]

    def slices_of(self, rows: Mask) -> dict[str, Column]:
        """Returns the slice columns of some rows."""
        return {name: values[rows] for name, values in self.slices.items()}


def plan_columns(frame: pd.DataFrame, plan: FeaturePlan) -> dict[str, Column]:
    """Returns a plan's inputs as it takes them, each of shape (n_rows,).

    Args:
        frame: Raw data in the snapshot dtypes; at least the plan's inputs.
        plan: The feature plan.
    """
    return {column.name: plan_column(frame[column.name], column.type) for column in plan.inputs}


def build_feature_table(frame: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """Returns the feature table of some raw data, in the snapshot dtypes, one row for each row of `frame`.

    Its columns: the features in the plan's order (float64 or string), `__target__` (float64 for a regression, string
    otherwise), `__held_out__` (boolean), and `__slice__<name>` (string) for each slice column.

    Args:
        frame: Raw data in the snapshot dtypes, indexed from 0.
        spec: The model.

    Raises:
        DataError: The data cannot be split, or a model cannot be fitted or judged on it; says what to do.
    """
    target = _target(frame, spec)
    held_out = held_out_rows(frame, target, spec)
    _require_rows(spec, held_out)
    _require_target(spec, target, ~held_out)
    features = spec.plan.apply(plan_columns(frame, spec.plan))
    _require_features(spec, features, ~held_out)
    columns: dict[str, Any] = {name: _stored(values) for name, values in features.items()}
    columns[TARGET] = _stored(target)
    columns[HELD_OUT] = pd.array(held_out, dtype="boolean")
    columns |= {SLICE + name: _stored(_text(frame[name], spec.contract.columns[name].type)) for name in spec.slices}
    return pd.DataFrame(columns, copy=False)


def featurize(
    frame: pd.DataFrame, spec: ModelSpec, raw: RawData, store: SnapshotStore
) -> tuple[FeatureTable, pd.DataFrame]:
    """Returns the record of the feature table of some raw data, stored, and the table itself.

    Args:
        frame: The raw data in the snapshot dtypes, indexed from 0.
        spec: The model.
        raw: Where that raw data is.
        store: Where the table is kept.

    Raises:
        DataError: See `build_feature_table`.
    """
    table = build_feature_table(frame, spec)
    n_held_out = int(table[HELD_OUT].sum())
    record = FeatureTable(
        snapshot=store_frame(table, store),
        raw_fingerprint=raw.fingerprint,
        raw={key: snapshot.stored for key, snapshot in raw.snapshots.items()},
        n_training_rows=len(table) - n_held_out,
        n_held_out_rows=n_held_out,
        training_age_days=_training_age_days(frame, table, spec),
        golden_inputs=golden_inputs(frame, table, spec),
    )
    return record, table


def split_times(frame: pd.DataFrame, spec: ModelSpec) -> Column | None:
    """Returns when each row was, shape (n_rows,), datetime64; None where the split is not by a timestamp."""
    column = spec.split.column
    if spec.split.strategy is not SplitStrategy.TIME or column is None:
        return None
    return frame[column].to_numpy() if spec.contract.columns[column].type is ColumnType.TIMESTAMP else None


def training_age_days(times: Column, held_out: Mask) -> float:
    """Returns how long before the newest held-out row the newest training row was, in days."""
    age = times[held_out].max() - times[~held_out].max()
    return float(age / np.timedelta64(1, "D"))


def _training_age_days(frame: pd.DataFrame, table: pd.DataFrame, spec: ModelSpec) -> float | None:
    times = split_times(frame, spec)
    return None if times is None else training_age_days(times, table[HELD_OUT].to_numpy(dtype=bool))


def read_features(table: pd.DataFrame) -> FeatureRows:
    """Returns a feature table, as `build_feature_table` made it and a store gives it back, for scikit-learn."""
    own = [name for name in table.columns if name in {TARGET, HELD_OUT} or name.startswith(SLICE)]
    features = {name: _loaded(table[name]) for name in table.columns if name not in own}
    return FeatureRows(
        features=pd.DataFrame(features, copy=False),
        target=_loaded(table[TARGET]),
        held_out=table[HELD_OUT].to_numpy(dtype=bool),
        slices={name.removeprefix(SLICE): _loaded(table[name]) for name in own if name.startswith(SLICE)},
    )


def golden_inputs(frame: pd.DataFrame, table: pd.DataFrame, spec: ModelSpec) -> dict[str, list[Any]]:
    """Returns up to `GOLDEN_ROWS` held-out rows, evenly spread, as a client would send them: JSON values by input.

    Args:
        frame: The raw data.
        table: Its feature table.
        spec: The model.
    """
    held_out = np.flatnonzero(table[HELD_OUT].to_numpy(dtype=bool))
    rows = held_out[np.unique(np.linspace(0, len(held_out) - 1, GOLDEN_ROWS).round().astype(int))]
    return {column.name: [_json(v) for v in frame[column.name].iloc[rows]] for column in spec.plan.inputs}


def _json(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.tz_localize(UTC).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def plan_column(series: "pd.Series[Any]", kind: ColumnType) -> Column:
    """Returns a column in its snapshot dtype as a plan takes it, shape (n_rows,)."""
    if kind is ColumnType.CATEGORY:
        return _objects(series)
    if kind is ColumnType.TIMESTAMP:
        return series.to_numpy(dtype="datetime64[us]")
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _objects(series: "pd.Series[Any]") -> Column:
    array = pa.array(series, type=pa.large_string(), from_pandas=True).fill_null(MISSING)
    found: Column = array.to_pandas().to_numpy()  # equal texts share one object: less memory, quicker comparisons
    return found


def _text(series: "pd.Series[Any]", kind: ColumnType) -> Column:
    """Returns the text of each value, object; MISSING where it is missing."""
    if kind is ColumnType.CATEGORY:
        return _objects(series)
    codes, values = pd.factorize(series, use_na_sentinel=True)
    texts = [label_text(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values.tolist()]
    return np.array([*texts, MISSING], dtype=object)[codes]  # the sentinel is -1: the last


def _stored(values: Column) -> Any:
    return pd.array(values, dtype="string[pyarrow]") if values.dtype.kind == "O" else values


def _loaded(series: "pd.Series[Any]") -> Column:
    return _objects(series) if isinstance(series.dtype, pd.StringDtype) else series.to_numpy(dtype=np.float64)


def _target(frame: pd.DataFrame, spec: ModelSpec) -> Column:
    series = frame[spec.target.column]
    missing = series.isna().to_numpy()
    if missing.any():
        first = ", ".join(f"{row + 1:,}" for row in np.flatnonzero(missing)[:5])
        raise DataError(
            f"{spec.name}: the target '{spec.target.column}' is missing in {int(missing.sum()):,} of {len(frame):,} "
            f"row(s), first in row {first}",
            remedy="leave out rows without a known answer at the source",
        )
    kind = spec.contract.columns[spec.target.column].type
    return plan_column(series, kind) if spec.task is Task.REGRESSION else _text(series, kind)


def _require_rows(spec: ModelSpec, held_out: Mask) -> None:
    n_held_out = int(held_out.sum())
    n_training = len(held_out) - n_held_out
    if min(n_training, n_held_out) < MINIMUM_ROWS:
        raise DataError(
            f"{spec.name}: the split leaves {n_training:,} training and {n_held_out:,} held-out row(s), fewer than "
            f"{MINIMUM_ROWS}",
            remedy="get more data, or change `split.test_share`",
        )


def _require_target(spec: ModelSpec, target: Column, training: Mask) -> None:
    column = spec.target.column
    if spec.task is Task.REGRESSION:
        if np.ptp(target[training]) == 0:
            raise DataError(
                f"{spec.name}: the target '{column}' is {target[training][0]:g} in all training rows",
                remedy="check the source: there is nothing to learn from a constant",
            )
        return
    known, every = set(pd.unique(target[training])), set(pd.unique(target))
    if len(every) == 1:
        raise DataError(
            f"{spec.name}: all rows have one class, '{next(iter(every))}' of '{column}'",
            remedy="check the source and its filters: a classifier needs rows of at least two classes",
        )
    if every - known:
        raise DataError(
            f"{spec.name}: no training row has the class(es) {_listed(every - known)} of '{column}'",
            remedy="get more rows of them, drop them at the source, or split otherwise",
        )
    if spec.task is Task.BINARY:
        _require_two(spec, every)


def _require_two(spec: ModelSpec, classes: set[Any]) -> None:
    positive = spec.target.positive_label
    if len(classes) > 2:
        raise DataError(
            f"{spec.name}: '{spec.target.column}' has {len(classes)} classes, {_listed(classes)}",
            remedy="write `task: multiclass`, or make two classes of them at the source",
        )
    if positive not in classes:
        raise DataError(
            f"{spec.name}: no row has the positive label '{positive}'; the labels are {_listed(classes)}",
            remedy="correct `target.positive` in the model's defs.yaml",
        )


def _listed(classes: set[Any]) -> str:
    names = sorted(f"'{name}'" for name in classes)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _require_features(spec: ModelSpec, features: Mapping[str, Column], training: Mask) -> None:
    empty = [name for name, values in features.items() if _all_missing(values[training])]
    if empty:
        raise DataError(
            f"{spec.name}: the feature(s) {', '.join(empty)} have no value in any training row",
            remedy="check the source, or take them out of `features`",
        )


def _all_missing(values: Column) -> bool:
    return bool((values == MISSING).all() if values.dtype.kind == "O" else np.isnan(values).all())
