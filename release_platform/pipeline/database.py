"""Reads the answer of a query against a SQLAlchemy URL. No message ever holds the URL's password."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from release_platform.domain.data_spec import SqlSource, label_text
from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.files import require_columns

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_BATCH_ROWS = 50_000


def read_sql(source: SqlSource, columns: Mapping[str, ColumnType]) -> pa.Table:
    """Returns the named columns of the query's answer.

    Raises:
        SourceError: The URL is wrong, its driver is missing, the database does not answer, the query fails, or a
            column is missing.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    url = _url(source.url)
    name = shown(url)
    try:
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        raise _driver_missing(name, url, str(error.name)) from None
    except (SQLAlchemyError, ValueError, TypeError) as error:
        raise SourceError(_told(error, url), remedy="correct `source.sql.url`", source=name) from None
    try:
        with engine.connect() as connection:
            return _ask(connection, source.query, columns, name)
    except SQLAlchemyError as error:
        raise _failed(error, url, name) from None
    finally:
        engine.dispose()


def shown(url: "URL") -> str:
    """Returns a URL as messages may show it: the password is hidden, and so is everything after the `?`."""
    return url.set(query={}).render_as_string(hide_password=True)


def _url(written: str) -> "URL":
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    name = "source.sql.url"
    if written.startswith("env:"):
        name = written.removeprefix("env:")
        if name not in os.environ:
            raise SourceError(
                "the environment variable is not set", remedy=f"export {name}=<SQLAlchemy URL>", source=name
            )
        written = os.environ[name]
    try:
        return make_url(written)
    except (ArgumentError, ValueError):
        raise SourceError(
            "is no SQLAlchemy URL", remedy="write e.g. postgresql+psycopg2://user:password@host/database", source=name
        ) from None


def _ask(connection: "Connection", query: str, columns: Mapping[str, ColumnType], name: str) -> pa.Table:
    from sqlalchemy import text

    answer = connection.execution_options(stream_results=True).execute(text(query))
    if not answer.returns_rows:
        raise SourceError("the query returns no rows", remedy="write a SELECT in `source.sql.query`", source=name)
    keys = list(answer.keys())
    require_columns(name, columns, keys)
    places = [keys.index(column) for column in columns]
    batches = [list(zip(*rows, strict=True)) for rows in _batches(answer.partitions(_BATCH_ROWS))]
    return pa.table({c: _joined([batch[i] for batch in batches]) for c, i in zip(columns, places, strict=True)})


def _batches(partitions: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield from (rows for rows in partitions if rows)


def _joined(batches: Sequence[Sequence[object]]) -> pa.ChunkedArray:
    """Returns one column of all batches; as text where rows disagree about the type (SQLite lets them)."""
    try:
        arrays = [pa.array(batch) for batch in batches]
        kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
        kind = (
            kinds.pop()
            if len(kinds) == 1
            else pa.unify_schemas([pa.schema([("c", k)]) for k in kinds], promote_options="permissive").field(0).type
            if kinds
            else pa.null()
        )
        return pa.chunked_array([array.cast(kind) for array in arrays], type=kind)
    except (pa.ArrowException, TypeError, OverflowError):
        texts = [[None if value is None else label_text(value) for value in batch] for batch in batches]
        return pa.chunked_array([pa.array(batch, type=pa.large_string()) for batch in texts])


def _driver_missing(name: str, url: "URL", module: str) -> SourceError:
    remedy = f"install the package that provides '{module}'"
    if url.drivername == "postgresql":
        remedy = "write postgresql+psycopg2:// in the URL: that driver is installed"
    return SourceError(f"the database driver '{module}' is not installed", remedy=remedy, source=name)


def _failed(error: Exception, url: "URL", name: str) -> SourceError:
    from sqlalchemy.exc import DBAPIError, OperationalError

    asked = isinstance(error, DBAPIError) and error.statement is not None
    if asked:
        remedy = "correct `source.sql.query`"
    elif isinstance(error, OperationalError):
        remedy = "start the database, or correct host, port, user and password in `source.sql.url`"
    else:
        remedy = "correct `source.sql`"
    return SourceError(_told(error, url), remedy=remedy, source=name)


def _told(error: Exception, url: "URL") -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    first = " ".join(text.split())
    for secret in (url.password, *(v for v in url.query.values() if isinstance(v, str))):
        if secret:
            first = first.replace(str(secret), "***")
    return re.sub(r"://([^:@/\s]+):[^@/\s]+@", r"://\1:***@", first)
