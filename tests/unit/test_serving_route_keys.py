"""Every protocol may carry its key with its rows: the same for all of them, never shown to the model."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from serving.errors import InvalidInput
from serving.forms import Form
from serving.limits import Limits
from serving.routes.inference import InferenceDoor
from serving.routes.native import NativeDoor
from serving.routes.scoring import ScoringDoor

LIMITS = Limits(max_rows=3)
ROWS = [{"x": 1.5, "y": 2.0}, {"x": 3.0, "y": 4.0}]
JSON = {b"content-type": b"application/json"}
CSV = {b"content-type": b"text/csv"}
STREAM = {b"content-type": b"application/vnd.apache.arrow.stream"}
FILE = {b"content-type": b"application/vnd.apache.arrow.file"}


@dataclass(eq=False)
class Package:
    plan: FeaturePlan
    classes: tuple[str, ...] = ()


class Loaded:
    """As much of a version as a door needs to read a body."""

    def __init__(self, *more):
        inputs = [Input(name=name, type=ColumnType.NUMBER) for name in ("x", "y")]
        inputs += [Input(name=name, type=ColumnType.CATEGORY) for name in more]
        names = tuple(column.name for column in inputs)
        plan = FeaturePlan(inputs=tuple(inputs), derived=(), features=names)
        self.form, self.package = Form(plan), Package(plan)


def keyed(keys):
    return [row | {"route_key": key} for row, key in zip(ROWS, keys, strict=True)]


def columns(keys):
    return {name: [row[name] for row in keyed(keys)] for name in ("x", "y", "route_key")}


def as_json(value):
    return json.dumps(value).encode(), JSON


def split(keys):
    return as_json({"dataframe_split": {"columns": ["x", "route_key", "y"], "data": interleaved(keys)}})


def interleaved(keys):
    return [[row["x"], row["route_key"], row["y"]] for row in keyed(keys)]


def csv(keys):
    cells = "".join(f"{x},{key or ''},{y}\r\n" for x, key, y in interleaved(keys))
    return f"x,route_key,y\r\n{cells}".encode(), CSV


def arrow(keys, new=pa.ipc.new_stream, head=STREAM, **changed):
    table = pa.table(columns(keys) | changed)
    sink = pa.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    return sink.getvalue().to_pybytes(), head


def tensors(keys, **changed):
    inputs = [{"name": n, "datatype": "FP64", "shape": [2, 1], "data": columns(keys)[n]} for n in ("x", "y")]
    inputs.insert(1, {"name": "route_key", "datatype": "BYTES", "shape": [2], "data": keys} | changed)
    return as_json({"inputs": inputs})


def in_bytes(keys):
    texts = b"".join(struct.pack("<I", len(key.encode())) + key.encode() for key in keys)
    values = [texts, *(np.array(columns(keys)[name], dtype="<f8").tobytes() for name in ("x", "y"))]
    described = [
        {"name": name, "datatype": kind, "shape": [2], "parameters": {"binary_data_size": len(data)}}
        for (name, kind), data in zip((("route_key", "BYTES"), ("x", "FP64"), ("y", "FP64")), values, strict=True)
    ]
    head = json.dumps({"inputs": described}).encode()
    return b"".join((head, *values)), {b"inference-header-content-length": b"%d" % len(head)}


PROTOCOLS: dict[str, tuple[Any, Any]] = {
    "csv": (ScoringDoor(), csv),
    "split": (ScoringDoor(), split),
    "records": (ScoringDoor(), lambda keys: as_json({"dataframe_records": keyed(keys)})),
    "instances": (ScoringDoor(), lambda keys: as_json({"instances": keyed(keys)})),
    "inputs": (ScoringDoor(), lambda keys: as_json({"inputs": columns(keys)})),
    "arrow stream": (NativeDoor(), arrow),
    "arrow file": (NativeDoor(), lambda keys: arrow(keys, pa.ipc.new_file, FILE)),
    "arrow dictionary": (
        NativeDoor(),
        lambda keys: arrow(keys, route_key=pa.array(keys, pa.string()).dictionary_encode()),
    ),
    "tensors": (InferenceDoor(), tensors),
    "tensors in bytes": (InferenceDoor(), in_bytes),
}
EVERY = pytest.mark.parametrize(("door", "body_of"), PROTOCOLS.values(), ids=PROTOCOLS)


@EVERY
@pytest.mark.parametrize("key", ["a:b", "ü, 7", "7"])
def test_the_key_that_all_rows_carry_is_found_and_does_not_reach_the_model(door, body_of, key):
    if "," in key and body_of is csv:
        key = key.replace(",", "")
    body, head = body_of([key, key])
    assert door.key_in(body, head, LIMITS) == key.encode()
    inputs = door.read(body, head, Loaded(), LIMITS).inputs
    np.testing.assert_array_equal(inputs, [[1.5, 2.0], [3.0, 4.0]])


@EVERY
def test_rows_of_two_keys_are_refused_by_name_and_row(door, body_of):
    body, head = body_of(["a", "b"])
    assert door.key_in(body, head, LIMITS) is None
    with pytest.raises(InvalidInput, match=r"row 1, 'route_key'.*a request of its own") as refused:
        door.read(body, head, Loaded(), LIMITS)
    assert (refused.value.field, refused.value.row) == ("route_key", 1)


@EVERY
def test_an_empty_key_is_none(door, body_of):
    body, head = body_of(["", ""])
    assert door.key_in(body, head, LIMITS) is None
    assert len(door.read(body, head, Loaded(), LIMITS).inputs) == 2


@EVERY
def test_a_model_that_takes_an_input_of_this_name_gets_it(door, body_of):
    loaded = Loaded("route_key")
    body, head = body_of(["a", "b"])
    assert door.read(body, head, loaded, LIMITS).inputs["route_key"].tolist() == ["a", "b"]
    body, head = body_of(["a", "a"])
    assert door.key_in(body, head, LIMITS) == b"a"
    assert door.read(body, head, loaded, LIMITS).inputs["route_key"].tolist() == ["a", "a"]


@pytest.mark.parametrize(
    ("door", "body"),
    [
        (ScoringDoor(), as_json({"dataframe_records": keyed([7, 7])})),
        (ScoringDoor(), as_json({"inputs": columns([True, True])})),
        (ScoringDoor(), as_json({"instances": [[1.0, 2.0]], "route_key": 7})),
        (NativeDoor(), arrow([7, 7])),
        (InferenceDoor(), tensors([7, 7], datatype="INT64")),
    ],
)
def test_a_key_that_is_no_text_is_refused(door, body):
    assert door.key_in(*body, LIMITS) is None
    with pytest.raises(InvalidInput, match=r"'route_key'.*not text"):
        door.read(*body, Loaded(), LIMITS)


@pytest.mark.parametrize("rows", [{"instances": [[1.5, 2.0]]}, {"dataframe_split": {"data": [[1.5, 2.0]]}}])
def test_lists_without_names_carry_their_key_beside_them(rows):
    body, head = as_json(rows | {"route_key": "k"})
    assert ScoringDoor().key_in(body, head, LIMITS) == b"k"
    assert ScoringDoor().read(body, head, Loaded(), LIMITS).inputs.tolist() == [[1.5, 2.0]]


def test_a_key_beside_the_rows_counts_before_that_within():
    body, head = as_json({"dataframe_records": keyed(["a", "a"]), "route_key": "k"})
    assert ScoringDoor().key_in(body, head, LIMITS) == b"k"
    tensor, _ = tensors(["a", "a"])
    body, head = as_json(json.loads(tensor) | {"parameters": {"route_key": "k"}})
    assert InferenceDoor().key_in(body, head, LIMITS) == b"k"


def test_a_single_record_and_rows_with_nan_carry_a_key_too():
    body, head = as_json({"inputs": {"x": 1.0, "y": 2.0, "route_key": "k"}})
    assert ScoringDoor().key_in(body, head, LIMITS) == b"k"
    body = b'{"dataframe_records": [{"x": NaN, "y": 1, "route_key": "k"}]}'
    assert ScoringDoor().key_in(body, head, LIMITS) == b"k"


@pytest.mark.parametrize("door", [NativeDoor(), ScoringDoor(), InferenceDoor()])
@pytest.mark.parametrize("head", [JSON, CSV, STREAM, FILE, {b"inference-header-content-length": b"9999"}])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"route_key",
        b'{"route_key": "k"',
        b'["route_key"]',
        b'{"inputs": [7, {"route_key": 7}]}',
        b'{"inputs": {"route_key": {}}}',
        b'{"dataframe_split": {"columns": ["route_key"], "data": 7}}',
        b'{"instances": ["\\ud800", {"route_key": "\\ud800"}]}',
        b'{"inputs": [{"name": "route_key", "datatype": "BYTES", "shape": [1], "data": [7]}]}',
        b'route_key\n"\n',
        b"route_key\xff",
    ],
)
def test_whatever_a_body_holds_no_key_is_no_error(door, head, body):
    assert door.key_in(body, head, LIMITS) is None
