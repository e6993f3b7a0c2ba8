"""A client that sends any bytes, and takes only sound HTTP answers."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 60.0
_IDLE_S = 2.0  # a server may close a connection that is idle for longer


class Dropped(AssertionError):
    """The connection ended without a whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: header names in lower case, in order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """Returns the value of a header that is there at most once."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


class Wire:
    """A connection to a server, which is kept for as long as both sides may."""

    def __init__(self, url: str) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def ask(self, text: bytes) -> Answer:
        """Returns the answer to a sound request.

        Raises:
            Dropped: There is none, or more came than one.
        """
        if time.monotonic() - self._used_at > _IDLE_S:
            self.close()
        answer, rest = self._exchange(text)
        if rest:
            raise Dropped(f"{len(rest)} bytes follow the answer: {rest[:100]!r}")
        self._used_at = time.monotonic()
        if answer.get("connection") == "close":
            self.close()
        return answer

    def ask_once(self, text: bytes) -> Answer:
        """Returns the first answer to bytes that may be no sound request, on a connection of their own."""
        self.close()
        answer, _ = self._exchange(text)
        self.close()
        return answer

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, text: bytes) -> tuple[Answer, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=ANSWER_WITHIN_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # it answers before all was read, and that answer counts
            self._socket.sendall(text)
        head, _, rest = self._until(b"", lambda got: b"\r\n\r\n" in got).partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines))
        length = int(dict(headers).get("content-length", "0"))
        rest = self._until(rest, lambda got: len(got) >= length)
        protocol, status, _ = f"{line} ".split(" ", 2)
        assert protocol == "HTTP/1.1", line
        return Answer(status=int(status), headers=headers, body=rest[:length]), rest[length:]

    def _until(self, got: bytes, enough: Callable[[bytes], bool]) -> bytes:
        assert self._socket is not None
        while not enough(got):
            try:
                more = self._socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Dropped(f"the connection ended after {len(got)} bytes of an answer: {got[:200]!r}")
            got += more
        return got
