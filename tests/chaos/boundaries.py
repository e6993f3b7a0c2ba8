"""Every moment at which a process can die with another effect left behind, found by watching what it asks of others.

Nothing in the platform knows of this: its parts are wrapped when they are composed, and SQLAlchemy tells of each
statement and commit. A moment is named by what comes next (`before registry.set_alias(production, 3)`), or by where in
a transaction it is (`in store.commit_move(promoted), before INSERT INTO ledger`).
"""

import re
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

_WRITES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)", re.IGNORECASE)


class Boundaries:
    """Names the moments of one operation in the order in which they come, and acts at each.

    Args:
        act: Is told the number of the moment, from 0, and its name.

    Attributes:
        names: The moments so far.
        is_cut: Whether the database ended the connections at the last moment.
    """

    def __init__(self, act: Callable[[int, str], None]) -> None:
        self._act = act
        self._times: Counter[str] = Counter()
        self._calls: list[str] = []
        self._dialects: list[Any] = []
        self.names: list[str] = []
        self.is_cut = False

    def reach(self, name: str) -> None:
        """Comes to a moment."""
        self._times[name] += 1
        times = self._times[name]
        self.names.append(name if times == 1 else f"{name}, time {times}")
        self._act(len(self.names) - 1, self.names[-1])

    def watched(self, part: Any, called: str) -> Any:
        """Returns a part of the platform that tells before each call of one of its methods."""
        return _Watched(part, called, self)

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of a part."""
        if not self._calls:  # a part that calls itself is one call
            self.reach(f"before {name}")
        self._calls.append(name)
        try:
            return method(*args, **kwargs)
        finally:
            self._calls.pop()

    def watch_sql(self, store_url: str) -> None:
        """Tells before each writing statement, and before and after the commit of a transaction that wrote.

        Statements are told of the release store; of MLflow's own database, only the commits.
        """
        store = sa.make_url(store_url).database

        @sa.event.listens_for(sa.Engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.info["wrote"] = False
            whose = "" if connection.engine.url.database == store else "MLflow's "
            self._watch_commits(connection.dialect, f"{whose}COMMIT")

        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def statement(connection: sa.Connection, _: Any, text: str, *__: Any) -> None:
            found = _WRITES.match(text)
            if found and connection.engine.url.database == store:
                self.reach(f"{self._within}before {found[1].upper()} {found[2]}")
            connection.info["wrote"] = connection.info["wrote"] or found is not None

    def _watch_commits(self, dialect: Any, name: str) -> None:
        if dialect in self._dialects:
            return
        self._dialects.append(dialect)
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            if not connection.info["wrote"]:
                commit(connection)
                return
            self.reach(f"{self._within}before {name}")
            commit(connection)
            self.reach(f"{self._within}after {name}")
            if self.is_cut:  # it is committed, and its answer is lost with the connection
                connection.cursor().execute("SELECT 1")

        dialect.do_commit = do_commit

    @property
    def _within(self) -> str:
        return f"in {self._calls[0]}, " if self._calls else ""


class _Watched:
    def __init__(self, part: Any, called: str, boundaries: Boundaries) -> None:
        self._part, self._called, self._boundaries = part, called, boundaries

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            named = [value for value in kwargs.values() if isinstance(value, StrEnum)]
            said = ", ".join(filter(None, map(_said, (*args[1:], *named))))
            return self._boundaries.call(f"{self._called}.{name}({said})", found, *args, **kwargs)

        return call


def _said(value: object) -> str:
    return str(value) if isinstance(value, str) and re.fullmatch(r"[\w.]{1,40}", value) and not _is_id(value) else ""


def _is_id(value: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12,}", value) is not None
