"""The release store's database: its address, its engine, its schema, and a role that may only append to the ledger."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, ProgrammingError

from release_platform.adapters.deadlines import CONNECT, PATIENCE_S, bound_connections
from release_platform.domain.errors import Refused, SpecError, Unavailable

SCHEMA = "0013"

SQLITE_WAITS_S = 30
"""Seconds that a transaction waits for another process that writes."""

READS_ONLY = {"reads_only": True}
"""The execution option of a transaction that does not write."""

_RIGHTS = {
    "ledger": "SELECT, INSERT",
    "removals": "SELECT, INSERT",
    "approvals": "SELECT, INSERT",
    "policies": "SELECT, INSERT",
    "tracked_runs": "SELECT, INSERT",
    "registrations": "SELECT, INSERT, UPDATE (tags)",
    "requests": "SELECT, INSERT, UPDATE (state, outcome)",
    "heads": "SELECT, INSERT, UPDATE (epoch, state, projected_epoch)",
    "rollouts": "SELECT, INSERT, UPDATE (state, settled, revision, value)",
    "live_windows": "SELECT, INSERT, DELETE",
    "live_minutes": "SELECT, INSERT, DELETE, UPDATE (told)",
    "drills": "SELECT, INSERT",
    "assessments": "SELECT, INSERT",
    "replays": "SELECT, INSERT",
    "outbox": "SELECT, INSERT, DELETE, UPDATE (state, deliveries)",
    "projections": "SELECT, INSERT, DELETE",
    "verifications": "SELECT, INSERT, DELETE",
    "drift_days": "SELECT, INSERT, UPDATE (value, told, lift)",
    "alembic_version": "SELECT",
}
"""What the platform needs of each table, and no more."""


def store_url(text: str) -> sa.URL:
    """Returns the address of a release store.

    Raises:
        SpecError: It is none.
    """
    try:
        url = sa.make_url(text)
        if url.drivername == "postgresql":  # SQLAlchemy's own default driver is another one than is installed
            url = url.set(drivername="postgresql+psycopg2")
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise SpecError(
            f"'{text.split('@')[-1]}' is no address of a release store ({type(error).__name__})",
            remedy="write it like sqlite:////folder/release.db or postgresql://user:password@host/database",
            field="RELEASE_STORE_URL",
        ) from None
    return url


def open_engine(url: sa.URL, *, read_json: Callable[[str], Any], patience_s: float | None = PATIENCE_S) -> sa.Engine:
    """Returns the engine of an address.

    SQLite waits for its lock, writes through, and takes the lock when a transaction begins that may write.

    Args:
        url: The address.
        read_json: Reads a JSON column of SQLite, which keeps it as text.
        patience_s: Seconds after which a transaction of PostgreSQL is given up; None: never.
    """
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, connect_args=CONNECT)
        if patience_s is not None:
            bound_connections(engine, patience_s=patience_s)
        return engine
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": SQLITE_WAITS_S}, json_deserializer=read_json)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads_only = READS_ONLY.items() <= connection.get_execution_options().items()
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def migrate(connection: sa.Connection) -> None:
    """Brings the schema up to date, inside the connection's transaction.

    Raises:
        Refused: It is not, and this role may not change it; or a newer version of the platform made it.
    """
    if is_current(connection):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305001)"))
    from alembic.util import CommandError

    try:
        upgrade(connection, SCHEMA)
    except CommandError as error:
        raise Refused(
            f"the release store has a schema that this version does not know ({error})",
            remedy="a newer version of the platform made it: upgrade this one",
        ) from None
    except ProgrammingError as error:
        raise Refused(
            f"the schema of the release store must be brought to {SCHEMA}, and this role may not: {_first(error)}",
            remedy="run `release store upgrade` with the RELEASE_STORE_URL of the role that owns the tables",
        ) from None


def is_current(connection: sa.Connection) -> bool:
    """Returns whether the schema is this version's."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    return bool(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == SCHEMA)


def grant(connection: sa.Connection, role: str) -> None:
    """Gives a role of PostgreSQL the rights that the platform needs, and takes all others.

    Raises:
        Refused: There is no such role, the database has no roles, or this one does not own the tables.
    """
    if connection.dialect.name != "postgresql":
        raise Refused("SQLite has no roles", remedy="keep the release store in PostgreSQL: RELEASE_STORE_URL")
    known = connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role})
    if not known:
        raise Refused(f"there is no role {role}", remedy=f"make it first: CREATE ROLE {role} LOGIN PASSWORD '...'")
    named = connection.dialect.identifier_preparer.quote(role)
    try:
        for table, rights in _RIGHTS.items():
            connection.execute(sa.text(f"REVOKE ALL ON {table} FROM {named}"))
            connection.execute(sa.text(f"GRANT {rights} ON {table} TO {named}"))
    except ProgrammingError as error:
        raise Refused(
            f"the rights of {role} cannot be set: {_first(error)}",
            remedy="use the RELEASE_STORE_URL of the role that owns the tables",
        ) from None


@contextmanager
def held(url: sa.URL) -> Iterator[dict[str, tuple[int, str]]]:
    """Keeps everybody else from writing to a release store until the block ends; yields where its ledger ends.

    That is the epoch and the hash of the last row of each model.

    Raises:
        Refused: This role may not lock the tables.
        Unavailable: The database does not answer.
    """
    engine = open_engine(url, read_json=str, patience_s=None)  # a copy takes as long as it takes
    try:
        with engine.begin() as connection:
            tables = sorted({*sa.inspect(connection).get_table_names()} & {*_RIGHTS})
            if tables and connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"LOCK TABLE {', '.join(tables)} IN SHARE MODE"))
            yield ledger_ends(connection)
    except ProgrammingError as error:
        raise Refused(
            f"the release store cannot be held still: {_first(error)}",
            remedy="use the address of the role that owns the tables, or of an administrator",
        ) from None
    except OperationalError as error:
        raise Unavailable(
            f"the release store {url.render_as_string(hide_password=True)} does not answer: {error.orig}",
            remedy="check that the database runs, and the address and password",
        ) from None
    finally:
        engine.dispose()


def ledger_ends(connection: sa.Connection) -> dict[str, tuple[int, str]]:
    """Returns the epoch and the hash of the last row of each model's ledger; empty where there is no ledger."""
    if not sa.inspect(connection).has_table("ledger"):
        return {}
    rows = connection.execute(sa.text("SELECT model, epoch, hash FROM ledger ORDER BY epoch"))
    return {row.model: (row.epoch, row.hash) for row in rows}


def _first(error: ProgrammingError) -> str:
    return str(error.orig).splitlines()[0]


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Brings the schema of a database up to a revision, inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
