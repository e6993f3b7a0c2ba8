"""Reads JSON that may be hostile: bounded, each key once, finite numbers, or a ValueError."""

import json
from typing import Any

MAXIMUM_BYTES = 16 * 1024**2


def read_json(data: bytes | str, *, maximum: int = MAXIMUM_BYTES) -> Any:
    """Returns a JSON value.

    Args:
        data: The text.
        maximum: Most bytes (characters, of a `str`) that are read at all.

    Raises:
        ValueError: It is no JSON, too long, too deep, names a key twice, or holds NaN or an infinity.
    """
    if len(data) > maximum:
        raise ValueError(f"{len(data):,} bytes of JSON, more than {maximum:,}")
    try:
        return json.loads(data, object_pairs_hook=_each_key_once, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON that names a key twice")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"JSON that holds {name}")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"JSON that holds {text:.20}")
    return value
