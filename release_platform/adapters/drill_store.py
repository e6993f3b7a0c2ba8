"""What drills showed, in the release store: a row each, which never changes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.drill import Drilled

_drills = table("drills", "drill_id", "model at", "value")


class DrillStore:
    """The drills of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, drilled: Drilled) -> Drilled:
        """Keeps what a drill showed, and returns what is kept: of the same drill again, what was kept first."""
        values = {"drill_id": drilled.drill_id, "model": drilled.model, "at": drilled.at, "value": drilled.to_json()}
        with suppress(DuplicateRow), self._transactions.begin() as connection:
            connection.execute(_drills.insert().values(values))
        return self.find(drilled.drill_id) or drilled

    def find(self, drill_id: str) -> Drilled | None:
        """Returns what a drill showed, or None."""
        return self._first(_drills.select().where(_drills.c.drill_id == drill_id))

    def find_last(self, model: str) -> Drilled | None:
        """Returns what the last drill of a model showed, or None."""
        return self._first(_drills.select().where(_drills.c.model == model).order_by(_drills.c.at.desc()).limit(1))

    def _first(self, query: sa.Select[Any]) -> Drilled | None:
        with self._transactions.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _drilled_from(row)


def _drilled_from(row: Mapping[Any, Any]) -> Drilled:
    with readable(f"the drill {row['drill_id']} of {row['model']}"):
        drilled = Drilled.from_json(row["value"])
        if (drilled.drill_id, drilled.model, drilled.at) != (row["drill_id"], row["model"], row["at"]):
            raise ValueError("it is of something else")
        return drilled
