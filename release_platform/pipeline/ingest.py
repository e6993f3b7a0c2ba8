"""raw_data: reads a model's source, holds it to its contract, and keeps it as immutable snapshots."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import PartitionSpec
from release_platform.domain.errors import DataError
from release_platform.domain.fingerprint import ColumnValues, differences, fingerprint
from release_platform.domain.snapshot import Snapshot, StoredData
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.contract import check, conform
from release_platform.pipeline.source_types import source_types
from release_platform.pipeline.sources import describe, read_source

PREVIEW_ROWS = 5
_CELL = 40


def ingest(
    spec: ModelSpec,
    *,
    base: Path,
    store: SnapshotStore,
    partitions: Sequence[str] | None = None,
    now: datetime | None = None,
) -> dict[str | None, Snapshot]:
    """Returns the stored snapshots of a model's source, by partition key.

    Args:
        spec: The model.
        base: The folder of its `defs.yaml`.
        store: Where snapshots are kept.
        partitions: The months to take, `YYYY-MM`; None: all of the spec that are over, of an open end up to the
            newest that the source has a row of. Without `spec.partitions` there is one snapshot, under the key None.
        now: The present moment; None: that of the clock.

    Raises:
        SourceError: The source cannot be read, or a value does not fit its column's type.
        ContractError: The rows of the wanted months, together, break the contract.
        DataError: A month is unknown or has no rows, or a row has no time.
        Unavailable: The store cannot be written.
    """
    name = describe(spec.source)
    types = {column: rules.type for column, rules in spec.contract.columns.items()}
    read = read_source(spec.source, base=base, columns=types)
    given = source_types(read, spec.source)
    frame = conform(read, spec.contract, source=name)
    del read  # it may be large
    if spec.partitions is None:
        check(frame, spec.contract, source=name)
        return {None: store_frame(frame, store, given)}
    parts = _by_month(frame, spec.partitions, partitions, name, now or SystemClock().now())
    check(_together(frame, parts), spec.contract, source=name)
    return {key: store_frame(part.reset_index(drop=True), store, given) for key, part in parts.items()}


def store_frame(frame: pd.DataFrame, store: SnapshotStore, given: Mapping[str, str] | None = None) -> Snapshot:
    """Returns the snapshot of a data frame in the snapshot dtypes, fingerprinted and stored.

    Args:
        frame: The data.
        store: Where it is kept.
        given: The type that the source gave each column, see `source_types`.
    """
    found = fingerprint(columns_of(frame, given), n_rows=len(frame))
    return store.put(frame, found, preview=preview(frame))


def read_raw(store: SnapshotStore, snapshots: Mapping[str, Snapshot] | Mapping[str, StoredData]) -> pd.DataFrame:
    """Returns the raw data of all snapshots, in the order of their keys, indexed from 0.

    Raises:
        IntegrityError: A stored file is not the one that was written.
    """
    return joined([store.read(snapshots[key]) for key in sorted(snapshots)])


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns the rows of all frames, indexed from 0."""
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def data_differences(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """Returns one sentence for each difference of two snapshots, empty when both are the same data."""
    return differences(before.fingerprint, after.fingerprint)


def preview(frame: pd.DataFrame) -> str:
    """Returns the first rows as a Markdown table; missing values are empty cells."""
    rows = [[str(name) for name in frame.columns], ["---"] * len(frame.columns)]
    rows += [[_cell(value) for value in row] for row in frame.head(PREVIEW_ROWS).itertuples(index=False, name=None)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.replace("|", "\\|").split())
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."


def _by_month(
    frame: pd.DataFrame, months: PartitionSpec, wanted: Sequence[str] | None, source: str, now: datetime
) -> dict[str, pd.DataFrame]:
    over = months.keys_at(now)
    unknown = [key for key in wanted or () if key not in over]
    if unknown:
        raise DataError(
            f"{source}: there is no partition {', '.join(unknown)}",
            remedy=f"choose from {_range(over) or 'those that are over'}, or widen `partitions` in the defs.yaml",
        )
    found = _month_numbers(frame[months.column], source)
    first = pd.Period(months.start, "M").ordinal
    parts = {key: frame[found == first + over.index(key)] for key in (wanted or over)}
    if wanted is None and months.end is None:
        parts = _up_to_the_newest(parts)
    empty = [key for key, part in parts.items() if part.empty]
    if empty or not parts:
        there = [key for key, part in parts.items() if not part.empty]
        raise DataError(
            f"{source}: no row has its '{months.column}' in {', '.join(empty) or 'a month that is over'}",
            remedy="wait until the data is there"
            + (f", take others by `--partitions {there[0]}:{there[-1]}`" if there else "")
            + ", or narrow `partitions` in the model's defs.yaml",
        )
    return parts


def _up_to_the_newest(parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Returns the months up to the newest that has a row: what came after it is not there yet."""
    newest = max((key for key, part in parts.items() if not part.empty), default="")
    return {key: part for key, part in parts.items() if key <= newest}


def _range(keys: Sequence[str]) -> str:
    return f"{keys[0]} to {keys[-1]}" if keys else ""


def _month_numbers(times: "pd.Series[Any]", source: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    missing = times.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{source}, row {int(missing.argmax()) + 1}, column '{times.name}': {int(missing.sum()):,} row(s) have no "
            "time, so they belong to no month",
            remedy="correct them at the source, or drop `partitions` in the model's defs.yaml",
        )
    return times.to_numpy().astype("datetime64[M]").astype(np.int64)


def _together(frame: pd.DataFrame, parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = sum(len(part) for part in parts.values())
    return frame if rows == len(frame) else pd.concat(list(parts.values())).sort_index()


def columns_of(frame: pd.DataFrame, given: Mapping[str, str] | None = None) -> list[ColumnValues]:
    """Returns the columns of any data frame as the fingerprint takes them, without copies where memory allows.

    `given` names the types that a source gave to columns.
    """
    columns = [_column(str(name), frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
    return [replace(column, source=(given or {}).get(column.name, "")) for column in columns]


def _column(name: str, series: "pd.Series[Any]") -> ColumnValues:
    missing = series.isna().to_numpy(dtype=bool)
    dtype: Any = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        kind = f"category[{','.join(map(repr, dtype.categories))}; {dtype.categories.dtype}; {dtype.ordered}]"
        return ColumnValues(name=name, dtype=kind, values=series.cat.codes.to_numpy(), missing=missing)
    if isinstance(dtype, pd.StringDtype) or dtype.kind == "O":
        return _text(name, "string" if isinstance(dtype, pd.StringDtype) else "object", series, missing)
    if isinstance(dtype, pd.DatetimeTZDtype):
        values: Any = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    elif isinstance(dtype, np.dtype):
        values = series.to_numpy()
    else:
        values = series.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
    return ColumnValues(name=name, dtype=str(dtype), values=values, missing=missing)


def _text(name: str, dtype: str, series: "pd.Series[Any]", missing: Any) -> ColumnValues:
    array = pa.array(series, type=pa.large_string(), from_pandas=True)
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    array = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
    _, offsets, data = array.fill_null("").buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]] if data is not None else np.empty(0, np.uint8)
    return ColumnValues(name=name, dtype=dtype, values=content, missing=missing, lengths=np.diff(ends))
