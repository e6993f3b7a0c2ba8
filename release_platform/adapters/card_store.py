"""Up to which state the cards of versions were written, in the release store."""

import sqlalchemy as sa

from release_platform.adapters.store_tables import table
from release_platform.adapters.store_transactions import Transactions

_cards = table("cards", "model version", "state")


class CardStore:
    """What the kept cards say. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def written(self, model: str) -> dict[str, str]:
        """Returns the state that the kept card of each version is of, by the version's number."""
        with self._transactions.read() as connection:
            rows = connection.execute(_cards.select().where(_cards.c.model == model))
            return {row.version: row.state for row in rows}

    def record(self, model: str, version: str, state: str) -> None:
        """Records that the card of a version was written in a state."""
        of = (_cards.c.model == model, _cards.c.version == version)
        with self._transactions.begin() as connection:
            if connection.execute(sa.update(_cards).where(*of).values(state=state)).rowcount == 0:
                connection.execute(_cards.insert().values(model=model, version=version, state=state))
