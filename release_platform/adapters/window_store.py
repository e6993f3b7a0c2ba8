"""The windows of live traffic in the release store: what each replica counted in each minute, and what it owes."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.coverage import Holes, Owed, holes_in
from release_platform.domain.windows import Window

KEPT_DAYS = 35
"""Windows older than this are dropped: longer than any stage of a rollout may last."""

_windows = table("live_windows", "model minute version route replica", "", "value")
_minutes = table("live_minutes", "model minute url replica", "told")


class WindowStore:
    """The windows of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, replica: str, windows: Iterable[Window]) -> int:
        """Keeps what a replica counted, and returns how many windows are new: what is kept never changes."""
        rows = [{**_key(window), "replica": replica, "value": window.to_json()} for window in windows]
        if not rows:
            return 0
        insert, kept = self._insert(_windows), 0
        with self._transactions.begin() as connection:
            for row in rows:
                kept += connection.execute(insert.values(row).on_conflict_do_nothing()).rowcount
        return kept

    def record_owed(self, model: str, owed: Iterable[Owed]) -> None:
        """Keeps what is owed of a model's minutes; what was told once stays told."""
        rows = [{"model": model, **asdict(one)} for one in owed]
        if not rows:
            return
        insert = self._insert(_minutes)
        news = sa.and_(insert.excluded.told, sa.not_(_minutes.c.told))
        paid = insert.on_conflict_do_update(index_elements=[*_minutes.primary_key], set_={"told": True}, where=news)
        with self._transactions.begin() as connection:
            connection.execute(paid, rows)

    def holes(self, model: str, first: int, last: int) -> Holes:
        """Returns the minutes of a model of which not all was handed in, from one to another, both included."""
        query = sa.select(_minutes).where(
            _minutes.c.model == model, _minutes.c.minute >= first, _minutes.c.minute <= last
        )
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        owed = (Owed(minute=r["minute"], url=r["url"], replica=r["replica"], told=bool(r["told"])) for r in rows)
        return holes_in(range(first, last + 1), owed)

    def keys(self, model: str, first: int, last: int) -> frozenset[tuple[str, str, int, str]]:
        """Returns of what there are windows, from one minute to another, both included.

        Each is named by version, route, minute and replica.
        """
        named = _windows.c.version, _windows.c.route, _windows.c.minute, _windows.c.replica
        query = sa.select(*named).where(
            _windows.c.model == model, _windows.c.minute >= first, _windows.c.minute <= last
        )
        with self._transactions.read() as connection:
            return frozenset((r.version, r.route, r.minute, r.replica) for r in connection.execute(query))

    def of_replicas(self, model: str, first: int, last: int) -> dict[tuple[str, str, int, str], Window]:
        """Returns the window of each replica, from one minute to another, both included, by the names of `keys`."""
        query = _windows.select().where(
            _windows.c.model == model, _windows.c.minute >= first, _windows.c.minute <= last
        )
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        return {(r["version"], r["route"], r["minute"], r["replica"]): _window_from(model, r) for r in rows}

    def oldest(self, model: str) -> int | None:
        """Returns the first minute of which there is a window of a model; None for none."""
        query = sa.select(sa.func.min(_windows.c.minute)).where(_windows.c.model == model)
        with self._transactions.read() as connection:
            found: int | None = connection.scalar(query)
        return found

    def drop_before(self, minute: int) -> int:
        """Drops the windows of every model that are of an earlier minute, and returns how many there were."""
        with self._transactions.begin() as connection:
            connection.execute(_minutes.delete().where(_minutes.c.minute < minute))
            return int(connection.execute(_windows.delete().where(_windows.c.minute < minute)).rowcount)

    def _insert(self, into: sa.Table) -> Any:
        is_sqlite = self._transactions.engine.dialect.name == "sqlite"
        return sqlite.insert(into) if is_sqlite else postgresql.insert(into)


def _key(window: Window) -> dict[str, Any]:
    key = window.key
    return {"model": key.model, "minute": key.minute, "version": key.version, "route": key.route.value}


def _window_from(model: str, row: Mapping[Any, Any]) -> Window:
    with readable(f"a window of {model} of minute {row['minute']}"):
        return Window.from_json(row["value"])
