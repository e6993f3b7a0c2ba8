"""Reads JSON values strictly: exactly the fields that were written, each of its very type."""

from types import NoneType
from typing import Any


def exactly(value: object, what: str, **fields: type | tuple[type, ...]) -> dict[str, Any]:
    """Returns a JSON object that has exactly these fields; without fields, any object.

    Args:
        value: What was read.
        what: What it should be, for the message.
        **fields: The type of each field, or several; `True` is no whole number here.

    Raises:
        ValueError: It is no object, lacks a field, has another one, or one is of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a {what} is a JSON object, not {_named(value)}")
    if not fields:
        return value
    if value.keys() != fields.keys():
        wrong = ", ".join(sorted(str(name) for name in value.keys() ^ fields.keys()))
        raise ValueError(f"a {what} lacks these fields or does not know them: {wrong}")
    for name, kinds in fields.items():
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if type(value[name]) not in allowed:
            raise ValueError(f"'{name}' of a {what} is {_named(value[name])}")
    return value


def _named(value: object) -> str:
    return "null" if isinstance(value, NoneType) else f"a {type(value).__name__}"
