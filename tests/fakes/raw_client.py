"""A client that writes bytes as they are, and reads whole answers."""

import json
import socket
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def says_close(self) -> bool:
        """Whether it is the last one of its connection."""
        return self.headers.get("connection") == "close"

    @property
    def slug(self) -> str:
        """What kind of problem document it is."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return str(document["type"]).rpartition(":")[2]


class RawClient:
    """One connection."""

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None, timeout_s: float = 30.0) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self._unread = b""

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Writes bytes."""
        self.socket.sendall(data)

    def answer(self) -> RawAnswer:
        """Reads one answer.

        Raises:
            EOFError: The connection ended before it.
        """
        while b"\r\n\r\n" not in self._unread:
            self._more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
        n_bytes = int(headers["content-length"])
        while len(self._unread) < n_bytes:
            self._more()
        body, self._unread = self._unread[:n_bytes], self._unread[n_bytes:]
        return RawAnswer(status=int(line.split()[1]), headers=headers, body=body)

    def get(self, path: str) -> RawAnswer:
        """Asks, and reads the answer."""
        self.send(request(path))
        return self.answer()

    def ended_after(self) -> float:
        """Returns the seconds until the server ends the connection; it must say nothing more before."""
        begun = time.monotonic()
        assert not self._unread
        assert self.socket.recv(65536) == b""
        return time.monotonic() - begun

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._unread!r}")
        self._unread += data


def request(path: str, *headers: str) -> bytes:
    """Returns a request without a body."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def post(path: str, n_bytes: int, *headers: str) -> bytes:
    """Returns the head of a request with a JSON body of that length."""
    named = ("Host: x", "Content-Type: application/json", f"Content-Length: {n_bytes}", *headers)
    return "\r\n".join([f"POST {path} HTTP/1.1", *named, "", ""]).encode()
