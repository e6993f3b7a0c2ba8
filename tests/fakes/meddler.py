"""A server between a client and real ones, which changes what it likes on the way."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import uvicorn

from release_platform.adapters.serving_protocols import ARROW, JSON_LENGTH, Asked
from tests.fakes.server import on_a_thread

Change = Callable[[httpx.Response], tuple[dict[str, str], bytes]]


def as_it_is(response: httpx.Response) -> tuple[dict[str, str], bytes]:
    """Changes nothing."""
    return dict(response.headers), response.content


@contextmanager
def meddling(*urls: str, change: Change = as_it_is, only: Asked | None = None) -> Iterator[str]:
    """Yields the address of a server that passes requests on, in turns, and changes the answers.

    Args:
        urls: The real servers.
        change: Returns headers and body of what is answered instead.
        only: The one request whose answer is changed; None for every one.
    """
    server = uvicorn.Server(
        uvicorn.Config(_forwarder(urls, change, only), port=0, log_level="critical", lifespan="off", ws="none")
    )
    with on_a_thread(server) as address:
        yield address


def _forwarder(urls: Sequence[str], change: Change, only: Asked | None) -> Any:
    turns = cycle(urls)

    async def forward(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = [(name, value) for name, value in scope["headers"] if name not in {b"host", b"connection"}]
        url = next(turns) + scope["path"]
        async with httpx.AsyncClient() as client:
            response = await client.request(scope["method"], url, content=body, headers=headers)
        asked = only is None or (only.path, only.body) == (scope["path"], body)
        said, answer = (change if asked else as_it_is)(response)
        raw = [(name.encode(), value.encode()) for name, value in said.items() if name != "content-length"]
        await send({"type": "http.response.start", "status": response.status_code, "headers": raw})
        await send({"type": "http.response.body", "body": answer})

    return forward


def header(name: str, value: str | None) -> Change:
    """Changes a header, or leaves it out."""

    def change(response: httpx.Response) -> tuple[dict[str, str], bytes]:
        kept = {key: text for key, text in response.headers.items() if key != name}
        return kept | ({} if value is None else {name: value}), response.content

    return change


def member(name: str, value: object) -> Change:
    """Changes a member of a JSON answer."""

    def change(response: httpx.Response) -> tuple[dict[str, str], bytes]:
        return dict(response.headers), json.dumps(response.json() | {name: value}).encode()

    return change


def last_bit(response: httpx.Response) -> tuple[dict[str, str], bytes]:
    """Changes the last number of an answer in its last bit, in whatever form it is."""
    headers, body = as_it_is(response)
    if headers["content-type"] == ARROW:
        return headers, _arrow(body)
    if JSON_LENGTH in headers:
        return headers, body[:-8] + bytes([body[-8] ^ 1]) + body[-7:]
    answer = response.json()
    holder = answer["outputs"][-1] if "outputs" in answer else answer
    name = next(name for name in ("data", "probabilities", "predictions") if name in holder)
    numbers = np.array(holder[name], dtype=np.float64)
    numbers.view(np.int64).reshape(-1)[-1] ^= 1
    holder[name] = numbers.tolist()
    return headers, json.dumps(answer).encode()


def _arrow(body: bytes) -> bytes:
    table = pa.ipc.open_stream(body).read_all()
    numbers = table.column(table.num_columns - 1).to_numpy().copy()
    numbers.view(np.int64)[-1] ^= 1
    changed = table.set_column(table.num_columns - 1, table.schema.names[-1], pa.array(numbers))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, changed.schema) as writer:
        writer.write_table(changed)
    return bytes(sink.getvalue())
