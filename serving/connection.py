"""One connection of a client: uvicorn's protocol with a limit to everything that a client can make it wait for.

```
       the head is complete                   answered
 HEAD ----------------------> (application) -----------> IDLE
  |                                                       |  the first byte of the next request: HEAD again
  | too late, too large, not HTTP: answered as such       | too late
  +------------------------> ENDING <---------------------+
```
A POST that is whole before the next byte is waited for is first offered to `Edge.soon`, which answers most predictions
within this turn of the event loop; the application is given what remains, as by uvicorn itself. Whatever else happens
to a connection that is owed an answer, it is given the answer first.

In HEAD, IDLE and ENDING the connection has a deadline, and so has each time that its client does not read what was
written, which is put off as long as it goes on reading. While the application works it has none: that one has limits of
its own for the body and the queue.
"""

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, cast
from uuid import uuid4

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serving.busy_poll import BusyPoll
from serving.doors import Sent
from serving.edge import Edge
from serving.errors import (
    HeadTimeout,
    HeadTooLarge,
    InvalidHttp,
    Problem,
    Stopping,
    TooManyConnections,
    problem_response,
)
from serving.settings import Settings

LAST_CHANCE_S = 1.0
"""Seconds that a client without a request has, once the server stops, to get one more in."""

_NEVER = math.inf
_LINGER_S = 2.0
_MOST_LINGERING = 64
_MOST_PIPELINED = 32
_CHUNK_FRAME_BYTES = 16
_MOST_UNTAKEN_BYTES = 1024 * 1024  # of a body; uvicorn's 64 KiB stop the socket at each piece of a larger one


class Lobby(ServerState):
    """What the connections of one server share.

    Args:
        on_cut: Is told of each connection that is ended by a fault of its client, with the slug of the answer, or
            `unread` when the client did not read and so was sent none.
        busy_poll: Keeps the event loop awake for clients that come again at once.

    Attributes:
        stopping: Whether each answer is to be the last one of its connection.
        n_refused: Connections beyond the limit that have been told so and are not gone yet.
        on_gone: Is told of each connection that is gone, one that was refused included.
    """

    def __init__(self, on_cut: Callable[[str], None], busy_poll: BusyPoll) -> None:
        super().__init__()
        self.on_cut = on_cut
        self.busy_poll = busy_poll
        self.stopping = False
        self.n_refused = 0
        self.on_gone: Callable[[], None] | None = None


class _Waits(Enum):
    HEAD = auto()
    IDLE = auto()
    ENDING = auto()


_HEAD, _IDLE, _ENDING = _Waits  # a look-up in an enumeration is slow, and these are read at every request


class Connection(HttpToolsProtocol):
    """Speaks HTTP/1.1 with one client.

    One timer per connection is set seldom and looks at the deadline when it rings, so that a request costs no timer.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        edge: Edge,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._edge = edge
        self._is_owed = False  # an answer, within this turn of the event loop
        self._held: bytearray | None = None  # the body of a request that the application does not know of yet
        self._may_hold = False
        self._lobby = cast(Lobby, server_state)
        self._settings = settings
        self._max_head_bytes = settings.max_head_bytes
        self._keep_alive_s = settings.keep_alive_s
        self._waits = _HEAD
        self._due = self._unread_due = self._rings_at = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._n_unsent_bytes = 0  # when it was looked last whether the client reads
        self._in_head = False  # a request's first byte came, the end of its head did not
        self._receiving = False  # likewise, the end of its body
        self._n_overhead_bytes = 0
        self._fault: Problem | None = None
        self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, or says that there are too many."""
        self._raw = transport
        if len(self.connections) >= self._settings.max_connections:
            self._refuse(transport)
            return
        super().connection_made(cast(asyncio.Transport, _Wire(transport, self)))
        self._expect(_HEAD, self._settings.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        self._settle()
        if self._timer is not None:
            self._timer.cancel()
        if self not in self.connections:
            self._lobby.n_refused -= 1
        self._due = self._unread_due = _NEVER
        if self._lobby.on_gone is not None:
            self._lobby.on_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on. Nothing is read any more once the connection is at fault or ends."""
        self._settle()
        if self._deaf:
            return
        self._n_overhead_bytes += len(data)
        self._may_hold = True
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if not self._deaf:
                self._fail(self._fault or InvalidHttp("this is not HTTP/1.1"))
        else:
            if self._n_overhead_bytes > self._max_head_bytes:
                if not self._receiving:  # blank lines, which may stand before a request
                    self._in_head = self._receiving = True
                self._fail(self._too_much())
            elif self._waits is _IDLE and self._in_head and not self._is_busy:
                self._expect(_HEAD, self._settings.header_timeout_s)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has said all that it will; the transport stays open for the answers to what came whole."""
        self._settle()
        if not self._is_busy:
            return False
        self._receiving = False
        if self._fault is not None:
            return True
        if not self.cycle.more_body:
            self.cycle.keep_alive = False
            return True
        if self.pipeline:  # the newest request did not come whole, but others did
            self._fail(InvalidHttp("the body of the request ended too soon"))
        return self._fault is not None

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    rest = memoryview(rest)[upgrade.args[0] :]
                    self._decline_upgrade()
        finally:
            if self._held is not None:
                self._hand_over()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begins a request."""
        self._settle()
        self._in_head = self._receiving = True
        HttpToolsProtocol.on_message_begin(self)

    def on_headers_complete(self) -> None:
        """Hands the request to the application."""
        if self.parser.should_upgrade():
            return
        if self._n_overhead_bytes > self._max_head_bytes and self._head_bytes() > self._max_head_bytes:
            self._fault = self._too_much()
            raise ValueError(self._fault.detail)
        if not self.url.startswith(b"/") and not _has_path(self.url):
            self._fault = InvalidHttp("the URL of the request has no path")
            raise ValueError(self._fault.detail)
        if len(self.pipeline) >= _MOST_PIPELINED:
            self.cycle.keep_alive, self._deaf = False, True  # the answers end here; the client may ask the rest again
            raise ValueError("too many requests were sent ahead of their answers")
        self.headers = []  # what follows the body is no part of the head, which the scope has
        self._in_head = False
        self._due = _NEVER
        self._n_overhead_bytes = 0
        if self._may_hold and self._is_plain:
            self._may_hold = False  # others that came with it wait for their turn, as other connections do
            self._held = bytearray()
        else:
            self._start()

    def on_body(self, body: bytes | bytearray) -> None:
        """Takes a part of the body; what frames it may not be much more than it."""
        self._n_overhead_bytes -= 2 * len(body) + _CHUNK_FRAME_BYTES
        if self._n_overhead_bytes < 0:
            self._n_overhead_bytes = 0
        if self._held is not None:
            self._held += body
            return
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > _MOST_UNTAKEN_BYTES:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Ends the body."""
        if self._in_head:  # another protocol was offered: what follows is not parsed
            return
        self._receiving = False
        self._n_overhead_bytes = 0
        if self._held is not None and self._is_answered(bytes(self._held)):
            self._held = None
            return
        if self._held is not None:
            self._hand_over()
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # The two ways to an answer

    def _start(self) -> None:
        """Hands the request to the application."""
        HttpToolsProtocol.on_headers_complete(self)
        if self._lobby.stopping:
            self.cycle.keep_alive = False

    def _hand_over(self) -> None:
        """Hands over a request that was held, with what came of its body."""
        body, self._held = self._held, None
        self._start()
        if body:
            self.on_body(body)

    @property
    def _is_plain(self) -> bool:
        """Whether the request is a POST that nothing is special about."""
        return (
            self.parser.get_method() == b"POST"
            and not self._is_busy
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self._lobby.stopping
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
        )

    def _is_answered(self, body: bytes) -> bool:
        """Returns whether the request is answered within this turn, or was already."""
        self._is_owed = True
        is_alone = self._lobby.busy_poll.request_came()
        is_taken = self._edge.soon(self.url, self.scope["headers"], body, self.scope["state"], self._pay)
        if not is_taken:
            self._is_owed = False
        elif is_alone:
            self._settle()
        return is_taken

    def _pay(self, sent: Sent) -> None:
        self._is_owed = False
        lines = b"\r\n".join(map(b": ".join, (*self._lobby.default_headers, *sent.headers)))
        self.transport.write(b"%b%b\r\n\r\n%b" % (STATUS_LINE[sent.status], lines, sent.body))
        self.on_response_complete()
        self._lobby.busy_poll.request_answered(self.loop)

    def _settle(self) -> None:
        if self._is_owed:
            self._edge.settle()

    # What the application's answer calls

    def on_response_complete(self) -> None:
        """Goes on with the request that was sent ahead, or waits for the next one."""
        self.server_state.total_requests += 1
        if self._waits is _ENDING or self._raw.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._fault is not None:
            self._answer(self._fault)
        else:
            self._waits = _IDLE  # as `_expect` does, in fewer calls
            self._due = self.loop.time() + (LAST_CHANCE_S if self._lobby.stopping else self._keep_alive_s)
            if self._due < self._rings_at:
                self._ring_by(self._due)

    def pause_writing(self) -> None:
        """The client does not read what was written."""
        super().pause_writing()
        self._n_unsent_bytes = self._raw.get_write_buffer_size()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._unread_due = _NEVER

    def answer_for_the_last_time(self) -> None:
        """Makes the answer under way the last one, if there is one."""
        self._settle()
        if self._is_busy:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Makes the answer under way the last one; a client without a request has a last chance."""
        self._settle()
        if self._is_busy:
            self.cycle.keep_alive = False
        elif self._waits is not _ENDING:
            self._expect(self._waits, min(LAST_CHANCE_S, self._due - self.loop.time()))

    # Faults and the end

    def end(self) -> None:
        """Ends the connection when what was written is sent.

        While a request is still coming in only our side is closed, for a moment: closing a socket that has unread bytes
        resets it, and the client would lose the answer.
        """
        self._deaf = True
        if self._raw.is_closing() or self._waits is _ENDING:
            return
        self._n_unsent_bytes = self._raw.get_write_buffer_size()
        if self._receiving and self._raw.can_write_eof():
            self._expect(_ENDING, _LINGER_S)
            self._raw.write_eof()
            self.flow.resume_reading()
        else:
            self._expect(_ENDING, self._settings.send_timeout_s)
            self._raw.close()

    def cut(self) -> None:
        """Ends the connection at once, whatever is unsent."""
        self._settle()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what is still to be written goes nowhere, as when the client has left
        self._raw.abort()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self.transport, self._deaf = transport, True
        self._lobby.n_refused += 1
        self._lobby.on_cut(TooManyConnections.slug)
        if self._lobby.n_refused > _MOST_LINGERING:
            transport.abort()
            return
        transport.write(_raw_answer(TooManyConnections("too many connections are open; come again"), self._lobby))
        if transport.can_write_eof():
            transport.write_eof()
        self._expect(_ENDING, _LINGER_S)

    def _fail(self, fault: Problem) -> None:
        """Answers a fault of the client, after all requests before it."""
        self._settle()
        self._fault, self._deaf = fault, True
        if self._is_busy and self.cycle.more_body:  # the fault is in the body of this request
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self._answer(fault)
        elif not self._is_busy:
            self._answer(fault)

    def _answer(self, fault: Problem) -> None:
        """Answers in the application's place, if the request that is at fault has no answer yet."""
        self._lobby.on_cut(fault.slug)
        if self._in_head or not self.cycle.response_started:
            self._raw.write(_raw_answer(fault, self._lobby))
        self.end()

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is to be said."""
        return self._waits is _ENDING

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _decline_upgrade(self) -> None:
        """Goes on in HTTP/1.1 as if nothing else had been offered; the parser would drop the body otherwise."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._fault = InvalidHttp("this is no proxy")
            raise httptools.HttpParserError(self._fault.detail)
        kept = [(name, value) for name, value in self.headers if name not in {b"upgrade", b"http2-settings"}]
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % pair for pair in kept]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_much(self) -> Problem:
        if not self._in_head:
            return InvalidHttp("the frames of the body's parts are larger than the parts")
        return HeadTooLarge(f"the head of the request has more than {self._settings.max_head_bytes:,} bytes")

    # The deadline

    def _expect(self, what: _Waits, within_s: float) -> None:
        self._waits = what
        self._due = self.loop.time() + within_s
        self._ring_by(self._due)

    def _expect_reading(self) -> None:
        self._unread_due = self.loop.time() + self._settings.send_timeout_s
        self._ring_by(self._unread_due)

    def _ring_by(self, due: float) -> None:
        if due < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = due
            self._timer = self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, _NEVER
        due = min(self._due, self._unread_due)
        if due > self.loop.time():
            if due < _NEVER:
                self._ring_by(due)
        elif self._waits is _ENDING:
            if self._has_read():
                self._expect(_ENDING, self._settings.send_timeout_s)
            else:
                self._raw.abort()
        elif self._unread_due <= self._due:
            if self._has_read():
                self._expect_reading()
            else:
                self._lobby.on_cut("unread")
                self._raw.abort()
        elif self._in_head:
            self._deaf = True
            self._answer(self._too_late())
        else:
            self.end()

    def _has_read(self) -> bool:
        """Returns whether the client has read something since it was looked last, and not yet all."""
        before, self._n_unsent_bytes = self._n_unsent_bytes, self._raw.get_write_buffer_size()
        return 0 < self._n_unsent_bytes < before

    def _too_late(self) -> Problem:
        if self._lobby.stopping:
            return Stopping("the server is stopping; send the request again")
        return HeadTimeout(f"the head did not arrive within {self._settings.header_timeout_s:g} s")


class _Wire:
    """The transport as uvicorn is given it: to close it is to end the connection."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self.close = connection.end

    def write(self, data: bytes) -> None:
        """Writes, unless the connection is over: what the application answers then goes nowhere."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.is_ending or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _has_path(url: bytes) -> bool:
    """Returns whether a URL in absolute form, or `*`, names a path, as any other does; it need not be valid."""
    try:
        return httptools.parse_url(url).path is not None
    except httptools.HttpParserInvalidURLError:
        return False


def _raw_answer(problem: Problem, lobby: Lobby) -> bytes:
    request_id = uuid4().hex
    response = problem_response(problem, instance="", request_id=request_id)
    headers = [*lobby.default_headers, *response.raw_headers, (b"x-request-id", request_id.encode())]
    if not any(name == b"connection" for name, _ in headers):
        headers.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body)
