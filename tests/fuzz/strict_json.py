"""JSON as RFC 8259 and this server want it, by the standard library: each key once, real text, finite numbers."""

import json
import math
from typing import Any


class Refused(ValueError):
    """A strict reader does not take it."""


def read(body: bytes, *, nan_is_null: bool = False) -> Any:
    """Returns the value of a JSON text in UTF-8.

    Args:
        body: The text.
        nan_is_null: Whether the token NaN, which is no JSON, stands for null.

    Raises:
        Refused: It is not one, a key stands twice, a text is no text, or a number is beyond double precision.
    """

    def constant(token: str) -> None:
        if not (nan_is_null and token == "NaN"):
            raise Refused(token)

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    _check(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Refused("a key stands twice")
    return made


def _check(value: Any) -> None:
    match value:
        case dict():
            for key, inner in value.items():
                _check(key)
                _check(inner)
        case list():
            for inner in value:
                _check(inner)
        case str():
            if any(0xD800 <= ord(char) < 0xE000 for char in value):
                raise Refused("a lone surrogate")
        case float():
            if not math.isfinite(value):
                raise Refused("a number is not finite")
