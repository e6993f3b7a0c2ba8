"""Transactions of the release store, and what it means when the database does not answer."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from release_platform.adapters.store_database import READS_ONLY
from release_platform.domain.errors import Unavailable


class OutcomeUnknown(Unavailable):
    """The database did not answer to a commit: it may have changed something."""


class Transactions:
    """The transactions of one engine. Each raises `Unavailable` when the database does not answer or cannot write."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def begin(self) -> AbstractContextManager[sa.Connection]:
        """Returns a transaction that may write."""
        return self._transaction(self.engine)

    def read(self) -> AbstractContextManager[sa.Connection]:
        """Returns a transaction that reads only; it never waits for one that writes."""
        return self._transaction(self.engine.execution_options(**READS_ONLY))

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        commits = False
        try:
            with engine.begin() as connection:
                yield connection
                commits = engine is self.engine and engine.dialect.name != "sqlite"  # which answers at once
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            address = self.engine.url.render_as_string(hide_password=True)
            problem = f"the release store {address} does not answer: {error.orig}"
            check = "check that the database runs and has room, and RELEASE_STORE_URL"
            if commits:
                raise OutcomeUnknown(problem, remedy=f"{check}; do it again: nothing is done twice") from error
            raise Unavailable(problem, remedy=f"{check}; nothing was changed") from error
