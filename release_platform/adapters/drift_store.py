"""What drift reports said, in the release store: a row for each day of a version.

A report that is made again replaces what it said of its days; that a message went out, and that a person lifted an
alarm, stay. The message of an alarm is written by the very transaction that keeps its day.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.outbox_store import post_drift
from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.drift_day import DriftDay, Lift
from release_platform.domain.drift_spec import OnAlarm

_days = table("drift_days", "model version day", "told", "value lift")


class DriftStore:
    """The days of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, day: DriftDay) -> DriftDay:
        """Keeps what a report said of a day, with the message of an alarm, once; returns what is kept."""
        try:
            return self._record(day)
        except DuplicateRow:  # another report of the same day was first
            return self._record(day)

    def find_last(self, model: str, version: str | None) -> DriftDay | None:
        """Returns the last day of a version that was reported; None where there is none, and for no version."""
        query = _days.select().where(_days.c.model == model, _days.c.version == version).order_by(_days.c.day.desc())
        with self._transactions.read() as connection:
            row = connection.execute(query.limit(1)).mappings().first()
        return None if row is None else _day_from(row)

    def days(self, model: str, version: str) -> tuple[DriftDay, ...]:
        """Returns all days of a version that were reported, in their order."""
        query = _days.select().where(_days.c.model == model, _days.c.version == version).order_by(_days.c.day)
        with self._transactions.read() as connection:
            return tuple(_day_from(row) for row in connection.execute(query).mappings())

    def days_before(self, model: str, day: date, *, most: int) -> tuple[DriftDay, ...]:
        """Returns the last so many days of a model that were reported and lie before a day, in their order."""
        query = _days.select().where(_days.c.model == model, _days.c.day < day.isoformat())
        query = query.order_by(_days.c.day.desc(), _days.c.version.desc()).limit(most)
        with self._transactions.read() as connection:
            found = [_day_from(row) for row in connection.execute(query).mappings()]
        return tuple(reversed(found))

    def lift(self, day: DriftDay, lift: Lift) -> DriftDay:
        """Keeps who lifted an alarm, and returns its day; who was first stays."""
        with self._transactions.begin() as connection:
            row = _find(connection, day)
            kept = day if row is None else _day_from(row)
            if row is not None and kept.lift is None:
                connection.execute(_days.update().where(*_of(day)).values(lift=asdict(lift)))
                kept = replace(kept, lift=lift)
            return kept

    def _record(self, day: DriftDay) -> DriftDay:
        with self._transactions.begin() as connection:
            row = _find(connection, day)
            told_before = row is not None and bool(row["told"])
            tells = day.alarmed and OnAlarm.NOTIFY in day.on_alarm and not told_before
            values = {"value": day.to_json(), "told": int(told_before or tells)}
            if row is None:
                key = {"model": day.model, "version": day.version, "day": day.day.isoformat()}
                connection.execute(_days.insert().values(lift={}, **key, **values))
            else:
                connection.execute(_days.update().where(*_of(day)).values(**values))
            if tells:
                post_drift(connection, day)
            return day if row is None else replace(day, lift=_day_from(row).lift)


def _of(day: DriftDay) -> tuple[sa.ColumnElement[bool], ...]:
    return (_days.c.model == day.model, _days.c.version == day.version, _days.c.day == day.day.isoformat())


def _find(connection: sa.Connection, day: DriftDay) -> Mapping[Any, Any] | None:
    return connection.execute(_days.select().where(*_of(day)).with_for_update()).mappings().first()


def _day_from(row: Mapping[Any, Any]) -> DriftDay:
    with readable(f"the drift of {row['model']} version {row['version']} on {row['day']}"):
        found = DriftDay.from_json(row["value"], Lift(**row["lift"]) if row["lift"] else None)
        if (found.model, found.version, found.day.isoformat()) != (row["model"], row["version"], row["day"]):
            raise ValueError("it is of something else")
        return found
