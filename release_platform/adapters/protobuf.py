"""Reads the wire format of protobuf, so that a file can be looked at before any library of its own is given it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Field = tuple[int, int | memoryview]
_LONGEST_INDEX = 5


def fields(data: memoryview) -> Iterator[Field]:
    """Yields the number and the value of each field: a whole number, or the bytes of anything else.

    Raises:
        ValueError: It is no message.
    """
    place = 0
    while place < len(data):
        number, value, place = _field(data, place)
        yield number, value


def varints(data: memoryview) -> Iterator[int]:
    """Yields the numbers of a packed field.

    Raises:
        ValueError: It holds something else.
    """
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def text(value: int | memoryview) -> str:
    """Returns a field as text.

    Raises:
        ValueError: It is a number, or no UTF-8.
    """
    if isinstance(value, int):
        raise ValueError("a number stands where text should")
    return bytes(value).decode()


def messages(data: memoryview, number: int) -> list[memoryview]:
    """Returns the messages below one of these field numbers, in order.

    Raises:
        ValueError: It is no message.
    """
    return [value for found, value in fields(data) if found == number and isinstance(value, memoryview)]


def fields_and_indices(data: memoryview, number: int) -> tuple[list[Field], npt.NDArray[np.int64]]:
    """Returns the fields of a message, but those of one number, 1 to 15, as an array: indices, which may be many.

    Raises:
        ValueError: It is no message, or they do not stand in one run, or one is negative or has more than 35 bits.
    """
    key, others, place = number << 3, [], 0
    indices = np.zeros(0, dtype=np.int64)
    while place < len(data):
        if data[place] == key and not len(indices):
            indices, n_bytes = _run_of_indices(data[place:], key)
            place += n_bytes
            continue
        found, value, place = _field(data, place)
        if found == number:
            raise ValueError("indices do not stand together")
        others.append((found, value))
    return others, indices


def _run_of_indices(data: memoryview, key: int) -> tuple[npt.NDArray[np.int64], int]:
    """Reads key, index, key, index, ... as far as it goes; returns the indices and how many bytes they take."""
    raw = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(raw < 0x80)  # the last byte of a key or an index
    n_pairs = len(ends) // 2
    keys, last = ends[: 2 * n_pairs : 2], ends[1 : 2 * n_pairs : 2]
    begin = np.concatenate([[0], last[:-1] + 1])[:n_pairs]
    others = np.flatnonzero((raw[keys] != key) | (keys != begin))
    n = int(others[0]) if len(others) else n_pairs
    first, length = keys[:n] + 1, last[:n] - keys[:n]
    if not n or length.max() > _LONGEST_INDEX:
        raise ValueError("an index is negative, or too large")
    indices = np.zeros(n, dtype=np.int64)
    for byte in range(int(length.max())):
        there = length > byte
        indices[there] |= (raw[first[there] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return indices, int(last[n - 1]) + 1


def _field(data: memoryview, place: int) -> tuple[int, int | memoryview, int]:
    key, place = _varint(data, place)
    wire = key & 7
    if wire == 0:
        value, place = _varint(data, place)
        return key >> 3, value, place
    if wire == 2:
        length, place = _varint(data, place)
    else:
        length = {1: 8, 5: 4}.get(wire, -1)
    if length < 0 or place + length > len(data):
        raise ValueError("it is no ONNX file")
    return key >> 3, data[place : place + length], place + length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is no ONNX file")
