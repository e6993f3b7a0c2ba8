"""How the release store's tables are declared, and how what was changed in the database itself is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from release_platform.domain.errors import IntegrityError

_metadata = sa.MetaData()


def table(name: str, keys: str, columns: str, json: str = "") -> sa.Table:
    """Returns a table of the release store; names are separated by blanks, and types are the migrations' matter."""
    return sa.Table(
        name,
        _metadata,
        *(sa.Column(column, primary_key=True) for column in keys.split()),
        *(sa.Column(column) for column in columns.split()),
        *(sa.Column(column, sa.JSON) for column in json.split()),
    )


def columns_of(of: sa.Table) -> list[str]:
    """Returns the names of a table's columns."""
    return [column.name for column in of.columns]


def read_json(text: str) -> Any:
    """Returns a JSON value; text that is none as it is, for whoever reads the row to name the row."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Names what was changed in the database itself, so that it cannot be read any more.

    Raises:
        IntegrityError: It cannot be read.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise damaged(f"{what} cannot be read") from None


def damaged(problem: str) -> IntegrityError:
    """Returns the error that says that somebody changed the database itself."""
    return IntegrityError(
        f"release store: {problem}",
        remedy="somebody changed the database, or a newer platform wrote to it: restore a backup, or use the newer one",
    )
