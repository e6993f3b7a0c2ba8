"""Databases and roles of a PostgreSQL server: every service has a database of its own, which no other role can open."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from release_platform.domain.errors import Refused, Unavailable

_HARMLESS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A role that may log in, and nothing beside that."""

    role: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database: its owner makes the tables; the others may connect, and get their rights from the owner."""

    name: str
    owner: Login
    others: tuple[Login, ...] = ()


def make_databases(url: sa.URL, databases: Sequence[Database]) -> None:
    """Makes what is missing, sets every password, and takes from everybody else the right to connect.

    It may be run again at any time, on an empty server and on one in use: data is never touched.

    Args:
        url: The server, as a role that may make roles and databases; the database that it names is only connected to.
        databases: What there must be.

    Raises:
        Unavailable: The server does not answer, or not to this role.
        Refused: This role may not do it.
    """
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with _translated(url), engine.connect() as connection:
        for database in databases:
            for login in (database.owner, *database.others):
                _make_login(connection, login)
            _make_database(connection, database)
        for name in ("postgres", "template1"):
            connection.execute(sa.text(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
    engine.dispose()


def _make_login(connection: sa.Connection, login: Login) -> None:
    known = connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": login.role})
    statement = (
        f"{'ALTER' if known else 'CREATE'} ROLE {_quoted(connection, login.role)} {_HARMLESS} PASSWORD :password"
    )
    connection.execute(sa.text(statement), {"password": login.password})


def _make_database(connection: sa.Connection, database: Database) -> None:
    name, owner = _quoted(connection, database.name), _quoted(connection, database.owner.role)
    query = sa.text("SELECT count(*) FROM pg_database WHERE datname = :name")
    if connection.scalar(query, {"name": database.name}):
        connection.execute(sa.text(f"ALTER DATABASE {name} OWNER TO {owner}"))
    else:
        connection.execute(sa.text(f"CREATE DATABASE {name} OWNER {owner}"))
    connection.execute(sa.text(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
    for login in database.others:
        connection.execute(sa.text(f"GRANT CONNECT ON DATABASE {name} TO {_quoted(connection, login.role)}"))


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)


@contextmanager
def _translated(url: sa.URL) -> Iterator[None]:
    """The one place where the database's errors become the platform's; a password is in no message."""
    server = f"PostgreSQL ({url.host}, as {url.username})"
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(
            f"{server} does not answer: {_first(error)}", remedy="check address, user and password"
        ) from None
    except ProgrammingError as error:
        raise Refused(
            f"{server}: {_first(error)}", remedy="use a role that may make roles and databases, as `postgres` may"
        ) from None


def _first(error: OperationalError | InterfaceError | ProgrammingError) -> str:
    return str(error.orig).strip().splitlines()[0]
