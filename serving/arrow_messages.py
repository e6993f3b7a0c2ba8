"""Looks at the messages of an Arrow IPC stream before any of them is decoded.

What a buffer claims to hold when it is decompressed, or must be copied to be swapped, is not bounded by the size of the
body. So neither is decoded: the header of each message tells, and pyarrow has verified its structure by then.
"""

import struct
from collections.abc import Iterator
from struct import unpack_from
from typing import Any

from serving.errors import InvalidInput, MalformedBody

MOST_MESSAGES = 1_000
_MAGIC = b"ARROW1"
_FILE_START, _FILE_END = 8, 10
_BIG_ENDIAN = 1
# Places of fields in the FlatBuffers tables of Arrow's Message.fbs and Schema.fbs.
_HEADER, _SCHEMA_ENDIANNESS, _BATCH_COMPRESSION, _DICTIONARY_DATA = 2, 0, 3, 1


def stream_in_file(body: memoryview) -> memoryview:
    """Returns the stream that an Arrow file holds; its footer, which only repeats what the stream says, is left out.

    Raises:
        MalformedBody: It is no Arrow file.
    """
    if len(body) < _FILE_START + _FILE_END or body[:6] != _MAGIC or body[-6:] != _MAGIC:
        raise MalformedBody("the body is not an Arrow file: it does not begin and end with ARROW1")
    (n_footer,) = unpack_from("<i", body, len(body) - _FILE_END)
    end = len(body) - _FILE_END - n_footer
    if n_footer < 0 or end < _FILE_START:
        raise MalformedBody("the body is not a whole Arrow file: its footer is longer than it is")
    return body[_FILE_START:end]


def check_messages(messages: Iterator[Any]) -> None:
    """Refuses messages that are compressed, of a big-endian machine, or too many.

    Args:
        messages: Those of a stream, as `pyarrow.ipc.MessageReader` gives them.

    Raises:
        InvalidInput: There are such ones.
        MalformedBody: A header is not what its kind says.
    """
    for place, message in enumerate(messages):
        if place == MOST_MESSAGES:
            raise InvalidInput(f"the body has more than {MOST_MESSAGES:,} Arrow messages; send larger record batches")
        try:
            _check(message.type, memoryview(message.metadata))
        except struct.error:
            raise MalformedBody("the body is not valid Arrow IPC: a message's header is cut off") from None


def _check(kind: str, data: memoryview) -> None:
    (root,) = unpack_from("<I", data, 0)
    header = _table(data, root, _HEADER)
    if header is None:
        raise MalformedBody("the body is not valid Arrow IPC: a message has no header")
    if kind == "schema":
        at = _place(data, header, _SCHEMA_ENDIANNESS)
        if at is not None and unpack_from("<h", data, at)[0] == _BIG_ENDIAN:
            raise InvalidInput("the Arrow data is big-endian; send it little-endian")
        return
    batch = _table(data, header, _DICTIONARY_DATA) if kind == "dictionary" else header
    if batch is not None and _place(data, batch, _BATCH_COMPRESSION) is not None:
        raise InvalidInput("the Arrow buffers are compressed; send them without compression")


def _place(data: memoryview, table: int, field: int) -> int | None:
    """Returns where a field of a FlatBuffers table stands, or None where the table leaves it out."""
    vtable = table - unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise struct.error
    (size,) = unpack_from("<H", data, vtable)
    entry = 4 + 2 * field
    if entry + 2 > size:
        return None
    (offset,) = unpack_from("<H", data, vtable + entry)
    return table + offset if offset else None


def _table(data: memoryview, table: int, field: int) -> int | None:
    at = _place(data, table, field)
    return None if at is None else int(at + unpack_from("<I", data, at)[0])
