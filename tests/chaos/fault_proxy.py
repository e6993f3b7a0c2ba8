"""A TCP proxy before a real server, which cuts, delays, resets or swallows what it carries; switched while it runs."""

import asyncio
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from threading import Thread
from typing import Any

CHUNK_BYTES = 64 * 1024
DELAY_S = 0.1
_RESET = struct.pack("ii", 1, 0)  # close without lingering sends RST


class Fault(StrEnum):
    """What happens to connections, the open ones and the new ones."""

    CUT = "cut"  # they end in good order
    RESET = "reset"  # they end by RST
    DELAY = "delay"  # every piece is late by `DELAY_S`
    HALF_OPEN = "half-open"  # they stay open, and nothing comes through


class Way(StrEnum):
    """What a fault hits."""

    REQUEST = "request"  # nothing reaches the server
    ANSWER = "answer"  # the server does what it is asked, and nobody hears of it


class FaultProxy:
    """A proxy on a loopback port of its own.

    Args:
        server: Where the real server is: host and port, or the path of a socket.

    Attributes:
        port: Its port.
    """

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._fault: tuple[Fault, Way] | None = None
        self._once = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fault-proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def set(self, fault: Fault, way: Way, *, once: bool = False) -> None:
        """Begins a fault; `once`: it hits the next piece, and is over. Ending requests ends open connections now."""
        self._once = once
        self._call(self._begin(fault, way))

    def heal(self) -> None:
        """Ends the fault: connections that it hit are gone, new ones are carried as if nothing had been."""
        self._call(self._end())

    def start(self) -> None:
        """Listens."""
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Ends every connection, and listens no more."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _begin(self, fault: Fault, way: Way) -> None:
        self._fault = (fault, way)
        if way is Way.REQUEST and fault in {Fault.CUT, Fault.RESET}:
            self._drop_all(reset=fault is Fault.RESET)

    async def _end(self) -> None:
        was, self._fault = self._fault, None
        if was is not None and was[0] is not Fault.DELAY:
            self._drop_all(reset=True)

    async def _close(self) -> None:
        self._listener.close()
        self._drop_all(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._fault in {(Fault.CUT, Way.REQUEST), (Fault.RESET, Way.REQUEST)}:
                self._drop(writer, reset=self._fault[0] is Fault.RESET)  # type: ignore[index]
                return
            opened = (
                asyncio.open_unix_connection(self._server)
                if isinstance(self._server, str)
                else asyncio.open_connection(*self._server)
            )
            far_reader, far_writer = await opened
            self._writers.add(far_writer)
            await asyncio.gather(
                self._carry(reader, far_writer, writer, Way.REQUEST),
                self._carry(far_reader, writer, writer, Way.ANSWER),
            )
            self._writers.discard(far_writer)
        except (OSError, asyncio.CancelledError):
            self._drop(writer, reset=True)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, client: asyncio.StreamWriter, way: Way
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if self._fault is not None and self._fault[1] is way:
                    fault = self._fault[0]
                    if self._once:
                        self._fault = None
                    match fault:
                        case Fault.DELAY:
                            await asyncio.sleep(DELAY_S)
                        case Fault.HALF_OPEN:
                            continue
                        case Fault.CUT | Fault.RESET:
                            self._drop(client, reset=fault is Fault.RESET)
                            break
                target.write(data)
                await target.drain()
        if not target.is_closing():
            target.close()

    def _drop_all(self, *, reset: bool) -> None:
        for writer in list(self._writers):
            self._drop(writer, reset=reset)

    def _drop(self, writer: asyncio.StreamWriter, *, reset: bool) -> None:
        found = writer.get_extra_info("socket")
        if reset and found is not None and found.family != socket.AF_UNIX:
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        else:
            writer.close()


@contextmanager
def fault_proxy(server: tuple[str, int] | str) -> Iterator[FaultProxy]:
    """Yields a proxy before a server."""
    proxy = FaultProxy(server)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
