"""Tensors of the Open Inference Protocol: values of one datatype, in JSON or in bytes.

In bytes: little-endian, row by row, nothing between; BOOL is a byte 0 or 1, BYTES a uint32 length and then the bytes.
Decoded they are flat arrays: float64 for every kind of number, bool, or object (text, and `None` for missing).
"""

import reprlib
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput

FLOATS: Mapping[str, np.dtype[Any]] = {"FP64": np.dtype("<f8"), "FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}
INTEGERS: Mapping[str, np.dtype[Any]] = {
    f"{sign}INT{8 * size}": np.dtype(f"<{code}{size}")
    for sign, code in (("", "i"), ("U", "u"))
    for size in (1, 2, 4, 8)
}
DATATYPES = (*FLOATS, *INTEGERS, "BOOL", "BYTES")
_NUMBERS = {**FLOATS, **INTEGERS}
_LENGTH = struct.Struct("<I")
_NOTHING = type(None)
_INT64 = np.iinfo(np.int64)

Values = npt.NDArray[Any]


def decode_bytes(datatype: str, data: memoryview, shape: Sequence[int], *, name: str) -> Values:
    """Returns the values that a tensor's bytes hold, flat, in memory of their own.

    Args:
        datatype: One of `DATATYPES`.
        data: Exactly the bytes of the tensor.
        shape: Its one or two lengths, each at least 1.
        name: What it is called.

    Raises:
        InvalidInput: They are not as many bytes as there must be, not 0 or 1, or not UTF-8.
    """
    n = _n_values(shape)
    if datatype == "BYTES":
        return _texts(data, n, shape, name)
    dtype = _NUMBERS.get(datatype)
    wanted = n if dtype is None else n * dtype.itemsize
    if len(data) != wanted:
        detail = f"'{name}' has {len(data):,} bytes; {n:,} values of {datatype} have {wanted:,}"
        raise InvalidInput(detail, field=name)
    if dtype is not None:
        return _widened(np.frombuffer(data, dtype))
    flags = np.frombuffer(data, np.uint8)
    if (flags > 1).any():
        raise _at(int(np.argmax(flags > 1)), shape, name, "is a byte that is neither 0 nor 1")
    return flags.astype(np.bool_)


def decode_json(datatype: str, data: Any, shape: Sequence[int], *, name: str) -> Values:
    """Returns the values of a tensor's JSON array, flat; it may be nested as its shape is.

    `null` is a missing value: NaN in numbers, None in all others. Numbers of FP32 and FP16 are rounded to that, so that
    the same tensor means the same in JSON and in bytes.

    Raises:
        InvalidInput: They are not as many values as there must be, or one is not of the datatype.
    """
    values = _flat(data, shape, name)
    if datatype in FLOATS:
        return _floats(values, FLOATS[datatype], shape, name)
    if datatype in INTEGERS:
        return _integers(values, datatype, shape, name)
    wanted = bool if datatype == "BOOL" else str
    _check_types(values, {wanted, _NOTHING}, datatype, shape, name)
    if wanted is bool and None not in values:
        return np.array(values, dtype=np.bool_)
    return np.array(values, dtype=object)


def datatype_of_labels(classes: Sequence[Any]) -> str:
    """Returns the datatype of a classifier's labels; labels of several kinds, or too large, are text."""
    kinds = set(map(type, classes))
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int} and all(_INT64.min <= label <= _INT64.max for label in classes):
        return "INT64"
    return "BYTES"


def encode_bytes(datatype: str, values: Values) -> bytes:
    """Returns the bytes of values: numbers (FP64), or labels (INT64, BOOL, BYTES)."""
    match datatype:
        case "FP64":
            return np.ascontiguousarray(values, dtype="<f8").tobytes()
        case "INT64":
            return values.astype("<i8").tobytes()
        case "BOOL":
            return values.astype(np.bool_).tobytes()
        case _:
            return b"".join(map(_measured, map(str, values.tolist())))


def encode_json(datatype: str, values: Values) -> Any:
    """Returns the same as a flat array or list that orjson writes."""
    if datatype == "FP64":
        return np.ascontiguousarray(values).reshape(-1)
    return list(map(str, values.tolist())) if datatype == "BYTES" else values.tolist()


def shown(value: Any) -> str:
    """Returns a value as a problem shows it: short, however long or deep it is."""
    return reprlib.repr(value)[:60]


@lru_cache(maxsize=4096)
def _measured(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _n_values(shape: Sequence[int]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def _widened(numbers: Values) -> Values:
    if numbers.dtype == np.float64:
        return numbers.astype(np.float64)  # a copy: bytes may lie anywhere, and may not be written to
    with np.errstate(invalid="ignore"):  # a NaN is a NaN
        return numbers.astype(np.float64)


def _texts(data: memoryview, n: int, shape: Sequence[int], name: str) -> Values:
    if len(data) < n * _LENGTH.size:
        raise InvalidInput(f"'{name}' has {len(data):,} bytes, too few for {n:,} values of BYTES", field=name)
    texts = np.empty(n, dtype=object)
    begin = 0
    for place in range(n):
        end = begin + _LENGTH.size
        if end <= len(data):
            begin, end = end, end + _LENGTH.unpack_from(data, begin)[0]
        if end > len(data):
            raise _at(place, shape, name, f"ends {end - len(data):,} bytes behind the tensor's end")
        try:
            texts[place] = str(data[begin:end], "utf-8")
        except UnicodeDecodeError:
            raise _at(place, shape, name, "is not UTF-8") from None
        begin = end
    if begin != len(data):
        detail = f"'{name}' has {len(data) - begin:,} bytes more than its {n:,} values of BYTES"
        raise InvalidInput(detail, field=name)
    return texts


def _flat(data: Any, shape: Sequence[int], name: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput(f"the data of '{name}' is no array", field=name)
    flat: list[Any] = data
    if len(shape) == 2 and data and isinstance(data[0], list):
        for row, values in enumerate(data):
            if not isinstance(values, list) or len(values) != shape[1]:
                raise InvalidInput(f"row {row} of '{name}' is no array of {shape[1]:,} values", field=name, row=row)
        flat = list(chain.from_iterable(data))
    if len(flat) != _n_values(shape):
        raise InvalidInput(f"'{name}' has {len(flat):,} values, but its shape says {_n_values(shape):,}", field=name)
    return flat


def _floats(values: list[Any], dtype: np.dtype[Any], shape: Sequence[int], name: str) -> Values:
    _check_types(values, {int, float, _NOTHING}, "numbers", shape, name)
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        raise InvalidInput(f"a number of '{name}' is too large", field=name) from None
    if not np.isfinite(numbers).all():
        for place in np.flatnonzero(~np.isfinite(numbers)).tolist():
            if values[place] is not None:
                raise _at(place, shape, name, "is not finite; send null for a missing value")
    if dtype == np.float64:
        return numbers
    with np.errstate(over="ignore"):  # an infinity then, which the form refuses
        return _widened(numbers.astype(dtype))


def _integers(values: list[Any], datatype: str, shape: Sequence[int], name: str) -> Values:
    _check_types(values, {int, _NOTHING}, datatype, shape, name)
    absent = np.array([value is None for value in values])
    whole = [0 if value is None else value for value in values]
    try:
        numbers = np.array(whole, dtype=INTEGERS[datatype]).astype(np.float64)
    except OverflowError:
        bounds = np.iinfo(INTEGERS[datatype])
        place = next(i for i, value in enumerate(whole) if not bounds.min <= value <= bounds.max)
        raise _at(place, shape, name, f"is beyond {datatype}") from None
    numbers[absent] = np.nan
    return numbers


def _check_types(values: list[Any], allowed: set[type], wanted: str, shape: Sequence[int], name: str) -> None:
    if not set(map(type, values)) <= allowed:
        place = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise _at(place, shape, name, f"is not of {wanted}: {shown(values[place])}")


def _at(place: int, shape: Sequence[int], name: str, problem: str) -> InvalidInput:
    row, column = divmod(place, shape[1] if len(shape) == 2 else 1)
    where = f"row {row}, '{name}'" + (f", column {column}" if len(shape) == 2 and shape[1] > 1 else "")
    return InvalidInput(f"{where}: {problem}", field=name, row=row)
