"""What a body means by the protocols' words: the rows in it, or a refusal. Slow, strict, and of no code of serving."""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import MISSING, ColumnType, Input
from tests.fuzz.strict_json import Refused, read

MAX_ROWS = 50

Columns = dict[str, npt.NDArray[Any]]
Given = Mapping[str, Sequence[Any]]


def read_native(body: bytes, json_length: bytes | None, inputs: Sequence[Input]) -> Columns:
    """Returns the rows of `{"rows": [...]}` or `{"columns": {...}}`; no other name is allowed.

    Raises:
        Refused: They are not what the model takes.
    """
    value = _object(read(body))
    names = [one.name for one in inputs]
    match list(value):
        case ["rows"]:
            return _columns(_by_records(value["rows"], names, exactly=True), inputs)
        case ["columns"]:
            columns = _object(value["columns"])
            _need(set(columns) == set(names), "names")
            return _columns(columns, inputs)
    raise Refused("it is neither rows nor columns")


def read_scoring(body: bytes, json_length: bytes | None, inputs: Sequence[Input]) -> Columns:
    """Returns the rows of one of MLflow's four forms; what else there is is left out, and NaN stands for null.

    Raises:
        Refused: They are not what the model takes.
    """
    value = _object(read(body, as_mlflow=True))
    forms = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in value]
    _need(len(forms) == 1, "one form")
    given, names = value[forms[0]], [one.name for one in inputs]
    if forms[0] == "dataframe_split":
        split = _object(given)
        _need(set(split) <= {"columns", "index", "data"}, "members")
        named = split.get("columns")
        return _columns(_of_lists(split.get("data"), names if named is None else _list(named), names), inputs)
    if isinstance(given, dict) and any(isinstance(values, list) for values in given.values()):
        return _columns({name: given.get(name) for name in names}, inputs)
    rows = [given] if isinstance(given, dict) else _list(given)
    if rows and isinstance(rows[0], list):
        return _columns(_of_lists(rows, names, names), inputs)
    if len(names) == 1 and rows and not isinstance(rows[0], dict):
        return _columns({names[0]: rows}, inputs)
    return _columns(_by_records(rows, names, exactly=False), inputs)


def read_inference(body: bytes, json_length: bytes | None, inputs: Sequence[Input]) -> Columns:
    """Returns the rows of tensors, one for each input, or one of all of them.

    Raises:
        Refused: They are not what the model takes.
    """
    length = len(body)
    if json_length is not None:
        _need(json_length.isdigit() and len(json_length) < 20 and int(json_length) <= length, "length of the JSON")
        length = int(json_length)
    tail, columns, names = body[length:], {}, [one.name for one in inputs]
    tensors = _list(_object(read(body[:length])).get("inputs"))
    for tensor in map(_object, tensors):
        size = _object(tensor.get("parameters") or {}).get("binary_data_size")
        _need((size is None) != (tensor.get("data") is None), "data")
        if size is None:
            values = _flat(tensor["data"])
        else:
            _need(type(size) is int and 0 <= size <= len(tail), "size")
            values, tail = _unpacked(str(tensor.get("datatype")), tail[:size]), tail[size:]
        shape = _list(tensor.get("shape"))
        _need(all(type(n) is int and n > 0 for n in shape) and len(shape) in (1, 2), "shape")
        _need(int(np.prod(shape, dtype=object)) == len(values), "shape")
        values = [_cast(str(tensor.get("datatype")), value) for value in values]
        _need(type(tensor.get("name")) is str and tensor["name"] not in columns, "name")
        if len(tensors) == 1 and len(shape) == 2 and shape[1] == len(names) and shape[1] > 1:
            columns = {name: values[place :: len(names)] for place, name in enumerate(names)}
        else:
            _need(len(shape) == 1 or shape[1] == 1, "shape")
            columns[tensor["name"]] = values
    _need(not tail and set(columns) == set(names), "tensors")
    return _columns(columns, inputs)


READERS: Mapping[str, Callable[[bytes, bytes | None, Sequence[Input]], Columns]] = {
    "native": read_native,
    "scoring": read_scoring,
    "inference": read_inference,
}


def _by_records(rows: Any, names: Sequence[str], *, exactly: bool) -> Given:
    records = [_object(row) for row in _list(rows)]
    seen = {name for record in records for name in record}
    for record in records:
        _need(set(record) == set(names) if exactly else set(names) <= seen, "names")
    return {name: [record.get(name) for record in records] for name in names}


def _of_lists(rows: Any, named: Sequence[Any], names: Sequence[str]) -> Given:
    _need(all(isinstance(name, str) for name in named) and len(set(named)) == len(named), "names")
    _need(set(names) <= set(named), "names")
    _need(all(len(_list(row)) == len(named) for row in _list(rows)), "length of a row")
    return {name: [row[list(named).index(name)] for row in rows] for name in names}


def _columns(given: Given, inputs: Sequence[Input]) -> Columns:
    lengths = {len(_list(values)) for values in given.values()}
    _need(len(lengths) == 1 and 1 <= min(lengths) <= MAX_ROWS, "rows")
    return {one.name: _column(one, given[one.name]) for one in inputs}


def _column(one: Input, values: Sequence[Any]) -> npt.NDArray[Any]:
    _need(one.nullable or None not in values, "null")
    match one.type:
        case ColumnType.NUMBER | ColumnType.INTEGER:
            numbers = [float("nan") if value is None else _number(value) for value in values]
            whole = one.type is ColumnType.NUMBER or all(value != value or value.is_integer() for value in numbers)
            _need(whole, "whole number")
            return np.array(numbers)
        case ColumnType.BOOLEAN:
            _need({type(value) for value in values} <= {bool, type(None)}, "truth")
            return np.array([np.nan if value is None else float(value) for value in values])
        case ColumnType.CATEGORY:
            _need(all(value is None or (isinstance(value, str) and value != MISSING) for value in values), "text")
            return np.array([MISSING if value is None else value for value in values], dtype=object)
        case ColumnType.TIMESTAMP:
            return np.array([_moment(value) for value in values], dtype="datetime64[us]")


def _number(value: Any) -> float:
    _need(type(value) in (int, float) and abs(value) != math.inf, "number")
    try:
        return float(value)
    except OverflowError:
        raise Refused("a number is too large") from None


def _moment(value: Any) -> np.datetime64:
    if value is None:
        return np.datetime64("NaT", "us")
    _need(isinstance(value, str), "time")
    try:
        moment = datetime.fromisoformat(value)
        return np.datetime64((moment if moment.tzinfo is None else moment.astimezone(UTC)).replace(tzinfo=None), "us")
    except (ValueError, OverflowError) as error:
        raise Refused(str(error)) from None


def _flat(data: Any) -> list[Any]:
    values = _list(data)
    nested = values and all(isinstance(row, list) for row in values)
    return [value for row in values for value in row] if nested else values


_FORMATS = {"FP64": "d", "FP32": "f", "FP16": "e", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"} | {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "BOOL": "B"
}  # fmt: skip


def _unpacked(datatype: str, data: bytes) -> list[Any]:
    if datatype == "BYTES":
        texts = []
        while data:
            _need(len(data) >= 4, "length of a text")
            length = int.from_bytes(data[:4], "little")
            _need(len(data) >= 4 + length, "length of a text")
            texts.append(data[4 : 4 + length])
            data = data[4 + length :]
        try:
            return [text.decode("utf-8") for text in texts]
        except UnicodeDecodeError:
            raise Refused("a text is not UTF-8") from None
    _need(datatype in _FORMATS and len(data) % struct.calcsize(_FORMATS[datatype]) == 0, "bytes of a tensor")
    values = [value for (value,) in struct.iter_unpack("<" + _FORMATS[datatype], data)]
    if datatype == "BOOL":
        _need(set(values) <= {0, 1}, "truth")
        return [bool(value) for value in values]
    _need(not any(abs(value) == float("inf") for value in values), "finite")
    return [None if value != value else value for value in values]


def _cast(datatype: str, value: Any) -> Any:
    if value is None:
        return None
    match datatype:
        case "BYTES":
            _need(isinstance(value, str), "text")
        case "BOOL":
            _need(isinstance(value, bool), "truth")
        case "FP64" | "FP32" | "FP16":
            value = struct.unpack("<" + _FORMATS[datatype], _pack(datatype, _number(value)))[0]
        case _:
            _need(datatype in _FORMATS and type(value) is int, "whole number")
            _pack(datatype, value)
    return value


def _pack(datatype: str, value: float) -> bytes:
    try:
        return struct.pack("<" + _FORMATS[datatype], value)
    except (struct.error, OverflowError) as error:
        raise Refused(str(error)) from None


def _object(value: Any) -> dict[str, Any]:
    _need(isinstance(value, dict), "object")
    return value  # type: ignore[no-any-return]


def _list(value: Any) -> list[Any]:
    _need(isinstance(value, list), "array")
    return value  # type: ignore[no-any-return]


def _need(holds: object, what: str) -> None:
    if not holds:
        raise Refused(what)
