"""Reads the body of a request, within its limits of size and time."""

import anyio
from starlette.requests import ClientDisconnect, Request

from serving.errors import BodyTimeout, BodyTooLarge, ClientGone, WrongMediaType


async def read_json_body(request: Request, *, max_bytes: int, within_s: float) -> bytes:
    """Returns the bytes of a JSON body.

    A body that says that it is too large is refused before a byte of it is read, any other as soon as it is.

    Raises:
        WrongMediaType: It is not `application/json` in UTF-8, or it is compressed.
        BodyTooLarge: It has more than `max_bytes`.
        BodyTimeout: It did not arrive within `within_s` seconds.
        ClientGone: The connection ended first.
    """
    _check_media_type(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    try:
        with anyio.fail_after(within_s):
            return await _read(request, max_bytes)
    except TimeoutError:
        raise BodyTimeout(f"the body did not arrive within {within_s:g} s") from None
    except ClientDisconnect:
        raise ClientGone("the connection ended before the body did") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks, n_bytes = [], 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {max_bytes:,} bytes; send the rows in parts")


def _check_media_type(request: Request) -> None:
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    if media.strip().lower() != "application/json":
        raise WrongMediaType(f"the content type is '{media.strip():.100}'; send application/json")
    charset = dict(_parameter(part) for part in parameters.split(";") if part.strip()).get("charset", "utf-8")
    if charset not in {"utf-8", "utf8"}:
        raise WrongMediaType(f"the charset is '{charset:.100}'; send UTF-8")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise WrongMediaType(f"the content encoding is '{encoding:.100}'; send the body as it is")


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"').lower()
