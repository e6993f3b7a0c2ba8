"""The bodies of MLflow's scoring protocol are read with the types of the plan, or the field and row are named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from serving.errors import InvalidInput, MalformedBody, RequestProblem
from serving.forms import Form
from serving.limits import Limits
from serving.scoring import read_scoring_csv, read_scoring_json

PLAN = FeaturePlan(
    inputs=(
        Input(name="a", type=ColumnType.NUMBER, nullable=True),
        Input(name="n", type=ColumnType.INTEGER),
        Input(name="flag", type=ColumnType.BOOLEAN),
        Input(name="city", type=ColumnType.CATEGORY, nullable=True),
        Input(name="when", type=ColumnType.TIMESTAMP),
    ),
    derived=(),
    features=("a", "n", "flag", "city"),
)
SINGLE = FeaturePlan(inputs=(Input(name="x", type=ColumnType.NUMBER),), derived=(), features=("x",))
ROW = {"a": 1.5, "n": 2, "flag": True, "city": "Bern", "when": "2013-01-01T05:15:00"}
OTHER = {"a": None, "n": 3.0, "flag": False, "city": None, "when": "2013-01-02"}
BOTH = {name: [ROW[name], OTHER[name]] for name in ROW}
LISTS = [list(ROW.values()), list(OTHER.values())]


def read(value, plan=PLAN, max_rows=3):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_scoring_json(body, Form(plan), Limits(max_rows=max_rows))


def read_csv(text, plan=PLAN, max_rows=3):
    body = text if isinstance(text, bytes) else text.encode()
    return read_scoring_csv(body, plan, Form(plan), Limits(max_rows=max_rows))


def assert_both_rows(inputs):
    np.testing.assert_array_equal(inputs["a"], [1.5, np.nan])
    np.testing.assert_array_equal(inputs["n"], [2.0, 3.0])
    np.testing.assert_array_equal(inputs["flag"], [1.0, 0.0])
    assert inputs["city"][0] == "Bern"
    assert str(inputs["when"][0]) == "2013-01-01T05:15:00.000000"


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(ROW), "data": LISTS}},
        {"dataframe_split": {"columns": list(ROW)[::-1], "data": [row[::-1] for row in LISTS], "index": [7, 8]}},
        {"dataframe_split": {"data": LISTS}},
        {"dataframe_split": {"columns": [*ROW, "more", "more"], "data": [[*row, [1], {}] for row in LISTS]}},
        {"dataframe_records": [ROW, OTHER]},
        {"dataframe_records": [ROW | {"more": 1}, {"n": 3, "flag": False, "when": "2013-01-02"}]},
        {"instances": [ROW, OTHER]},
        {"instances": LISTS},
        {"instances": BOTH | {"more": [1]}},
        {"inputs": BOTH},
        {"inputs": [ROW, OTHER]},
        {"inputs": LISTS, "params": 3, "signature_name": "x"},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_every_form_says_the_same(body):
    assert_both_rows(read(body))


@pytest.mark.parametrize("body", [{"inputs": [1, 2]}, {"instances": [[1], [2]]}, {"inputs": {"x": [1, 2]}}])
def test_a_model_of_one_column_takes_values_without_a_name(body):
    np.testing.assert_array_equal(read(body, SINGLE), [[1.0], [2.0]])


def test_one_object_of_values_is_one_row():
    assert read({"inputs": ROW})["n"].tolist() == [2.0]


def test_nan_stands_for_null_and_for_nothing_else():
    assert np.isnan(read(b'{"inputs": [%s]}' % json.dumps(ROW | {"a": np.nan}).encode())["a"][0])
    for constant in ("NaN", "Infinity", "-Infinity", "1e999"):
        with pytest.raises(InvalidInput) as caught:
            read(json.dumps({"inputs": [ROW, ROW | {"n": "@"}]}).replace('"@"', constant).encode())
        assert (caught.value.field, caught.value.row) == ("n", 1)


def test_what_is_not_looked_at_may_be_infinite():
    body = b'{"dataframe_split": {"columns": ["x", "z"], "data": [[1, Infinity], [2, -1e999]]}, "params": {"p": NaN}}'
    np.testing.assert_array_equal(read(body, SINGLE), [[1.0], [2.0]])


def test_a_lone_surrogate_is_refused_wherever_it_stands():
    with pytest.raises(MalformedBody):
        read(b'{"inputs": {"x": [1]}, "params": {"p": "\\ud800"}}', SINGLE)


WHEN = FeaturePlan(
    inputs=(
        Input(name="when", type=ColumnType.TIMESTAMP, nullable=True),
        Input(name="city", type=ColumnType.CATEGORY),
    ),
    derived=(),
    features=("city",),
)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["when", "city"], "data": [["NaT", "NaT"]]}},
        {"inputs": [{"when": "NaT", "city": "NaT"}]},
    ],
)
def test_a_time_that_pandas_writes_as_missing_is_missing(body):
    for inputs in (read(body, WHEN), read_csv("when,city\nNaT,NaT\n", WHEN)):
        assert np.isnat(inputs["when"]).all()
        assert inputs["city"].tolist() == ["NaT"]


def test_a_time_that_may_not_be_missing_is_named():
    with pytest.raises(InvalidInput) as caught:
        read({"inputs": [ROW, ROW | {"when": "NaT"}]})
    assert (caught.value.field, caught.value.row) == ("when", 1)


def test_infinities_that_cancel_each_other_out_are_refused_without_a_warning():
    with pytest.raises(InvalidInput) as caught:
        read(b'{"inputs": {"x": [1, -Infinity, Infinity]}}', SINGLE)
    assert (caught.value.field, caught.value.row) == ("x", 1)


def test_a_key_that_stands_twice_is_refused_beside_nan_too():
    for constant in (b"1", b"NaN"):
        with pytest.raises(RequestProblem, match="'x' stands twice"):
            read(b'{"inputs": {"x": [%s], "x": [2]}}' % constant, SINGLE)


@pytest.mark.parametrize(
    ("value", "field", "row"),
    [
        ([ROW], None, None),
        ({}, None, None),
        ({"params": {}}, None, None),
        ({"messages": []}, None, None),
        ({"inputs": [ROW], "instances": [ROW]}, None, None),
        ({"dataframe_split": [ROW]}, "dataframe_split", None),
        ({"dataframe_split": {"columns": list(ROW)}}, "dataframe_split", None),
        ({"dataframe_split": {"data": LISTS, "rows": 1}}, "dataframe_split", None),
        ({"dataframe_split": {"columns": [1, 2], "data": LISTS}}, "dataframe_split", None),
        ({"dataframe_split": {"columns": list(ROW), "data": {}}}, "dataframe_split", None),
        ({"dataframe_split": {"columns": list(ROW), "data": []}}, "dataframe_split", None),
        ({"dataframe_split": {"columns": list(ROW), "data": LISTS * 2}}, "dataframe_split", None),
        ({"dataframe_split": {"columns": list(ROW), "data": [LISTS[0], LISTS[0][:2]]}}, None, 1),
        ({"dataframe_split": {"columns": list(ROW), "data": [LISTS[0], 5]}}, None, 1),
        ({"dataframe_split": {"columns": ["a", *ROW], "data": [[1, *LISTS[0]]]}}, "a", None),
        ({"dataframe_split": {"columns": list(ROW)[:-1], "data": [LISTS[0][:-1]]}}, "when", None),
        ({"dataframe_split": {"columns": list(ROW), "data": [LISTS[0], [True, *LISTS[0][1:]]]}}, "a", 1),
        ({"dataframe_records": ROW}, "dataframe_records", None),
        ({"dataframe_records": []}, "dataframe_records", None),
        ({"dataframe_records": [ROW, {"a": 1}]}, "n", 1),
        ({"dataframe_records": [{"a": 1}]}, "n", 0),
        ({"instances": [ROW, 5]}, None, 1),
        ({"instances": [ROW] * 4}, "instances", None),
        ({"inputs": 5}, "inputs", None),
        ({"inputs": {}}, "a", None),
        ({"inputs": BOTH | {"a": [1]}}, "n", None),
        ({"inputs": BOTH | {"a": [[1], [2]]}}, "a", 0),
        ({"inputs": [ROW | {"n": 1.5}]}, "n", 0),
        ({"inputs": [ROW | {"n": "2"}]}, "n", 0),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, list | dict) else None,
)
def test_what_the_model_does_not_take_is_named(value, field, row):
    with pytest.raises(InvalidInput) as caught:
        read(value)
    assert (caught.value.field, caught.value.row) == (field, row)


HEADER = "a,n,flag,city,when\n"
LINE = "1.5,2,true,Bern,2013-01-01T05:15:00\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + LINE + ",3.0,False,,2013-01-02\n",
        HEADER + LINE + "NA,3,False,,2013-01-02",
        "\ufeff" + HEADER.replace("\n", "\r\n") + "\r\n" + LINE + "\r\n,3,FALSE,,2013-01-02\r\n",
        ",city,when,a,n,flag,more\n0,Bern,2013-01-01T05:15:00,1.5,2,True,x\n1,,2013-01-02,nan,3,false,y\n",
        '"a","n","flag","city","when"\n"1.5"," 2","true","Bern","2013-01-01T05:15:00"\n"",3,false,"","2013-01-02"\n',
    ],
)
def test_csv_is_read_with_the_types_of_the_plan(text):
    assert_both_rows(read_csv(text))


def test_text_in_csv_stays_text():
    assert read_csv(HEADER + LINE.replace("Bern", "NA"))["city"].tolist() == ["NA"]
    assert read_csv(HEADER + LINE.replace("Bern", '"a ""b"",\nc"'))["city"].tolist() == ['a "b",\nc']


@pytest.mark.parametrize(
    ("text", "field", "row"),
    [
        ("", "csv", None),
        (HEADER, "csv", None),
        (HEADER + LINE * 4, "csv", None),
        (HEADER + LINE + "1,2\n", None, 1),
        (HEADER + LINE + LINE.replace("1.5", "big"), "a", 1),
        (HEADER + LINE + LINE.replace("1.5", "1_000"), "a", 1),
        (HEADER + LINE + LINE.replace("1.5", "inf"), "a", 1),
        (HEADER + LINE.replace(",2,", ",2.5,"), "n", 0),
        (HEADER + LINE.replace(",2,", ",,"), "n", 0),
        (HEADER + LINE.replace("true", "1"), "flag", 0),
        (HEADER + LINE.replace("2013-01-01T05:15:00", "today"), "when", 0),
        (HEADER.replace("city", "town") + LINE, "city", None),
        (HEADER.replace("city", "a") + LINE, "a", None),
    ],
)
def test_what_is_wrong_in_csv_is_named(text, field, row):
    with pytest.raises(InvalidInput) as caught:
        read_csv(text)
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.parametrize("body", [b"a,n\xff", HEADER.encode() + b'"a', HEADER.encode() + b"x" * 200_000])
def test_what_is_no_csv_is_refused(body):
    with pytest.raises(MalformedBody):
        read_csv(body)


_BODY = json.dumps({"dataframe_split": {"columns": list(ROW), "data": LISTS}}).encode()
_CSV = (HEADER + LINE * 2).encode()
_PIECES = st.sampled_from(
    [b"NaN", b"1e999", b"9" * 400, b"null", b'"', b"\\ud800", b"\xff", b"\x00", b"{", b"[[", b"]", b",", b"\n", b"a"]
)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(_BODY)), st.integers(0, 4), _PIECES), min_size=1, max_size=4))
def test_no_body_leads_to_anything_but_rows_or_a_problem_of_the_request(edits):
    for reader, start in ((read, _BODY), (read_csv, _CSV)):
        body = start
        for at, n_removed, piece in edits:
            body = body[:at] + piece + body[at + n_removed :]
        try:
            inputs = reader(body)
        except RequestProblem:
            continue
        assert set(inputs) == set(ROW)
        assert np.isfinite(inputs["n"]).all()
