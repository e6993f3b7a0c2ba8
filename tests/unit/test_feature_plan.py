"""The feature plan: stateless derivations that training and serving share, and JSON values as columns."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.features import (
    MISSING,
    Column,
    ColumnType,
    Derived,
    FeaturePlan,
    Input,
    InputError,
    Operation,
    as_column,
    is_missing,
)

T = ColumnType
NAN = math.nan


def column(kind: ColumnType, values: list[Any]) -> Column:
    return as_column(Input(name="x", type=kind, nullable=True), values)


def derive(operation: str, *inputs: tuple[ColumnType, list[Any]]) -> list[Any]:
    names = [f"i{n}" for n in range(len(inputs))]
    plan = FeaturePlan(
        inputs=tuple(Input(name=n, type=kind, nullable=True) for n, (kind, _) in zip(names, inputs, strict=True)),
        derived=(Derived(name="d", operation=Operation(operation), of=tuple(names)),),
        features=("d",),
    )
    (found,) = plan.apply({n: column(kind, values) for n, (kind, values) in zip(names, inputs, strict=True)}).values()
    return list(found.tolist())


def numbers(*values: float | None) -> tuple[ColumnType, list[Any]]:
    return T.NUMBER, list(values)


def times(*values: str | None) -> tuple[ColumnType, list[Any]]:
    return T.TIMESTAMP, list(values)


@pytest.mark.parametrize(
    ("operation", "inputs", "wanted"),
    [
        ("add", [numbers(1, 2, None), numbers(3, None, 1)], [4.0, NAN, NAN]),
        ("subtract", [numbers(1, 2), numbers(3, None)], [-2.0, NAN]),
        ("multiply", [numbers(2, None), numbers(3, 1)], [6.0, NAN]),
        ("divide", [numbers(6, 1, 0), numbers(3, 0, 0)], [2.0, NAN, NAN]),
        ("log1p", [numbers(0, -1, -2, None)], [0.0, NAN, NAN, NAN]),
        ("absolute", [numbers(-2, None)], [2.0, NAN]),
        ("is_missing", [numbers(0, None)], [0.0, 1.0]),
        ("is_missing", [(T.CATEGORY, ["", None])], [0.0, 1.0]),
        ("is_missing", [times("2020-01-01", None)], [0.0, 1.0]),
        ("hour", [times("2020-01-01T23:59:59", "1969-12-31T05:00:00", None)], [23.0, 5.0, NAN]),
        ("weekday", [times("1970-01-01", "2020-02-03", "1969-12-31", None)], [3.0, 0.0, 2.0, NAN]),
        ("month", [times("2020-12-31", "1969-01-01", None)], [12.0, 1.0, NAN]),
        ("sine_of_day", [times("2020-01-01T06:00:00", "2020-01-01", None)], [1.0, 0.0, NAN]),
        ("cosine_of_day", [times("2020-01-01T12:00:00", "2020-01-01", None)], [-1.0, 1.0, NAN]),
        ("subtract", [times("2020-01-02", None), times("2020-01-01", "2020-01-01")], [86_400.0, NAN]),
        ("combine", [(T.CATEGORY, ["a", None]), (T.CATEGORY, ["b", "c"])], ["a|b", MISSING]),
        ("add", [(T.BOOLEAN, [True, False, None]), (T.INTEGER, [1, 1, 1])], [2.0, 1.0, NAN]),
    ],
)
def test_each_operation_is_computed_row_by_row(operation: str, inputs: Any, wanted: list[Any]) -> None:
    found = derive(operation, *inputs)
    if isinstance(wanted[0], str):
        assert found == wanted
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-12)


@given(st.lists(st.one_of(st.none(), st.datetimes()), min_size=1, max_size=8))
def test_a_row_has_the_same_features_alone_as_among_others(moments: list[Any]) -> None:
    texts = [None if m is None else m.isoformat() for m in moments]
    for operation in ("hour", "weekday", "month", "sine_of_day"):
        together = derive(operation, times(*texts))
        alone = [derive(operation, times(text))[0] for text in texts]
        np.testing.assert_array_equal(together, alone)


@given(st.datetimes())
def test_calendar_features_are_pythons(moment: Any) -> None:
    found = [derive(operation, times(moment.isoformat()))[0] for operation in ("hour", "weekday", "month")]
    assert found == [moment.hour, moment.weekday(), moment.month]


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (T.NUMBER, 3, 3.0),
        (T.NUMBER, -0.5, -0.5),
        (T.INTEGER, 3.0, 3.0),
        (T.BOOLEAN, True, 1.0),
        (T.CATEGORY, "", ""),
        (T.TIMESTAMP, "2020-01-01T02:00:00+02:00", np.datetime64("2020-01-01", "us")),
        (T.TIMESTAMP, "2020-01-01", np.datetime64("2020-01-01", "us")),
    ],
)
def test_a_json_value_of_the_right_type_is_taken(kind: ColumnType, value: object, wanted: object) -> None:
    assert column(kind, [value])[0] == wanted


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (T.NUMBER, True, "not a number"),
        (T.NUMBER, "1", "not a number"),
        (T.NUMBER, NAN, "not finite"),
        (T.NUMBER, math.inf, "not finite"),
        (T.NUMBER, 10**400, "is not finite"),
        (T.INTEGER, 1.5, "not a whole number"),
        (T.BOOLEAN, 1, "not true or false"),
        (T.CATEGORY, 1, "not text"),
        (T.CATEGORY, "\ud800", "surrogates"),
        (T.TIMESTAMP, "yesterday", "not an ISO 8601 time"),
        (T.TIMESTAMP, 0, "not an ISO 8601 time"),
    ],
)
def test_a_json_value_of_another_type_is_refused_with_its_row(kind: ColumnType, value: object, problem: str) -> None:
    good = {T.CATEGORY: "a", T.TIMESTAMP: "2020-01-01", T.BOOLEAN: True}.get(kind, 1)
    with pytest.raises(InputError, match=problem) as caught:
        column(kind, [good, value])
    assert (caught.value.field, caught.value.row) == ("x", 1)


@pytest.mark.parametrize("kind", list(ColumnType))
def test_null_is_missing_where_it_may_be_and_refused_elsewhere(kind: ColumnType) -> None:
    assert is_missing(column(kind, [None])).tolist() == [True]
    with pytest.raises(InputError, match="may not be null"):
        as_column(Input(name="x", type=kind), [None])


def plan(**changes: Any) -> FeaturePlan:
    given: dict[str, Any] = {
        "inputs": (Input(name="a", type=T.NUMBER), Input(name="t", type=T.TIMESTAMP), Input(name="c", type=T.CATEGORY)),
        "derived": (),
        "features": ("a",),
    }
    return FeaturePlan(**(given | changes))


def step(operation: str, *of: str) -> tuple[Derived, ...]:
    return (Derived(name="d", operation=Operation(operation), of=of),)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"features": ()}, "at least one feature"),
        ({"features": ("b",)}, "neither an input nor derived"),
        ({"features": ("t",)}, "is a timestamp"),
        ({"inputs": (Input(name="a", type=T.NUMBER),) * 2}, "named twice"),
        ({"derived": step("log1p", "z")}, "no input and not derived before"),
        ({"derived": step("log1p", "c")}, "does not take the category"),
        ({"derived": step("hour", "a")}, "does not take the number"),
        ({"derived": step("combine", "c", "a")}, "does not take the number"),
        ({"derived": step("subtract", "t", "a")}, "cannot be taken together"),
        ({"derived": (Derived(name="a", operation=Operation.LOG1P, of=("a",)),)}, "named twice"),
    ],
)
def test_a_plan_that_cannot_be_computed_does_not_exist(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        plan(**changes)


def test_a_derivation_takes_the_right_number_of_columns() -> None:
    with pytest.raises(ValueError, match="takes 2 column"):
        step("add", "a")


def test_a_derivation_may_build_on_one_before_it() -> None:
    chained = plan(
        derived=(
            Derived(name="b", operation=Operation.LOG1P, of=("a",)),
            Derived(name="d", operation=Operation.ADD, of=("a", "b")),
        ),
        features=("d", "a"),
    )
    columns = {"a": column(T.NUMBER, [1.0]), "t": column(T.TIMESTAMP, [None]), "c": column(T.CATEGORY, [None])}
    found = chained.apply(columns)
    assert list(found) == ["d", "a"]
    assert found["d"][0] == pytest.approx(1 + math.log(2))
    assert chained.types == {"d": T.NUMBER, "a": T.NUMBER}
    assert FeaturePlan.from_json(chained.to_json()) == chained


def test_an_absent_input_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        plan().apply({"a": column(T.NUMBER, [1.0])})
