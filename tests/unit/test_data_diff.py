"""What changed between two datasets: the column, the block and the first rows, and nothing else."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from release_platform.domain.fingerprint import BLOCK_ROWS, fingerprint
from release_platform.pipeline.data_diff import ChangedRow, DataDiff, diff
from release_platform.pipeline.ingest import columns_of

N_ROWS = BLOCK_ROWS + 10


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": np.arange(N_ROWS, dtype=np.float64),
            "whole": pd.array([1, 2] * (N_ROWS // 2), dtype="Int64"),
            "flag": pd.array([True, False] * (N_ROWS // 2), dtype="boolean"),
            "word": pd.array(["a", None] * (N_ROWS // 2), dtype="string[pyarrow]"),
            "when": pd.date_range("2026-01-01", periods=N_ROWS, freq="min").astype("datetime64[us]"),
        }
    )


def compare(before: pd.DataFrame, after: pd.DataFrame) -> DataDiff:
    prints = [fingerprint(columns_of(part), n_rows=len(part)) for part in (before, after)]
    return diff(before, after, *prints)


def test_equal_data_has_no_difference(frame: pd.DataFrame) -> None:
    assert compare(frame, frame.copy()) == DataDiff(same=True, same_rows=True, sentences=(), rows={})


@pytest.mark.parametrize(
    ("column", "row", "value", "was"),
    [
        ("number", 12_000, -1.0, 12_000.0),
        ("number", 0, -0.0, 0.0),
        ("number", N_ROWS - 1, np.nan, float(N_ROWS - 1)),
        ("whole", BLOCK_ROWS + 1, 7, 2),
        ("flag", 3, True, False),
        ("word", 3, "", None),
        ("word", 2, pd.NA, "a"),
        ("when", 1, pd.Timestamp("2027-01-01"), pd.Timestamp("2026-01-01 00:01")),
    ],
)
def test_one_changed_value_is_named_with_its_row(
    frame: pd.DataFrame, column: str, row: int, value: Any, was: Any
) -> None:
    after = frame.copy()
    after.loc[row, column] = value
    found = compare(frame, after)
    assert not found.same
    assert not found.same_rows
    assert list(found.rows) == [column]
    now = None if pd.isna(value) else value
    assert found.rows[column] == (ChangedRow(row=row + 1, before=was, after=now),)


def test_only_the_first_rows_are_listed(frame: pd.DataFrame) -> None:
    found = compare(frame, frame.assign(number=frame["number"] + 1))
    assert [row.row for row in found.rows["number"]] == [1, 2, 3, 4, 5]
    assert "2 block(s)" in found.sentences[0]


def test_rows_in_another_order_are_the_same_rows(frame: pd.DataFrame) -> None:
    found = compare(frame, frame.iloc[::-1].reset_index(drop=True))
    assert not found.same
    assert found.same_rows


def test_appended_rows_are_told(frame: pd.DataFrame) -> None:
    found = compare(frame.iloc[:-1], frame)
    assert f"{N_ROWS:,} rows instead of {N_ROWS - 1:,}" in found.sentences
    assert found.rows["number"][-1] == ChangedRow(row=N_ROWS, before=None, after=float(N_ROWS - 1))


def test_a_column_of_another_type_is_told_and_not_looked_into(frame: pd.DataFrame) -> None:
    found = compare(frame, frame.assign(whole=frame["whole"].astype("float64")))
    assert found.sentences == ("column 'whole' is float64 instead of Int64",)
    assert not found.rows
