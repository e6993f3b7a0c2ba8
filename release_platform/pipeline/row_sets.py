"""Two data frames compared as multisets of rows: whatever the order, which rows are in one and not in the other.

Rows are compared exactly, not by a hash of theirs: Arrow groups equal rows of both frames and counts them, +1 for one
frame and -1 for the other. That costs one pass over both and a table of their distinct rows; the flights against
themselves in another order (2 x 327,346 rows of 23 columns) take about a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

FIRST_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraRows:
    """Rows that one of two data frames has more often than the other.

    Attributes:
        count: How many, 0 and up; a row that is there three times more counts three times.
        first: 1-based numbers of the first such rows; of equal rows the first stands for all.
    """

    count: int
    first: tuple[int, ...]


def extra_rows(before: pd.DataFrame, after: pd.DataFrame) -> tuple[ExtraRows, ExtraRows]:
    """Returns the rows that only `before` has, and those that only `after` has.

    Args:
        before: Data in the snapshot dtypes.
        after: Data with the same columns and dtypes, in any order of columns and rows.
    """
    names = list(before.columns)
    sides = [_numbered(frame[names], side) for frame, side in ((before, 1), (after, -1))]
    keys = [f"c{i}" for i in range(len(names))]
    sums = [("side", "sum"), ("before", "min"), ("after", "min")]
    found = pa.concat_tables(sides).group_by(keys, use_threads=False).aggregate(sums)
    surplus = found["side_sum"].to_numpy()
    return _extra(surplus, found["before_min"]), _extra(-surplus, found["after_min"])


def _numbered(frame: pd.DataFrame, side: int) -> pa.Table:
    rows = np.arange(1, len(frame) + 1)
    none = pa.nulls(len(frame), pa.int64())
    columns: dict[str, Any] = {f"c{i}": _bits(frame.iloc[:, i]) for i in range(frame.shape[1])}
    columns |= {"side": np.full(len(frame), side), "before": rows, "after": none}
    if side < 0:
        columns |= {"before": none, "after": rows}
    return pa.table(columns)


def _bits(series: "pd.Series[Any]") -> pa.ChunkedArray | pa.Array:
    """Returns the column with numbers as their bits, so that -0.0 is not 0.0; every missing value is null."""
    if series.dtype != np.float64:
        return pa.array(series, from_pandas=True)
    return pa.array(series.to_numpy().view(np.int64), mask=series.isna().to_numpy())


def _extra(surplus: "np.ndarray[Any, Any]", rows: pa.ChunkedArray) -> ExtraRows:
    more = surplus > 0
    first: Sequence[int] = pc.filter(rows, pa.array(more)).sort()[:FIRST_ROWS].to_pylist()
    return ExtraRows(count=int(surplus[more].sum()), first=tuple(first))
