"""The contract: every value gets its column's type or is named, and every broken rule is told with its first rows."""

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.data_spec import ColumnContract, ContractSpec
from release_platform.domain.errors import ContractError, SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.contract import check, conform

NAN = float("nan")


def contract(kind: ColumnType, *, minimum_rows: int = 1, **rules: Any) -> ContractSpec:
    return ContractSpec(columns={"x": ColumnContract(type=kind, **rules)}, minimum_rows=minimum_rows)


def conformed(values: Any, kind: str) -> "pd.Series[Any]":
    frame = pd.DataFrame({"other": range(len(values)), "x": values})
    return conform(frame, contract(ColumnType(kind)), source="s")["x"]


def plain(values: "pd.Series[Any]") -> list[Any]:
    return [None if pd.isna(v) else v for v in values]


AWARE = datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("kind", "dtype", "given_values", "wanted"),
    [
        ("number", "float64", [1, 2], [1.0, 2.0]),
        ("number", "float64", pd.array([1, None], dtype="Int32"), [1.0, None]),
        ("number", "float64", ["1.5", " 2e3 ", None], [1.5, 2000.0, None]),
        ("number", "float64", [Decimal("1.25"), None], [1.25, None]),
        ("number", "float64", [True, False], [1.0, 0.0]),
        ("number", "float64", [-0.0, NAN], [-0.0, None]),
        ("integer", "Int64", [1.0, NAN], [1, None]),
        ("integer", "Int64", ["9007199254740993", None], [9007199254740993, None]),
        ("integer", "Int64", ["3.0", "4"], [3, 4]),
        ("integer", "Int64", np.array([1, 2], dtype="uint64"), [1, 2]),
        ("boolean", "boolean", [True, None], [True, None]),
        ("boolean", "boolean", [1.0, 0.0, NAN], [True, False, None]),
        ("boolean", "boolean", ["Yes", "no", "TRUE", "0", None], [True, False, True, False, None]),
        ("category", "string", ["a", "", None], ["a", "", None]),
        ("category", "string", pd.Categorical(["b", "a", None], categories=["b", "a"]), ["b", "a", None]),
        ("category", "string", [True, False], ["true", "false"]),
        ("category", "string", [7, 8], ["7", "8"]),
        ("category", "string", [7.0, NAN], ["7", None]),
        ("category", "string", [7.5, NAN], ["7.5", None]),
        ("category", "string", ["a", 1, True, None], ["a", "1", "true", None]),
        ("timestamp", "datetime64[us]", ["2020-01-01", "2020-01-01T00:00:01"], ["2020-01-01", "2020-01-01 00:00:01"]),
        ("timestamp", "datetime64[us]", ["2020-01-01T02:00:00+02:00", None], ["2020-01-01", None]),
        ("timestamp", "datetime64[us]", ["2020-01-01T00:00:00Z", "2020-01-01"], ["2020-01-01", "2020-01-01"]),
        ("timestamp", "datetime64[us]", [AWARE, None], ["2020-01-01", None]),
        (
            "timestamp",
            "datetime64[us]",
            pd.to_datetime(["2020-01-01 00:00:00.000001999"]),
            ["2020-01-01 00:00:00.000001"],
        ),
        ("timestamp", "datetime64[us]", [date(2020, 1, 1), None], ["2020-01-01", None]),
        ("timestamp", "datetime64[us]", pd.Series(["2020-01-01"]).astype("datetime64[s]"), ["2020-01-01"]),
        ("number", "float64", [None, None], [None, None]),
        ("category", "string", [None, None], [None, None]),
    ],
)
def test_values_that_fit_get_the_columns_type(kind: str, dtype: str, given_values: Any, wanted: list[Any]) -> None:
    found = conformed(given_values, kind)
    if kind == "timestamp":
        wanted = [None if value is None else pd.Timestamp(value) for value in wanted]
    assert str(found.dtype) == dtype
    assert plain(found) == wanted


@pytest.mark.parametrize(
    ("kind", "given_values", "row", "shown"),
    [
        ("number", ["1", "2", "abc", "4"], 3, "'abc'"),
        ("number", ["", "1"], 1, "''"),
        ("number", [1.0, NAN, float("inf")], 3, "inf"),
        ("number", [1, 2.5, None, "3x"], 4, "'3x'"),
        ("number", pd.to_datetime(pd.Series([None, "2020-01-01"])), 2, "2020"),
        ("integer", [1.0, 2.0, 2.5], 3, "2.5"),
        ("integer", ["1", "1.5"], 2, "'1.5'"),
        ("integer", np.array([1, 2**63], dtype="uint64"), 2, "9223372036854775808"),
        ("boolean", ["true", "maybe"], 2, "'maybe'"),
        ("boolean", [0, 1, 2], 3, "2"),
        ("timestamp", ["2020-01-01", "01/02/2020"], 2, "'01/02/2020'"),
        ("timestamp", ["2020-01-01", "2020-02-30"], 2, "'2020-02-30'"),
        ("timestamp", [1_600_000_000], 1, "1600000000"),
        ("category", [["a"], ["b"]], 1, "['a']"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row_and_column(
    kind: str, given_values: Any, row: int, shown: str
) -> None:
    with pytest.raises(SourceError) as caught:
        conformed(given_values, kind)
    assert (caught.value.row, caught.value.column, caught.value.source) == (row, "x", "s")
    assert shown in caught.value.problem


@given(st.integers(0, 299), st.integers(1, 300))
def test_the_first_bad_row_is_found_wherever_it_is(bad: int, n_rows: int) -> None:
    bad = min(bad, n_rows - 1)
    values = ["1"] * bad + ["bad"] + ["2", "worse"] * ((n_rows - bad) // 2)
    with pytest.raises(SourceError) as caught:
        conformed(values, "number")
    assert caught.value.row == bad + 1


def test_a_missing_column_suggests_the_nearest_name() -> None:
    with pytest.raises(SourceError, match=r"column 'x': there is no such column[\s\S]*did you mean 'X'"):
        conform(pd.DataFrame({"X": [1]}), contract(ColumnType.NUMBER), source="s")


def test_arrow_columns_are_taken_as_they_are() -> None:
    frame = pd.DataFrame({"x": pd.Series([1, None], dtype=pd.ArrowDtype(pa.int32()))})
    assert plain(conform(frame, contract(ColumnType.INTEGER), source="s")["x"]) == [1, None]


def violations(values: Any, kind: str, **rules: Any) -> list[str]:
    held = contract(ColumnType(kind), **rules)
    frame = conform(pd.DataFrame({"x": values}), held, source="s")
    try:
        check(frame, held, source="s")
    except ContractError as error:
        return list(error.violations)
    return []


@pytest.mark.parametrize(
    ("kind", "rules", "good", "bad", "told"),
    [
        ("number", {"minimum": 1}, [1.0, 2.0], [1.0, 0.999], "column 'x', minimum 1: 1 row(s): row 2 (0.999)"),
        ("number", {"maximum": 2}, [1.0, 2.0], [2.001, 1.0], "column 'x', maximum 2: 1 row(s): row 1 (2.001)"),
        ("integer", {"minimum": 1}, [1, 2], [0, 1], "column 'x', minimum 1: 1 row(s): row 1 (0)"),
        ("integer", {"allowed": (1, 2)}, [1, 2], [1, 3], "column 'x', allowed 1, 2: 1 row(s): row 2 (3)"),
        ("category", {"allowed": ("a", "b")}, ["a"], ["c", "a"], "column 'x', allowed a, b: 1 row(s): row 1 ('c')"),
        ("category", {"allowed": (1, True)}, ["1", "true"], ["True"], "allowed 1, true: 1 row(s): row 1 ('True')"),
        ("boolean", {"allowed": (True,)}, [True], [True, False], "allowed True: 1 row(s): row 2 (False)"),
        ("number", {}, [1.0], [1.0, None], "column 'x', not nullable: 1 row(s): row 2 (missing)"),
        ("category", {}, ["a"], [None, "a"], "column 'x', not nullable: 1 row(s): row 1 (missing)"),
        (
            "number",
            {"unique": True},
            [1.0, 2.0],
            [1.0, 2.0, 1.0],
            "column 'x', unique: 2 row(s): row 1 (1.0), row 3 (1.0)",
        ),
        (
            "number",
            {"nullable": True, "maximum_missing": 0.5},
            [1.0, None],
            [1.0, None, None],
            "column 'x', maximum_missing 0.5: 2 of 3 values are missing",
        ),
        (
            "number",
            {"nullable": True},
            [1.0, None],
            [None, None],
            "column 'x', not all missing: 2 of 2 values are missing",
        ),
        ("number", {"minimum_rows": 2}, [1.0, 2.0], [1.0], "minimum_rows 2: there are 1 rows"),
    ],
)
def test_each_rule_holds_up_to_its_limit_and_is_told_beyond_it(
    kind: str, rules: dict[str, Any], good: Any, bad: Any, told: str
) -> None:
    assert violations(good, kind, **rules) == []
    found = violations(bad, kind, **rules)
    assert len(found) == 1
    assert told in found[0]


def test_missing_values_break_neither_bounds_nor_allowed() -> None:
    assert violations([1.0, None], "number", nullable=True, minimum=1, maximum=1) == []
    assert violations([1, None], "integer", nullable=True, minimum=1, allowed=(1,)) == []
    assert violations(["a", None], "category", nullable=True, allowed=("a",)) == []


def test_only_the_first_rows_are_shown_and_all_are_counted() -> None:
    (found,) = violations([-float(i) for i in range(1, 2_001)], "number", minimum=0)
    assert found == "column 'x', minimum 0: 2,000 row(s): row 1 (-1.0), row 2 (-2.0), row 3 (-3.0), ..."


def test_every_broken_rule_is_told_at_once() -> None:
    held = ContractSpec(
        columns={
            "a": ColumnContract(type=ColumnType.INTEGER, minimum=0),
            "b": ColumnContract(type=ColumnType.CATEGORY, allowed=("x",)),
        },
        minimum_rows=10,
        unique_together=("a", "b"),
    )
    frame = conform(pd.DataFrame({"a": [-1, -1], "b": ["y", "y"]}), held, source="flights.csv")
    with pytest.raises(ContractError, match=r"flights\.csv: the data breaks its contract in 4 place") as caught:
        check(frame, held, source="flights.csv")
    text = "\n".join(caught.value.violations)
    for told in ("column 'a', minimum 0", "column 'b', allowed x", "minimum_rows 10", "unique_together a, b: 2 row(s)"):
        assert told in text


def test_row_numbers_are_those_of_the_source_when_rows_were_left_out() -> None:
    held = contract(ColumnType.NUMBER, minimum=0)
    frame = conform(pd.DataFrame({"x": [1.0, 2.0, -3.0]}), held, source="s")
    with pytest.raises(ContractError, match=r"row 3 \(-3\.0\)"):
        check(frame[frame["x"] != 2.0], held, source="s")


def test_checking_leaves_the_data_as_it_is() -> None:
    held = contract(ColumnType.INTEGER, nullable=True)
    frame = conform(pd.DataFrame({"x": [1, None]}), held, source="s")
    before = frame.copy()
    check(frame, held, source="s")
    pd.testing.assert_frame_equal(frame, before)
