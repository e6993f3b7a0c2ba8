"""Copies of databases in use, for backups: each of one moment, made with the database's own means."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from release_platform.domain.errors import Refused, Unavailable

_TABLES = sa.text("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
_OWNER = sa.text("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
_FILE = "database"


def copy_sqlite(source: Path, target: Path) -> None:
    """Makes a SQLite database the same as another one; both may be in use.

    Raises:
        Unavailable: One cannot be read or written, or there is no room.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as found,
            closing(sqlite3.connect(target, timeout=30)) as made,
        ):
            found.backup(made)
    except sqlite3.Error as error:
        raise Unavailable(
            f"{source} cannot be copied to {target}: {error}", remedy="check that both can be opened, and the room left"
        ) from error


class SqliteCopy:
    """A SQLite database that is to be kept; a file that is not there is an empty one."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._path = path

    def is_empty(self) -> bool:
        """Returns whether there is nothing in it."""
        if not self._path.exists():
            return True
        with closing(sqlite3.connect(self._path)) as connection:
            return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]

    def save(self, folder: Path) -> None:
        """Puts a copy into a folder."""
        if self._path.exists():
            copy_sqlite(self._path, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Takes what a folder has in the place of what is there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if (folder / _FILE).exists():
            copy_sqlite(folder / _FILE, self._path)
        else:
            self._path.unlink(missing_ok=True)


class PostgresCopy:
    """A PostgreSQL database that is to be kept, by `pg_dump` and `pg_restore`; roles and rights are not in it.

    Args:
        url: Its address, as a role that owns it, or as an administrator.
    """

    kind = "postgresql"

    def __init__(self, url: sa.URL) -> None:
        self.address = url.render_as_string(hide_password=True)
        self._url = url

    def is_empty(self) -> bool:
        """Returns whether it has no table.

        Raises:
            Unavailable: It does not answer.
        """
        return not self._scalar(_TABLES)

    def save(self, folder: Path) -> None:
        """Puts a dump into a folder.

        Raises:
            Refused: There is no `pg_dump` here, or it may not, or it is of an older version than the server.
        """
        self._run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(folder / _FILE))

    def load(self, folder: Path) -> None:
        """Takes what a folder has in the place of what is there; every table belongs to the database's owner.

        Raises:
            Refused: There is no `pg_restore` here, or it may not; then the database is empty.
        """
        engine = sa.create_engine(self._url)
        with engine.begin() as connection:
            owner = str(connection.scalar(_OWNER))
            connection.execute(sa.text("DROP SCHEMA IF EXISTS public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public AUTHORIZATION pg_database_owner"))
            connection.execute(sa.text("GRANT USAGE ON SCHEMA public TO PUBLIC"))  # as in every new database
        engine.dispose()
        how = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", f"--role={owner}")
        self._run("pg_restore", *how, "--dbname", self._plain, str(folder / _FILE))

    @property
    def _plain(self) -> str:
        """The address as libpq reads it, without the password, which other users of the machine could see."""
        url = self._url.set(drivername="postgresql")
        return sa.URL.create(**{**url._asdict(), "password": None}).render_as_string()

    def _scalar(self, query: sa.TextClause) -> object:
        engine = sa.create_engine(self._url)
        try:
            with engine.connect() as connection:
                return connection.scalar(query)
        except sa.exc.OperationalError as error:
            raise Unavailable(
                f"{self.address} does not answer: {str(error.orig).strip().splitlines()[0]}",
                remedy="check that the server runs, the address and the password",
            ) from None
        finally:
            engine.dispose()

    def _run(self, program: str, *arguments: str) -> None:
        found = shutil.which(program)
        if found is None:
            raise Refused(
                f"there is no {program} on this machine",
                remedy="install PostgreSQL's client programs, of the server's version or newer",
            )
        given = arguments if program == "pg_restore" else (*arguments, self._plain)
        password = {"PGPASSWORD": self._url.password} if self._url.password else {}
        done = subprocess.run([found, *given], env=os.environ | password, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(
                f"{program} of {self.address} failed: {' '.join(done.stderr.split())[:500]}",
                remedy="check the room left, that the role owns the database, and that the client programs are of the "
                "server's version or newer; then do it again",
            )
