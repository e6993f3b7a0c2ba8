"""Reads JSON once and strictly: what RFC 8259 leaves open is refused here.

orjson refuses bad UTF-8, lone surrogates, NaN, infinities, numbers beyond double precision and deep nesting, but takes
duplicate keys silently. Those are found by counting: the members in the text must be as many as the members that were
read. For most bodies counting the colons is enough, which costs next to nothing.
"""

import json
import re
from typing import Any

import orjson

from serving.errors import DuplicateKey, MalformedBody

# Each string of a JSON text, and whether a colon follows it, which makes it a key.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?', re.DOTALL)


def parse(body: bytes) -> Any:
    """Returns the JSON value of a body.

    Raises:
        MalformedBody: It is not valid JSON in UTF-8, or nested too deep.
        DuplicateKey: A key stands twice in one object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not valid JSON: {error}") from None
    if body.count(b":") != _n_shallow_members(value) and _n_members_in_text(body) != _n_members(value):
        raise _duplicate(body)
    return value


def parse_leniently(body: bytes) -> Any:
    """Returns the JSON value of a body that `parse` refused, with NaN, infinities and lone surrogates left in.

    It only serves to name the field and row at fault; no prediction is ever made from it.

    Raises:
        ValueError: It cannot be read that way either.
    """
    try:
        return json.loads(body.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def _n_shallow_members(value: Any) -> int:
    """Counts the members of the outer object and of the objects that its own members are or list."""
    if not isinstance(value, dict):
        return 0
    n = len(value)
    for inner in value.values():
        if isinstance(inner, dict):
            n += len(inner)
        elif isinstance(inner, list):
            n += sum(len(row) for row in inner if isinstance(row, dict))
    return n


def _n_members_in_text(body: bytes) -> int:
    return sum(1 for colon in _STRING.findall(body) if colon)


def _n_members(value: Any) -> int:
    n, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            n += len(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return n


class _Repeating(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


def _remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked = _Repeating(made)
    seen: set[str] = set()
    marked.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return marked


def _duplicate(body: bytes) -> DuplicateKey:
    """Returns the error for a body of which it is known that a key stands twice somewhere."""
    row, key = _find_repeating(json.loads(body, object_pairs_hook=_remember))
    where = "in one object" if row is None else f"in row {row}"
    return DuplicateKey(f"the key '{key:.100}' stands twice {where}; send each key once", field=key, row=row)


def _find_repeating(value: Any) -> tuple[int | None, str]:
    if isinstance(value, _Repeating):
        return None, value.key
    rows = value.get("rows") if isinstance(value, dict) else None
    for row, item in enumerate(rows if isinstance(rows, list) else ()):
        if isinstance(item, _Repeating):
            return row, item.key
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, _Repeating):
            return None, item.key
        left.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    return None, ""
