"""A request's rows or columns become the plan's inputs, or the field and row at fault are named."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from serving.errors import DuplicateKey, InvalidInput, MalformedBody, RequestProblem, problem_response
from serving.forms import Form
from serving.inputs import read_json
from serving.limits import Limits

PLAN = FeaturePlan(
    inputs=(
        Input(name="a", type=ColumnType.NUMBER),
        Input(name="b", type=ColumnType.NUMBER, nullable=True),
        Input(name="city", type=ColumnType.CATEGORY),
    ),
    derived=(),
    features=("a", "b", "city"),
)
GOOD = {"a": 1, "b": None, "city": "x"}


def read(value, max_rows=3):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_json(body, Form(PLAN), Limits(max_rows=max_rows))


def test_rows_and_columns_are_two_ways_to_say_the_same():
    rows = read({"rows": [GOOD, {"city": "y", "b": 2.5, "a": 3}]})
    columns = read({"columns": {"city": ["x", "y"], "a": [1, 3], "b": [None, 2.5]}})
    assert list(rows) == list(columns) == ["a", "b", "city"]
    for name, values in rows.items():
        np.testing.assert_array_equal(values, columns[name])


@pytest.mark.parametrize("n_rows", [1, 3])
def test_one_row_and_as_many_as_allowed_are_taken(n_rows):
    assert len(read({"rows": [GOOD] * n_rows})["a"]) == n_rows
    assert len(read({"columns": {name: [value] * n_rows for name, value in GOOD.items()}})["a"]) == n_rows


@pytest.mark.parametrize(
    ("value", "field", "row"),
    [
        ([], None, None),
        ("text", None, None),
        (None, None, None),
        ({}, None, None),
        ({"rows": [GOOD], "columns": {}}, None, None),
        ({"instances": [GOOD]}, "instances", None),
        ({"rows": {}}, "rows", None),
        ({"rows": []}, "rows", None),
        ({"rows": [GOOD] * 4}, "rows", None),
        ({"rows": [GOOD, [1, 2, "x"]]}, None, 1),
        ({"rows": [GOOD, {"a": 1, "b": 2}]}, "city", 1),
        ({"rows": [GOOD, GOOD | {"ciyt": "x"}]}, "ciyt", 1),
        ({"rows": [GOOD, GOOD | {"a": "1"}]}, "a", 1),
        ({"rows": [GOOD, GOOD | {"a": True}]}, "a", 1),
        ({"rows": [GOOD | {"a": None}]}, "a", 0),
        ({"rows": [GOOD | {"b": [1]}]}, "b", 0),
        ({"rows": [GOOD | {"b": {}}]}, "b", 0),
        ({"rows": [GOOD | {"city": 3}]}, "city", 0),
        ({"columns": []}, "columns", None),
        ({"columns": {"a": [1], "b": [1]}}, "city", None),
        ({"columns": {"a": [1], "b": [1], "city": ["x"], "d": [1]}}, "d", None),
        ({"columns": {"a": 1, "b": [1], "city": ["x"]}}, "a", None),
        ({"columns": {"a": [1, 2], "b": [1], "city": ["x", "y"]}}, "b", None),
        ({"columns": {"a": [], "b": [], "city": []}}, "columns", None),
        ({"columns": {"a": [1] * 4, "b": [1] * 4, "city": ["x"] * 4}}, "columns", None),
        ({"columns": {"a": [1, "2"], "b": [1, 1], "city": ["x", "y"]}}, "a", 1),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, list | dict) else None,
)
def test_what_the_model_does_not_take_is_named(value, field, row):
    with pytest.raises(InvalidInput) as caught:
        read(value)
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000, "-" + "9" * 5000],
    ids=lambda text: text[:9],
)
def test_a_number_that_is_not_finite_is_named_with_field_and_row(text):
    body = f'{{"rows": [{json.dumps(GOOD)}, {{"a": {text}, "b": 1, "city": "x"}}]}}'
    with pytest.raises(InvalidInput) as caught:
        read(body.encode())
    assert (caught.value.field, caught.value.row) == ("a", 1)


def test_a_lone_surrogate_is_named_with_field_and_row():
    with pytest.raises(InvalidInput) as caught:
        read(b'{"rows": [{"a": 1, "b": 1, "city": "\\ud800"}]}')
    assert (caught.value.field, caught.value.row) == ("city", 0)


def test_what_only_a_lenient_reader_takes_is_never_predicted():
    with pytest.raises(MalformedBody):
        read(b'{"rows": [{"a": 1, "b": 1, "city": "x\t"}], "rows": [{"a": 1, "b": NaN, "city": "x"}] }x')


def test_deep_nesting_inside_a_value_is_refused():
    for depth in (500, 1000, 50_000):
        body = b'{"rows": [{"a": ' + b"[" * depth + b"]" * depth + b', "b": 1, "city": "x"}]}'
        with pytest.raises(RequestProblem):
            read(body)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(InvalidInput, match="did you mean 'city'"):
        read({"rows": [{"a": 1, "b": 1, "ciyt": "x"}]})


# Rows of numbers only, which have a reader of their own

_X = Input(name="x", type=ColumnType.NUMBER, nullable=True)
NULLABLE = FeaturePlan(inputs=(_X,), derived=(), features=("x",))


def read_numbers(body):
    return read_json(body, Form(NULLABLE), Limits())


@pytest.mark.parametrize("name", ["x", "\\u0078"])
def test_a_key_that_stands_twice_is_refused_however_others_are_written(name):
    body = b'{"rows": [{"x": 1, "%s": 2}], "route_key": "a\\u003ab"}' % name.encode()
    with pytest.raises(DuplicateKey) as caught:
        read_numbers(body)
    assert caught.value.field == "x"


@pytest.mark.parametrize("n_rows", [1, 6000])
def test_a_byte_order_mark_is_refused_in_short_and_long_bodies(n_rows):
    body = json.dumps({"columns": {"x": [1.5] * n_rows}}).encode()
    assert len(read_numbers(body)) == n_rows
    with pytest.raises(MalformedBody, match="BOM"):
        read_numbers(b"\xef\xbb\xbf" + body)


@pytest.mark.parametrize("body", [b'{"rows": [{"x": null}, {"x": NaN}]}', b'{"columns": {"x": [null, NaN]}}'])
def test_nan_beside_null_is_named_with_field_and_row(body):
    with pytest.raises(InvalidInput) as caught:
        read_numbers(body)
    assert (caught.value.field, caught.value.row) == ("x", 1)


_BODY = json.dumps({"rows": [GOOD, GOOD | {"b": 1.5, "city": "a:b"}]}).encode()
_NUMBERS = [b"NaN", b"1e999", b"-", b"-0.0", b"1e-999", b"9" * 400, b"9" * 5000, b"null", b"true"]
_TEXTS = [b'"', b"\\", b"\\u0061", b"\\ud800", b"\xff", b"\x00", b'"rows"', b'"columns"', b'"a":1,']
_MARKS = [b"{", b"}", b"[[[", b"]", b",", b":", b'{"a":1}']
_PIECES = st.sampled_from([*_NUMBERS, *_TEXTS, *_MARKS])


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(_BODY)), st.integers(0, 4), _PIECES), min_size=1, max_size=4))
def test_no_body_leads_to_anything_but_columns_or_a_problem_of_the_request(edits):
    body = _BODY
    for at, n_removed, piece in edits:
        body = body[:at] + piece + body[at + n_removed :]
    try:
        columns = read(body)
    except RequestProblem as problem:
        answer = problem_response(problem, instance="/", request_id="x")
    else:
        answer = None
        assert set(columns) == {"a", "b", "city"}
        assert np.isfinite(columns["a"]).all()
    assert answer is None or 400 <= answer.status_code < 500


@pytest.mark.parametrize("ending", [b'"k0": 1}]}', b'"a": NaN}]}', b'"a": 1}]}'], ids=["twice", "nan", "extra"])
def test_an_object_with_very_many_keys_is_refused_in_linear_time(ending):
    body = b'{"rows": [{' + b"".join(b'"k%d": 1,' % number for number in range(200_000)) + ending
    begun = time.perf_counter()
    with pytest.raises(RequestProblem):
        read(body)
    assert time.perf_counter() - begun < 5  # it takes 0.2 s; comparing each with each would take minutes


LISTED = FeaturePlan(
    inputs=(Input(name="city", type=ColumnType.CATEGORY, nullable=True, allowed=("Bern", "Basel")),),
    derived=(),
    features=("city",),
)


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_a_category_that_the_contract_does_not_list_is_refused_where_the_server_says_so(form):
    def ask(*cities, refuse=True):
        given = [{"city": city} for city in cities] if form == "rows" else {"city": list(cities)}
        return read_json(json.dumps({form: given}).encode(), Form(LISTED), Limits(refuse_unknown=refuse))

    assert list(ask("Bern", None, "Basel")["city"]) == ["Bern", "<missing>", "Basel"]
    assert list(ask("Genf", refuse=False)["city"]) == ["Genf"]
    with pytest.raises(InvalidInput) as caught:
        ask("Bern", "Genf")
    assert (caught.value.field, caught.value.row) == ("city", 1)
    assert "'Bern', 'Basel'" in caught.value.detail


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_an_extra_column_is_left_out_where_the_server_says_so(form):
    row = {"a": 1, "b": 2, "city": "x", "more": [1]}
    given = [row] if form == "rows" else {name: [value] for name, value in row.items()}
    read_in = read_json(json.dumps({form: given}).encode(), Form(PLAN), Limits(ignore_extra=True))
    assert set(read_in) == {"a", "b", "city"}
    with pytest.raises(InvalidInput):
        read({form: given})


NUMBERS = FeaturePlan(
    inputs=(Input(name="a", type=ColumnType.NUMBER, nullable=True), Input(name="n", type=ColumnType.INTEGER)),
    derived=(),
    features=("a", "n"),
)


@pytest.mark.parametrize("form", ["rows", "columns"])
@pytest.mark.parametrize(
    ("n", "problem"),
    [(1, None), (2.0, None), (1.5, "whole"), (True, "number"), (None, "missing"), ("1", "number"), (10**400, "finite")],
)
def test_a_plan_of_numbers_only_is_read_as_one_matrix_and_as_strictly(form, n, problem):
    rows = [{"a": 0.5, "n": 3}, {"a": None, "n": n}]
    given = rows if form == "rows" else {name: [row[name] for row in rows] for name in ("a", "n")}
    body = json.dumps({form: given}).encode()
    if problem is None:
        np.testing.assert_array_equal(read_json(body, Form(NUMBERS), Limits()), [[0.5, 3], [np.nan, float(n)]])
        return
    with pytest.raises(RequestProblem) as caught:
        read_json(body, Form(NUMBERS), Limits())
    if not isinstance(caught.value, MalformedBody):
        assert (caught.value.field, caught.value.row) == ("n", 1)
        assert problem in caught.value.detail


LONG = {"a": [0.1 * n for n in range(2000)], "n": list(range(2000))}
HUGE = Limits(max_rows=5000)


def long_body(**changes):
    return json.dumps({"columns": LONG | changes}).encode()


def test_long_columns_are_read_to_the_last_bit():
    values = np.random.default_rng(0).normal(size=2000) * 10.0 ** np.arange(-300, 300, 0.3)
    numbers = [0, -1, 2**53 + 1, 2**64 - 1, *range(1996)]
    found = read_json(long_body(a=values.tolist(), n=numbers), Form(NUMBERS), HUGE)
    np.testing.assert_array_equal(found, np.column_stack([values, np.array([float(n) for n in numbers])]))


def test_what_is_missing_in_long_columns_is_missing():
    found = read_json(long_body(a=[*LONG["a"][:-1], None]), Form(NUMBERS), HUGE)
    assert np.isnan(found[:, 0]).tolist() == [False] * 1999 + [True]


@pytest.mark.parametrize(
    ("body", "field", "row"),
    [
        (long_body(n=[[0], *range(1, 2000)]), "n", 0),
        (long_body(n=[LONG["n"]]), "n", None),
        (long_body(n=[*LONG["n"][:-1], True]), "n", 1999),
        (long_body(n=[*LONG["n"][:-1], "1"]), "n", 1999),
        (long_body(n=[*LONG["n"][:-1], None]), "n", 1999),
        (long_body(n=[*LONG["n"][:-1], 0.5]), "n", 1999),
        (long_body(n=[*LONG["n"][:-1], 10**400]), "n", 1999),
        (long_body(n=LONG["n"][:-1]), "n", None),
        (long_body(n=1), "n", None),
        (long_body(n={"a": 1}), "n", None),
        (long_body(b=LONG["n"]), "b", None),
        (long_body()[:-1] + b', "rows": []}', None, None),
        (long_body()[:-2] + b', "n": [1]}}', "n", None),
        (long_body().replace(b'"a"', b'"n"'), "n", None),
        (long_body(a=LONG["a"] * 3, n=LONG["n"] * 3), "columns", None),
    ],
    ids=lambda value: "body" if isinstance(value, bytes) else None,
)
def test_long_columns_are_read_as_strictly_as_short_ones(body, field, row):
    with pytest.raises(RequestProblem) as caught:
        read_json(body, Form(NUMBERS), HUGE)
    assert (caught.value.field, caught.value.row) == (field, row)


def test_a_bracket_in_a_name_does_not_hide_one_in_a_column():
    plan = FeaturePlan(inputs=(Input(name="a[", type=ColumnType.NUMBER),), derived=(), features=("a[",))
    body = b'{"columns":{"a\\u005b":[[%b]]}}' % b",".join([b"0.125"] * 4000)
    with pytest.raises(InvalidInput):
        read_json(body, Form(plan), HUGE)
