"""Tensors keep every bit, in JSON and in bytes; what is no tensor is refused by name, never with more than a 4xx."""

import json
import struct
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from serving.errors import DuplicateKey, InvalidInput, MalformedBody, RequestProblem
from serving.forms import Form
from serving.inference_bodies import read_inference
from serving.limits import Limits
from serving.tensors import (
    DATATYPES,
    FLOATS,
    INTEGERS,
    datatype_of_labels,
    decode_bytes,
    decode_json,
    encode_bytes,
    encode_json,
)

NUMERIC = FeaturePlan(
    inputs=(
        Input(name="a", type=ColumnType.NUMBER),
        Input(name="b", type=ColumnType.NUMBER, nullable=True),
        Input(name="n", type=ColumnType.INTEGER, nullable=True),
    ),
    derived=(),
    features=("a", "b", "n"),
)
TYPED = FeaturePlan(
    inputs=(
        Input(name="x", type=ColumnType.NUMBER),
        Input(name="flag", type=ColumnType.BOOLEAN, nullable=True),
        Input(name="city", type=ColumnType.CATEGORY, nullable=True),
        Input(name="when", type=ColumnType.TIMESTAMP),
    ),
    derived=(),
    features=("x", "flag", "city"),
)
MAX_ROWS = 3


class Package:
    classes = ("no", "yes")


def loaded_with(plan):
    return SimpleNamespace(form=Form(plan), package=Package())


def read(value, rest=b"", *, plan=NUMERIC, length=None, limits=None):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    header = str(len(text)).encode() if length is None and rest else length
    return read_inference(text + rest, header, loaded_with(plan), limits or Limits(max_rows=MAX_ROWS))


def tensor(name="x", shape=(1, 3), datatype="FP64", **more):
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


def in_bytes(size, **more):
    return tensor(parameters={"binary_data_size": size}, **more)


numbers = st.sampled_from([*FLOATS, *INTEGERS]).flatmap(
    lambda name: st.tuples(st.just(name), hnp.arrays((FLOATS | INTEGERS)[name], st.tuples(st.integers(1, 5))))
)


@given(numbers)
def test_numbers_in_bytes_become_float64_with_nothing_lost_that_float64_holds(case):
    datatype, sent = case
    assert np_to_triton_dtype(sent.dtype) == datatype
    got = decode_bytes(datatype, memoryview(sent.tobytes()), sent.shape, name="x")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, sent.astype(np.float64))
    assert got.dtype == np.float64
    assert got.flags.aligned
    assert got.flags.writeable


@given(hnp.arrays("<f8", st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(allow_nan=False)))
def test_float64_keeps_every_bit_there_and_back(sent):
    got = decode_bytes("FP64", memoryview(sent.tobytes()), sent.shape, name="x")
    assert encode_bytes("FP64", got) == sent.tobytes()


@given(numbers)
def test_the_same_numbers_in_json_mean_the_same(case):
    datatype, sent = case
    with np.errstate(invalid="ignore"):
        values = sent.astype(np.float64).tolist() if datatype in FLOATS else sent.tolist()
    given_values = [None if value != value else value for value in values]
    if any(value in (np.inf, -np.inf) for value in values):
        with pytest.raises(InvalidInput, match="not finite"):
            decode_json(datatype, given_values, sent.shape, name="x")
        return
    got = decode_json(datatype, orjson.loads(orjson.dumps(given_values)), sent.shape, name="x")
    np.testing.assert_array_equal(got, decode_bytes(datatype, memoryview(sent.tobytes()), sent.shape, name="x"))


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_texts_are_read_and_written_as_tritonclient_writes_and_reads_them(texts):
    sent = np.array(texts, dtype=object)
    encoded = serialize_byte_tensor(sent).item()
    assert encode_bytes("BYTES", sent) == encoded
    assert decode_bytes("BYTES", memoryview(encoded), sent.shape, name="x").tolist() == texts
    assert [text.decode() for text in deserialize_bytes_tensor(encoded)] == texts


def test_flags_are_bytes_of_0_and_1():
    assert decode_bytes("BOOL", memoryview(b"\0\1"), (2,), name="x").tolist() == [False, True]
    with pytest.raises(InvalidInput, match="row 1"):
        decode_bytes("BOOL", memoryview(b"\0\2"), (2,), name="x")


def test_null_in_json_is_a_missing_value_of_every_datatype():
    for datatype in (*FLOATS, *INTEGERS):
        np.testing.assert_array_equal(decode_json(datatype, [1, None], (2,), name="x"), [1.0, np.nan])
    assert decode_json("BOOL", [True, None], (2,), name="x").tolist() == [True, None]
    assert decode_json("BYTES", ["", None], (2,), name="x").tolist() == ["", None]


@pytest.mark.parametrize("datatype", list(INTEGERS))
def test_a_whole_number_in_json_is_taken_up_to_the_ends_of_its_datatype(datatype):
    ends = np.iinfo(INTEGERS[datatype])
    got = decode_json(datatype, [ends.min, ends.max], (2,), name="x")
    assert got.tolist() == [float(ends.min), float(ends.max)]
    for beyond in (int(ends.min) - 1, int(ends.max) + 1):
        with pytest.raises(InvalidInput, match=f"row 1, 'x': is beyond {datatype}"):
            decode_json(datatype, [0, beyond], (2,), name="x")


@pytest.mark.parametrize(
    ("datatype", "bad"),
    [("FP64", True), ("FP64", "1"), ("FP32", []), ("INT64", 1.0), ("INT8", True), ("BOOL", 1), ("BYTES", 1)],
)
def test_a_value_of_another_kind_is_refused_with_its_row(datatype, bad):
    with pytest.raises(InvalidInput) as caught:
        decode_json(datatype, [None, bad], (2, 1), name="x")
    assert (caught.value.field, caught.value.row) == ("x", 1)


def test_labels_have_the_datatype_that_holds_them_all():
    assert datatype_of_labels(("a", "b")) == "BYTES"
    assert datatype_of_labels((0, 1)) == "INT64"
    assert datatype_of_labels((True, False)) == "BOOL"
    assert datatype_of_labels((0, 2**63)) == datatype_of_labels((0, "a")) == datatype_of_labels((True, 0)) == "BYTES"
    mixed = np.array([2**63, "a"], dtype=object)
    assert encode_json("BYTES", mixed) == [str(2**63), "a"]
    assert [text.decode() for text in deserialize_bytes_tensor(encode_bytes("BYTES", mixed))] == [str(2**63), "a"]


def test_one_tensor_or_a_tensor_for_each_input_is_the_same():
    matrix = np.array([[1.5, np.nan, 3.0], [2.5, 0.5, -0.0]])
    columns = [tensor(name, (2, 1), data=[None if v != v else v for v in matrix[:, i]]) for i, name in enumerate("abn")]
    flat = [None if value != value else value for value in matrix.ravel().tolist()]
    asked = [
        read({"inputs": [in_bytes(48, shape=(2, 3))]}, matrix.tobytes()),
        read({"inputs": [tensor(shape=(2, 3), data=flat)]}),
        read({"inputs": [tensor(shape=(2, 3), data=[flat[:3], flat[3:]])]}),
        read({"inputs": columns}),
        read({"inputs": [in_bytes(16, name=name, shape=(2,)) for name in "abn"]}, matrix.T.tobytes()),
    ]
    for ask in asked:
        assert ask.inputs.tobytes() == matrix.tobytes()
        assert ask.inputs.flags.aligned


def test_tensors_in_json_and_in_bytes_go_together_in_any_order():
    body = {
        "inputs": [
            in_bytes(14, name="city", shape=(2,), datatype="BYTES"),
            tensor("when", (2,), "BYTES", data=["2020-01-01T00:00:00", "2020-01-02"]),
            in_bytes(2, name="flag", shape=(2, 1), datatype="BOOL"),
            tensor("x", (2,), "INT8", data=[1, 2]),
        ]
    }
    ask = read(body, b"\4\0\0\0Bern\2\0\0\0\xc3\xa4" + b"\1\0", plan=TYPED)
    assert ask.inputs["city"].tolist() == ["Bern", "ä"]
    assert ask.inputs["flag"].tolist() == [1.0, 0.0]
    assert ask.inputs["x"].tolist() == [1.0, 2.0]
    assert ask.inputs["when"].tolist() == [
        np.datetime64("2020-01-01", "us").item(),
        np.datetime64("2020-01-02", "us").item(),
    ]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, {"predict": False, "predict_proba": False}),
        ({"outputs": []}, {"predict": False, "predict_proba": False}),
        ({"parameters": {"binary_data_output": True}}, {"predict": True, "predict_proba": True}),
        ({"outputs": [{"name": "predict_proba"}]}, {"predict_proba": False}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "predict_proba", "parameters": {"binary_data": False}}, {"name": "predict"}],
            },
            {"predict_proba": False, "predict": True},
        ),
    ],
)
def test_outputs_are_chosen_ordered_and_each_in_its_form(more, wanted):
    ask = read({"id": "7", "inputs": [tensor(data=[1, 2, 3])], **more})
    assert ask.options.outputs == tuple(wanted.items())
    assert ask.options.id == "7"


GOOD = tensor(data=[1, 2, 3])


@pytest.mark.parametrize(
    ("value", "rest", "field"),
    [
        ([], b"", None),
        ({}, b"", "inputs"),
        ({"inputs": []}, b"", "inputs"),
        ({"inputs": [1]}, b"", "inputs"),
        ({"inputs": [{}]}, b"", "inputs"),
        ({"inputs": [GOOD, GOOD]}, b"", "x"),
        ({"inputs": [tensor(datatype="BF16", data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(datatype=["FP64"], data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(shape=(), data=[1])]}, b"", "x"),
        ({"inputs": [tensor(shape=(1, 1, 3), data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(shape=(-1, -3), data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(shape=(1.0, 3), data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(shape=(True, 3), data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(shape=(0, 3), data=[])]}, b"", "x"),
        ({"inputs": [tensor(shape=(4, 3), data=[1] * 12)]}, b"", "x"),
        ({"inputs": [tensor(shape=(1, 2), data=[1, 2])]}, b"", "x"),
        ({"inputs": [tensor(shape=(2**63, 2**63), data=[1, 2])]}, b"", "x"),
        ({"inputs": [tensor(shape=(3,), data=[1, 2, 3])]}, b"", "x"),
        ({"inputs": [tensor(data=[1, 2])]}, b"", "x"),
        ({"inputs": [tensor(data=[[1, 2], [3]])]}, b"", "x"),
        ({"inputs": [tensor(data=[[1, 2, [3]]])]}, b"", "x"),
        ({"inputs": [tensor(data={"0": 1})]}, b"", "x"),
        ({"inputs": [tensor()]}, b"", "x"),
        ({"inputs": [in_bytes(24, data=[1, 2, 3])]}, bytes(24), "x"),
        ({"inputs": [in_bytes(True)]}, bytes(24), "x"),
        ({"inputs": [in_bytes(-24)]}, bytes(24), "x"),
        ({"inputs": [in_bytes(2**64 - 1)]}, bytes(24), None),
        ({"inputs": [in_bytes(16)]}, bytes(24), None),
        ({"inputs": [in_bytes(24)]}, bytes(23), None),
        ({"inputs": [in_bytes(24)]}, b"", None),
        ({"inputs": [GOOD]}, bytes(24), None),
        ({"inputs": [in_bytes(24, datatype="FP32")]}, bytes(24), "x"),
        ({"inputs": [in_bytes(24, name="a", shape=(3, 1)), tensor("b", (2,), data=[1, 2])]}, bytes(24), "n"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, b"", "shared_memory_region"),
        ({"inputs": [tensor(parameters=[])]}, b"", "parameters"),
        ({"inputs": [GOOD], "id": 7}, b"", "id"),
        ({"inputs": [GOOD], "parameters": {"binary_data_output": 1}}, b"", "binary_data_output"),
        ({"inputs": [GOOD], "outputs": {"name": "predict"}}, b"", "outputs"),
        ({"inputs": [GOOD], "outputs": [{"name": "logits"}]}, b"", "logits"),
        ({"inputs": [GOOD], "outputs": [{"name": "predict"}] * 2}, b"", "predict"),
        ({"inputs": [GOOD], "outputs": [{"name": "predict", "parameters": {"classification": 1}}]}, b"", "predict"),
        (
            {"inputs": [GOOD], "outputs": [{"name": "predict", "parameters": {"shared_memory_region": "r"}}]},
            b"",
            "shared_memory_region",
        ),
        ({"inputs": [tensor(data=[None, 2, 3])]}, b"", "a"),
        ({"inputs": [tensor(data=[1, 2, 3.5])]}, b"", "n"),
        ({"inputs": [tensor(data=[1, 2, True])]}, b"", "x"),
        ({"inputs": [tensor(datatype="FP32", data=[1e300, 2, 3])]}, b"", "a"),
        ({"inputs": [in_bytes(24)]}, np.array([np.nan, 1, 1]).tobytes(), "a"),
        ({"inputs": [in_bytes(24)]}, np.array([1, np.inf, 1]).tobytes(), "b"),
        ({"inputs": [tensor("aa", (1,), data=[1]), tensor("b", (1,), data=[1])]}, b"", "aa"),
    ],
    ids=lambda value: json.dumps(value)[:90] if isinstance(value, list | dict) else None,
)
def test_what_is_no_request_is_refused_and_the_field_named(value, rest, field):
    with pytest.raises(InvalidInput) as caught:
        read(value, rest)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (b"\1\0\0\0a\xff\xff\xff\xff", 1),
        (b"\1\0\0\0a\2\0\0\0b", 1),
        (b"\1\0\0\0a\1\0\0\0\xff", 1),
        (b"\5\0\0\0abcde", 1),
        (b"\1\0\0\0a\1\0\0\0b\0", None),
        (b"\1\0\0", None),
    ],
)
def test_lengths_of_texts_that_do_not_add_up_are_refused(data, row):
    with pytest.raises(InvalidInput) as caught:
        decode_bytes("BYTES", memoryview(data), (2,), name="city")
    assert (caught.value.field, caught.value.row) == ("city", row)


@pytest.mark.parametrize("header", [b"", b"-1", b"+1", b"1.0", b"0x10", b" 5", b"\xb2", b"9" * 30, b"100000"])
def test_a_length_of_the_json_that_is_none_is_refused(header):
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        read({"inputs": [GOOD]}, length=header)


def test_a_length_that_cuts_the_json_short_leaves_no_json():
    with pytest.raises(MalformedBody):
        read({"inputs": [GOOD]}, length=b"5")
    with pytest.raises(MalformedBody):
        read({"inputs": [GOOD]}, length=b"0")


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_of_json_is_refused_with_its_tensor_and_row(token):
    body = json.dumps({"inputs": [tensor(shape=(2, 3), data=[1, 2, 3, 4, "?", 6])]}).replace('"?"', token)
    with pytest.raises(InvalidInput) as caught:
        read(body.encode())
    assert (caught.value.field, caught.value.row) == ("x", 1)


def test_a_key_that_stands_twice_is_refused_wherever_it_stands():
    good = json.dumps({"inputs": [in_bytes(24)], "parameters": {"binary_data_output": True}})
    assert read(good.encode(), bytes(24))
    for once, twice in (
        ('"binary_data_size": 24', '"binary_data_size": 24, "binary_data_size": 24'),
        ('"shape": [1, 3]', '"shape": [1, 3], "shape": [1, 3]'),
        ('"binary_data_output": true', '"binary_data_output": true, "binary_data_output": false'),
        ('"parameters": {"binary_data_o', '"parameters": {}, "parameters": {"binary_data_o'),
    ):
        assert once in good
        with pytest.raises(DuplicateKey):
            read(good.replace(once, twice).encode(), bytes(24))


def test_deep_nesting_is_refused_wherever_it_stands():
    deep = "[" * 1000 + "]" * 1000
    for member in ("shape", "datatype", "data"):
        body = json.dumps({"inputs": [GOOD | {member: "?"}]}).replace('"?"', deep)
        with pytest.raises(RequestProblem):
            read(body.encode())


def test_rows_that_say_they_are_many_take_no_memory():
    for shape in ([2**62, 3], [2**62], [1, 2**62]):
        with pytest.raises(InvalidInput):
            read({"inputs": [in_bytes(24, shape=shape)]}, bytes(24), limits=Limits(max_rows=2**63))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
LENGTHS = st.lists(st.integers(-1, 4) | st.just(2**62) | ANY, max_size=3) | ANY
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "a", "b", "n", "city", "flag", "when"]) | ANY,
        "shape": st.sampled_from([[1, 3], [2, 3], [1], [2], [1, 1]]) | LENGTHS,
        "datatype": st.sampled_from(DATATYPES) | ANY,
    },
    optional={
        "data": st.lists(ANY, max_size=6) | ANY,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 48) | ANY}) | ANY,
    },
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=3) | ANY}, optional={"outputs": ANY, "id": ANY}),
    st.binary(max_size=48),
    st.sampled_from([NUMERIC, TYPED]),
)
def test_garbage_is_answered_or_refused_and_nothing_else(value, rest, plan):
    try:
        ask = read(value, rest, plan=plan)
    except RequestProblem:
        return
    assert ask.options.outputs


@settings(max_examples=200)
@given(st.binary(max_size=80), st.integers(1, 4), st.sampled_from(DATATYPES))
def test_any_bytes_are_read_or_refused(data, n_rows, datatype):
    fit = {"inputs": [in_bytes(len(data), name="a", shape=(n_rows,), datatype=datatype)]}
    try:
        read(fit, data, plan=FeaturePlan(inputs=NUMERIC.inputs[:1], derived=(), features=("a",)))
    except RequestProblem:
        return
    assert len(data) % n_rows == 0


def test_a_signalling_nan_is_a_missing_value_like_any_other():
    signalling = struct.pack("<Q", 0x7FF0_0000_0000_0001)
    ask = read({"inputs": [in_bytes(24)]}, struct.pack("<d", 1.0) + signalling * 2)
    assert np.isnan(ask.inputs[0, 1:]).all()
    narrow = struct.pack("<I", 0x7F80_0001)
    ask = read({"inputs": [in_bytes(12, datatype="FP32")]}, struct.pack("<f", 1.0) + narrow * 2)
    assert np.isnan(ask.inputs[0, 1:]).all()
