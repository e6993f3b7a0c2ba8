"""Which projections began and did not end, in the release store.

Whoever points the registry's aliases says so before it reads the head. If it dies on the way, what it left is known to
be the platform's own, and not somebody's change by hand.
"""

import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from release_platform.adapters.store_tables import table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.ports import Clock

PATIENCE = timedelta(seconds=45)
"""How long a projection that does not end may still write; less than the minute in which a change must be found."""

_projections = table("projections", "projection_id", "model at")


class ProjectionStore:
    """The projections that are under way. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    def begin(self, model: str) -> str:
        """Records that a projection of a model begins; returns its id.

        It stands for those that began so long ago that they do not write any more: it puts right what they left.
        """
        now = self._clock.now()
        row = {"projection_id": uuid.uuid4().hex, "model": model, "at": _text(now)}
        old = sa.and_(_projections.c.model == model, _projections.c.at < _text(now - PATIENCE))
        with self._transactions.begin() as connection:
            connection.execute(_projections.delete().where(old))
            connection.execute(_projections.insert().values(row))
        return row["projection_id"]

    def end(self, projection_id: str) -> None:
        """Records that a projection ended."""
        with self._transactions.begin() as connection:
            connection.execute(_projections.delete().where(_projections.c.projection_id == projection_id))

    def under_way(self, model: str) -> bool:
        """Returns whether a projection of a model began and did not end."""
        with self._transactions.read() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(_projections.c.model == model))))


def _text(at: datetime) -> str:
    """Returns a time as text that is ordered as the times are."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
