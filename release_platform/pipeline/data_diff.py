"""What changed between two snapshots: columns, blocks of rows, and the first rows that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from release_platform.domain.fingerprint import BLOCK_ROWS, Fingerprint, differences

FIRST_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRow:
    """One value that differs: its 1-based row, and what it was and is; None where a row or value is missing."""

    row: int
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiff:
    """Two datasets compared.

    Attributes:
        same: Whether they are the same data, in the same order.
        same_rows: Whether they hold the same rows, in any order.
        sentences: What differs, by column and block.
        rows: The first rows that differ, by column.
    """

    same: bool
    same_rows: bool
    sentences: tuple[str, ...]
    rows: Mapping[str, tuple[ChangedRow, ...]]


def diff(
    before: pd.DataFrame, after: pd.DataFrame, before_fingerprint: Fingerprint, after_fingerprint: Fingerprint
) -> DataDiff:
    """Returns what changed from one data frame to another, both in the snapshot dtypes.

    Only blocks of rows whose digests differ are looked into.
    """
    sentences = differences(before_fingerprint, after_fingerprint)
    same = before_fingerprint.digest == after_fingerprint.digest
    old = {column.name: column for column in before_fingerprint.columns}
    rows = {}
    for column in after_fingerprint.columns:
        was = old.get(column.name)
        if was is not None and was.digest != column.digest and was.dtype == column.dtype:
            blocks = [i for i, (a, b) in enumerate(zip(was.blocks, column.blocks, strict=False)) if a != b]
            rows[column.name] = _first_rows(before[column.name], after[column.name], blocks)
    return DataDiff(same=same, same_rows=same or _same_rows(before, after), sentences=sentences, rows=rows)


def _first_rows(before: "pd.Series[Any]", after: "pd.Series[Any]", blocks: list[int]) -> tuple[ChangedRow, ...]:
    found: list[ChangedRow] = []
    for block in blocks:
        part = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        was, now = before.iloc[part].reset_index(drop=True), after.iloc[part].reset_index(drop=True)
        length = max(len(was), len(now))
        was, now = was.reindex(range(length)), now.reindex(range(length))
        for place in np.flatnonzero(_differ(was, now))[: FIRST_ROWS - len(found)]:
            row = block * BLOCK_ROWS + int(place) + 1
            found.append(ChangedRow(row=row, before=_shown(was.iloc[place]), after=_shown(now.iloc[place])))
        if len(found) == FIRST_ROWS:
            break
    return tuple(found)


def _differ(was: "pd.Series[Any]", now: "pd.Series[Any]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    gone = was.isna().to_numpy(dtype=bool), now.isna().to_numpy(dtype=bool)
    unequal = (was != now).fillna(False).to_numpy(dtype=bool)
    if was.dtype == np.float64:
        unequal |= np.signbit(was.to_numpy()) != np.signbit(now.to_numpy())  # -0.0 is not 0.0
    found: np.ndarray[Any, np.dtype[np.bool_]] = (gone[0] != gone[1]) | (unequal & ~gone[0] & ~gone[1])
    return found


def _shown(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _same_rows(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    if len(before) != len(after) or set(before.columns) != set(after.columns):
        return False
    if any(before[name].dtype != after[name].dtype for name in before.columns):
        return False
    one, other = (np.sort(_row_hashes(frame[list(before.columns)])) for frame in (before, after))
    return bool(np.array_equal(one, other))


def _row_hashes(frame: pd.DataFrame) -> "np.ndarray[Any, Any]":
    plain = frame.apply(lambda c: c.astype("string") if c.dtype.kind not in "fM" else c)
    return pd.util.hash_pandas_object(plain, index=False).to_numpy()
