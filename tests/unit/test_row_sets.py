"""Two data frames as multisets of rows: order does not count, everything else does."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.pipeline.row_sets import ExtraRows, extra_rows

NONE = ExtraRows(count=0, first=())
FRAME = pd.DataFrame(
    {
        "number": [0.0, 1.5, np.nan, 1.5],
        "whole": pd.array([1, None, 3, None], dtype="Int64"),
        "flag": pd.array([True, None, False, None], dtype="boolean"),
        "word": pd.array(["a", "", None, ""], dtype="string[pyarrow]"),
        "when": pd.Series(["2026-01-01", None, "2026-01-02", None], dtype="datetime64[us]"),
    }
)


def test_rows_in_another_order_are_the_same_rows() -> None:
    turned = FRAME.iloc[::-1].reset_index(drop=True)[["word", "when", "flag", "whole", "number"]]
    assert extra_rows(FRAME, turned) == (NONE, NONE)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("number", 0, -0.0),
        ("number", 2, 0.0),
        ("whole", 1, 0),
        ("flag", 1, False),
        ("word", 1, None),
        ("word", 2, ""),
        ("when", 0, pd.Timestamp("2026-01-01 00:00:00.000001")),
    ],
)
def test_one_changed_value_is_one_row_less_and_one_row_more(column: str, row: int, value: Any) -> None:
    after = FRAME.copy()
    after.loc[row, column] = value
    before, later = extra_rows(FRAME, after)
    assert (before.count, later) == (1, ExtraRows(count=1, first=(row + 1,)))
    assert FRAME.iloc[before.first[0] - 1].equals(FRAME.iloc[row])


def test_how_often_a_row_is_there_counts() -> None:
    twice = pd.concat([FRAME, FRAME.iloc[[0, 0]]], ignore_index=True)
    assert extra_rows(FRAME, twice) == (NONE, ExtraRows(count=2, first=(1,)))
    assert extra_rows(twice, FRAME) == (ExtraRows(count=2, first=(1,)), NONE)


def test_missing_numbers_are_equal_whatever_their_bits() -> None:
    payload = np.array([1.0, np.nan])
    payload.view(np.uint64)[1] |= 12_345
    assert extra_rows(pd.DataFrame({"x": [np.nan, 1.0]}), pd.DataFrame({"x": payload})) == (NONE, NONE)


def test_only_the_first_rows_are_listed() -> None:
    before, after = extra_rows(pd.DataFrame({"x": np.arange(9.0)}), pd.DataFrame({"x": np.empty(0)}))
    assert (before, after) == (ExtraRows(count=9, first=(1, 2, 3, 4, 5)), NONE)


ROWS = st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0]), st.sampled_from(["", "a"])), max_size=6)


@given(ROWS, ROWS)
def test_rows_are_the_same_exactly_when_the_sorted_rows_are(one: Any, other: Any) -> None:
    frames = [
        pd.DataFrame({"x": [r[0] for r in rows], "w": [r[1] for r in rows]}).astype(
            {"x": float, "w": "string[pyarrow]"}
        )
        for rows in (one, other)
    ]
    found = extra_rows(*frames)
    assert (found == (NONE, NONE)) == (sorted(map(repr, one)) == sorted(map(repr, other)))
    assert found[0].count - found[1].count == len(one) - len(other)
