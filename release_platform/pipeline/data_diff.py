"""What changed between two snapshots: columns, blocks of rows, and the first rows that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from release_platform.domain.fingerprint import BLOCK_ROWS, Fingerprint, column_differences, differences
from release_platform.pipeline.row_sets import ExtraRows, extra_rows

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsDiff:
    """Two datasets compared as multisets of rows.

    Attributes:
        sentences: Which columns differ, in name or type.
        only_before: Rows that only the first has; None where the columns differ, so that rows cannot be compared.
        only_after: The same of the second.
    """

    sentences: tuple[str, ...]
    only_before: ExtraRows | None
    only_after: ExtraRows | None

    @property
    def same(self) -> bool:
        """Whether both hold the same rows, each as often."""
        extra = (self.only_before, self.only_after)
        return all(rows is not None and rows.count == 0 for rows in extra)

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as a JSON value."""
        rows = {"only_before": self.only_before, "only_after": self.only_after}
        return {"same_rows_in_any_order": self.same, "differences": list(self.sentences)} | {
            side: None if of is None else {"count": of.count, "first_rows": list(of.first)} for side, of in rows.items()
        }


def diff_in_any_order(
    before: pd.DataFrame, after: pd.DataFrame, before_fingerprint: Fingerprint, after_fingerprint: Fingerprint
) -> RowsDiff:
    """Returns which rows only one of two data frames has, both in the snapshot dtypes, whatever their order."""
    sentences = column_differences(before_fingerprint, after_fingerprint)
    one, other = extra_rows(before, after) if _same_columns(before, after) else (None, None)
    return RowsDiff(sentences=sentences, only_before=one, only_after=other)


def _same_columns(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    return before.dtypes.to_dict() == after.dtypes.to_dict()


def _same_rows(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    if len(before) != len(after) or not _same_columns(before, after):
        return False
    return all(extra.count == 0 for extra in extra_rows(before, after))
