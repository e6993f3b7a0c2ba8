"""Finds the key that a request is routed by where its rows carry it: as a column, or tensor, `route_key` of text.

All rows of a request are answered by one version, so all of them carry the same key. The column decides which version
answers, never what it answers: it does not reach the model, unless the model itself takes an input of that name.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson

from serving.errors import InvalidInput, RequestProblem
from serving.forms import kind
from serving.routing import KEY_MEMBER


def shared_key(values: Sequence[Any]) -> str | None:
    """Returns the key that all rows of a request carry; None where it is missing or empty in all of them.

    Raises:
        InvalidInput: It is no text, or not the same in all rows.
    """
    if not len(values):
        return None
    first = values[0]
    if first is not None and not isinstance(first, str):
        raise InvalidInput(f"row 0, '{KEY_MEMBER}': is {kind(first)}, not text", field=KEY_MEMBER, row=0)
    for row, value in enumerate(values):
        if value != first:
            detail = f"row {row}, '{KEY_MEMBER}': is another key than that of row 0; send the rows of each key"
            raise InvalidInput(f"{detail} in a request of its own", field=KEY_MEMBER, row=row)
    return first or None


def found_key(find: Callable[[], str | None]) -> bytes | None:
    """Returns the key that is found in a body as the bytes that have a place; None where it cannot be read.

    What is wrong with the body is told by whoever reads it for the version that answers.
    """
    with suppress(RequestProblem, orjson.JSONDecodeError, UnicodeEncodeError):
        key = find()
        return key.encode() if key else None
    return None
