"""JSON as RFC 8259 and this server want it, by the standard library: each key once, real text, finite numbers."""

import json
import math
from typing import Any


class Refused(ValueError):
    """A strict reader does not take it."""


def read(body: bytes, *, as_mlflow: bool = False) -> Any:
    """Returns the value of a JSON text in UTF-8.

    Args:
        body: The text.
        as_mlflow: Whether the token NaN, which is no JSON, stands for null, and infinities may be where nobody looks.

    Raises:
        Refused: It is not one, a key stands twice, a text is no text, or a number is beyond double precision.
    """

    def constant(token: str) -> float | None:
        if not as_mlflow:
            raise Refused(token)
        return None if token == "NaN" else float(token)

    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=constant, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    _check(value, finite=not as_mlflow)
    return value


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 4000 else float(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Refused("a key stands twice")
    return made


def _check(value: Any, *, finite: bool) -> None:
    match value:
        case dict():
            for key, inner in value.items():
                _check(key, finite=finite)
                _check(inner, finite=finite)
        case list():
            for inner in value:
                _check(inner, finite=finite)
        case str():
            if any(0xD800 <= ord(char) < 0xE000 for char in value):
                raise Refused("a lone surrogate")
        case float():
            if finite and not math.isfinite(value):
                raise Refused("a number is not finite")
