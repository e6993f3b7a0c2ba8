"""What replays showed, in the release store: a row each, which never changes."""

import uuid
from collections.abc import Mapping
from typing import Any

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.replay import Replay

_replays = table("replays", "replay_id", "model version at", "value")


class ReplayStore:
    """The replays of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, replay: Replay) -> None:
        """Keeps what a replay showed."""
        values = {
            "replay_id": uuid.uuid4().hex,
            "model": replay.model,
            "version": replay.candidate.version,
            "at": replay.at,
            "value": replay.to_json(),
        }
        with self._transactions.begin() as connection:
            connection.execute(_replays.insert().values(values))

    def find_last(self, model: str, version: str) -> Replay | None:
        """Returns what the last replay of a version showed, or None.

        Raises:
            IntegrityError: It was changed in the database.
        """
        of = (_replays.c.model == model, _replays.c.version == version)
        query = _replays.select().where(*of).order_by(_replays.c.at.desc()).limit(1)
        with self._transactions.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _replay_from(row)

    def all_of(self, model: str) -> tuple[Replay, ...]:
        """Returns what every replay of a model showed, in the order in which they were made.

        Raises:
            IntegrityError: One was changed in the database.
        """
        query = _replays.select().where(_replays.c.model == model).order_by(_replays.c.at)
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(_replay_from(row) for row in rows)


def _replay_from(row: Mapping[Any, Any]) -> Replay:
    with readable(f"the replay of {row['model']} version {row['version']}"):
        replay = Replay.from_json(row["value"])
        if (replay.model, replay.candidate.version, replay.at) != (row["model"], row["version"], row["at"]):
            raise ValueError("it is of something else")
        return replay
