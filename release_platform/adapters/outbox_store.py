"""The outbox in the release store: a message is written by the very transaction that commits what it tells.

It stays until it was delivered to every receiver or given up, and some time after that for people to see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.drift_day import DriftDay
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.messages import (
    Delivery,
    Message,
    State,
    message_of,
    message_of_abort,
    message_of_drift,
    state_of,
)
from release_platform.domain.rollout import Rollout

_outbox = table("outbox", "message_id", "model at state", "value deliveries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A message as the outbox has it, and how far it got with each receiver, by the receiver's key."""

    message: Message
    state: State = State.WAITING
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)


class OutboxStore:
    """The messages of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def find(self, state: State) -> tuple[Posted, ...]:
        """Returns the messages of a state, oldest first."""
        query = _outbox.select().where(_outbox.c.state == state.value).order_by(_outbox.c.at, _outbox.c.message_id)
        with self._transactions.read() as connection:
            return tuple(_posted_from(row) for row in connection.execute(query).mappings())

    def record(self, message_id: str, receiver: str, delivery: Delivery) -> None:
        """Keeps how far a message got with one receiver."""
        with self._transactions.begin() as connection:
            of = _outbox.c.message_id == message_id
            row = connection.execute(_outbox.select().where(of).with_for_update()).mappings().first()
            if row is not None:
                deliveries = {**row["deliveries"], receiver: delivery.to_json()}
                connection.execute(_outbox.update().where(of).values(deliveries=deliveries))

    def settle(self, message_id: str, receivers: Iterable[str]) -> State:
        """Closes a message that no receiver waits for any more, and returns where it stands.

        Args:
            message_id: The message.
            receivers: The keys of the receivers that there are now; without any the message is not wanted.
        """
        with self._transactions.begin() as connection:
            of = _outbox.c.message_id == message_id
            row = connection.execute(_outbox.select().where(of).with_for_update()).mappings().first()
            if row is None:
                return State.UNWANTED
            posted = _posted_from(row)
            state = state_of(posted.deliveries.get(receiver, Delivery()) for receiver in receivers)
            connection.execute(_outbox.update().where(of).values(state=state.value))
            return state

    def prune(self, before: datetime) -> int:
        """Removes the messages that are closed and older than a moment, and returns how many."""
        old = _outbox.delete().where(_outbox.c.state != State.WAITING.value, _outbox.c.at < before.isoformat())
        with self._transactions.begin() as connection:
            return int(connection.execute(old).rowcount)


def post_move(connection: sa.Connection, row: LedgerRow) -> None:
    """Puts the message of a ledger row into the outbox, if it has one, within the transaction of the move."""
    message = message_of(row)
    if message is not None:
        _post(connection, message)


def post_abort(connection: sa.Connection, rollout: Rollout, at: datetime) -> None:
    """Puts the message of an aborted rollout into the outbox, within the transaction that aborts it."""
    epoch, ledger_hash = _last_of(connection, rollout.model)
    production = _production_of(connection, rollout.model)
    _post(connection, message_of_abort(rollout, production=production, epoch=epoch, ledger_hash=ledger_hash, at=at))


def post_drift(connection: sa.Connection, day: DriftDay) -> None:
    """Puts the message of a day that drifted into the outbox, within the transaction that keeps the day."""
    epoch, ledger_hash = _last_of(connection, day.model)
    _post(connection, message_of_drift(day, epoch=epoch, ledger_hash=ledger_hash))


def _last_of(connection: sa.Connection, model: str) -> tuple[int, str]:
    """Returns epoch and hash of the last ledger row of a model; 0 and nothing where there is none."""
    query = sa.text("SELECT epoch, hash FROM ledger WHERE model = :model ORDER BY epoch DESC LIMIT 1")
    last = connection.execute(query, {"model": model}).first()
    return (0, "") if last is None else (last.epoch, last.hash)


def _production_of(connection: sa.Connection, model: str) -> str | None:
    query = sa.text("SELECT state FROM heads WHERE model = :model").columns(state=sa.JSON)
    state = connection.scalar(query, {"model": model})
    with readable(f"the head of {model}"):
        found: str | None = None if state is None else state["production"]
    return found


def _post(connection: sa.Connection, message: Message) -> None:
    identity = {"message_id": message.id, "model": message.model, "at": message.at}
    kept = {"state": State.WAITING.value, "value": message.to_json(), "deliveries": {}}
    connection.execute(_outbox.insert().values(**identity, **kept))


def _posted_from(row: Mapping[Any, Any]) -> Posted:
    with readable(f"the message {row['message_id']} of {row['model']}"):
        message = Message.from_json(row["value"])
        if message.id != row["message_id"]:
            raise ValueError("it is of something else")
        deliveries = {key: Delivery.from_json(value) for key, value in row["deliveries"].items()}
        return Posted(message=message, state=State(row["state"]), deliveries=deliveries)
