"""Heads of requests: headers as clients write them, headers that they should not, and lengths that are wrong."""

from dataclasses import dataclass
from random import Random

Headers = list[tuple[bytes, bytes]]

_READ = [
    b"application/json",
    b"Application/JSON",
    b"application/json ; charset=utf-8",
    b'application/json;charset="UTF-8"',
]
_UNREAD = [
    b"text/plain", b"application/jsonx", b"application", b"application/json, text/plain", b"*/*", b"\xff\xfe",
    b"application/json; charset=latin-1", b"application/json;charset=utf-16", b"application/json; charset=",
    b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", b"x" * 5000,
]  # fmt: skip
_CODED = [b"gzip", b"br", b"deflate, gzip", b"", b"identity, gzip", b"GZIP", b"\xff"]
_HARMLESS: Headers = [
    (b"accept", b"text/html"), (b"accept", b"\xff\xfe"), (b"accept-encoding", b"gzip;q=\xff"),
    (b"x-request-id", b"abc-1.2"),
    (b"x-request-id", b"\xff\xff"), (b"x-request-id", b"a" * 200), (b"x-request-id", b""), (b"traceparent", b"00-\xff"),
    (b"authorization", b"Bearer \xff"), (b"x-api-key", b"\x80" * 300), (b"cookie", b"a=\xff; b"),
    (b"x" * 500, b"y" * 9000),
    (b"content-encoding", b"identity"), (b"inference-header-content-length-x", b"1"), (b"forwarded", b'for="_x'),
    (b"host", b"evil.example"), (b"upgrade", b"websocket"), (b"origin", b"null"), (b"range", b"bytes=0-"),
]  # fmt: skip
_BROKEN = [
    b"content-length: abc", b"content-length: -1", b"content-length: +2", b"content-length: 2, 2",
    b"content-length: 0x2",
    b"content-length: 2\r\ncontent-length: 3", b"content-length: 2\r\ntransfer-encoding: chunked",
    b"content-length: " + b"9" * 17, b"content-length: " + b"9" * 30, b"content-length:", b"no colon here",
    b"content-length: 2\r\n folded: 1", b"bad name: 1", b": empty", b"x: a\x00b", b"transfer-encoding: gzip",
    b"transfer-encoding: chunked, identity", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", b"\xff: 1",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A head, besides request line and length.

    Attributes:
        headers: The headers.
        readable: Whether the body is of a type that the route reads.
    """

    headers: Headers
    readable: bool


def head_of(rng: Random) -> Head:
    """Returns a head; four of five are ordinary."""
    if rng.random() < 0.8:
        return Head(headers=[(b"content-type", b"application/json")], readable=True)
    readable = rng.random() < 0.5
    headers: Headers = [(b"content-type", rng.choice(_READ if readable else _UNREAD))]
    if rng.random() < 0.2:
        headers.append((b"content-encoding", rng.choice(_CODED)))
        readable = False
    headers += rng.sample(_HARMLESS, rng.randrange(4))
    rng.shuffle(headers)
    codings = [value for name, value in headers if name == b"content-encoding"]
    if len(codings) > 1:
        headers.remove((b"content-encoding", b"identity"))
    return Head(headers=headers, readable=readable)


def request_text(method: bytes, path: bytes, headers: Headers, body: bytes, rng: Random) -> bytes:
    """Returns a whole request; its length is announced, or it comes in chunks."""
    lines = [method + b" " + path + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    if not any(name == b"host" for name, _ in headers):
        lines.append(b"host: localhost")
    if rng.random() < 0.9:
        return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])
    return b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", _chunked(body, rng)])


def broken_text(path: bytes, body: bytes, rng: Random) -> bytes:
    """Returns what is no sound HTTP request, or one that is shorter or longer than it says."""
    line = b"POST " + path + b" HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    match rng.randrange(6):
        case 0:
            length = rng.randrange(len(body) + 1) if rng.random() < 0.95 else len(body) + 1  # the last one waits
            return line + b"content-length: %d\r\n\r\n" % length + body
        case 1:
            return (
                line
                + b"transfer-encoding: chunked\r\n\r\n"
                + rng.choice([b"zz\r\n", b"-1\r\n", b"5\r\nab\r\n0\r\n\r\n"])
            )
        case 2:
            return rng.choice(
                [b"\r\n\r\n\x00", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", line.replace(b"1.1", b"9.9") + b"\r\n"]
            )
        case _:
            return line + rng.choice(_BROKEN) + b"\r\n\r\n" + body


def _chunked(body: bytes, rng: Random) -> bytes:
    text = b""
    while body:
        size = rng.choice((1, 7, 64, 4096, 65_536))
        part, body = body[:size], body[size:]
        text += b"%x\r\n" % len(part) + part + b"\r\n"
    return text + b"0\r\n\r\n"
