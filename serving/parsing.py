"""Reads JSON once and strictly: what RFC 8259 leaves open is refused here.

orjson refuses bad UTF-8, lone surrogates, NaN, infinities, numbers beyond double precision and deep nesting, but takes
duplicate keys silently. Each member has one colon, so if a body has no more colons than members were read, no key
stands twice; counting them costs next to nothing. Where there are more (times have some) the standard library decides.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from serving.errors import DuplicateKey, MalformedBody

_T = TypeVar("_T")
_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_LONGEST_NUMBER = 400  # digits; a longer one is beyond double precision, and int() refuses one of thousands


def parse(body: bytes, n_members: Callable[[Any], int] | None = None) -> Any:
    """Returns the JSON value of a body.

    Args:
        body: The text.
        n_members: Counts the members of a value of the shape that is expected; it must never count one that is not
            there. None for the shape of our own protocol.

    Raises:
        MalformedBody: It is not valid JSON in UTF-8, or nested too deep.
        DuplicateKey: A key stands twice in one object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not valid JSON: {error}") from None
    if body.count(b":") != (n_members or _n_shallow_members)(value):
        _refuse_duplicates(body)
    return value


def parse_leniently(body: bytes) -> Any:
    """Returns the JSON value of a body that `parse` refused, with NaN, infinities and lone surrogates left in.

    It only serves to name the field and row at fault; no prediction is ever made from it.

    Raises:
        ValueError: It cannot be read that way either.
    """
    try:
        return json.loads(body.decode(), parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_with_nan(body: bytes, read: Callable[[Any], _T]) -> _T:
    """Returns what is read from the JSON value of a body in which NaN stands for null, as Python's `json` writes it.

    Args:
        body: The text.
        read: Reads the value. Infinities and lone surrogates may be in it, so that their field and row are named. Where
            it does not look, infinities do no harm, as to MLflow, and lone surrogates are refused here.

    Raises:
        MalformedBody: It is not valid JSON in UTF-8 but for NaN and infinities, or nested too deep.
        DuplicateKey: A key stands twice in one object.
        RequestProblem: What `read` raises.
    """
    try:
        strict = parse(body)
    except MalformedBody as malformed:
        try:
            value = json.loads(body.decode(), parse_constant=_CONSTANTS.__getitem__, parse_int=_whole)
        except (ValueError, RecursionError):
            value = None
        if value is None:
            raise
        _refuse_duplicates(body)
        found = read(value)
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise malformed from None
        return found
    return read(strict)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else math.inf


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


class _Repeating(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


def _refuse_duplicates(body: bytes) -> None:
    repeating: list[_Repeating] = []

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        marked = _Repeating(made)
        marked.key = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        repeating.append(marked)
        return marked

    try:
        value = json.loads(body, object_pairs_hook=make, parse_int=_whole)
    except RecursionError:
        raise MalformedBody("the body is nested too deep") from None
    if repeating:
        raise _duplicate(value, repeating[0])


def _duplicate(value: Any, marked: _Repeating) -> DuplicateKey:
    rows = value.get("rows") if isinstance(value, dict) else None
    row = next((i for i, item in enumerate(rows if isinstance(rows, list) else ()) if item is marked), None)
    where = "in one object" if row is None else f"in row {row}"
    return DuplicateKey(f"the key '{marked.key:.100}' stands twice {where}; send each once", field=marked.key, row=row)
