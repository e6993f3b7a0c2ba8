"""Reads the body of a request, within its limits of size and time."""

import asyncio

from starlette.types import Receive

from serving.doors import Head
from serving.errors import BodyTimeout, BodyTooLarge, ClientGone


async def read_body(receive: Receive, head: Head, *, max_bytes: int, within_s: float) -> bytes:
    """Returns the bytes of a body.

    A body that says that it is too large is refused before a byte of it is read, any other as soon as it is.

    Raises:
        BodyTooLarge: It has more than `max_bytes`.
        BodyTimeout: It did not arrive within `within_s` seconds.
        ClientGone: The connection ended first.
    """
    announced = head.get(b"content-length")
    if announced is not None and announced.isdigit() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    try:
        if _is_here(receive):
            return await _read(receive, max_bytes)
        async with asyncio.timeout(within_s):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise BodyTimeout(f"the body did not arrive within {within_s:g} s") from None


def _is_here(receive: Receive) -> bool:
    """Returns whether uvicorn has the whole body already, as it mostly does: setting a timer would take longer."""
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the connection ended before the body did")
        chunk: bytes = message.get("body", b"")
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {max_bytes:,} bytes; send the rows in parts")
