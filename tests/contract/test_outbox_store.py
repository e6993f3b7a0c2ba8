"""The outbox of the release store, on SQLite and on PostgreSQL alike: a message is there exactly when its move is."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.errors import IntegrityError, ReleaseError, StaleEpoch, Unavailable
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Move
from release_platform.domain.messages import Delivery, MessageKind, State, message_of
from release_platform.domain.rollout import Order, RolloutState
from tests.contract.test_release_store import move
from tests.contract.test_rollout_store import begun_rollout, ordered

WAITS = Delivery(n_attempts=1, next_at=datetime.fromisoformat("2026-03-01T12:00:00+00:00"), problem="it answers 500")


def twice_promoted(store: ReleaseStore) -> None:
    for epoch, (kind, version) in enumerate(
        [(Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2")]
    ):
        move(store, kind, version, epoch)


def roll_back(store: ReleaseStore, request_id: str = "r") -> LedgerRow:
    return move(store, Move.ROLLED_BACK, "1", 4, request_id)


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_a_rollback_leaves_one_message_however_often_it_is_asked_for(store: ReleaseStore) -> None:
    twice_promoted(store)
    assert store.outbox.find(State.WAITING) == ()
    row = roll_back(store)
    assert roll_back(store) == row
    (posted,) = store.outbox.find(State.WAITING)
    assert posted.message == message_of(row)
    assert posted.message.ledger_hash == store.ledger("m")[-1].hash


def test_a_move_that_is_not_committed_leaves_no_message(store: ReleaseStore) -> None:
    twice_promoted(store)
    with pytest.raises(StaleEpoch):
        move(store, Move.ROLLED_BACK, "1", 3, "late")
    assert store.outbox.find(State.WAITING) == ()


def test_a_message_that_cannot_be_kept_lets_nothing_be_committed(store: ReleaseStore, url: str) -> None:
    twice_promoted(store)
    execute(url, "ALTER TABLE outbox RENAME TO away")
    with pytest.raises(Unavailable, match="nothing was changed"):
        roll_back(store)
    assert store.head("m").epoch == 4
    execute(url, "ALTER TABLE away RENAME TO outbox")
    assert roll_back(store).epoch == 5
    assert len(store.outbox.find(State.WAITING)) == 1


def test_of_rollbacks_at_the_same_time_the_one_that_won_is_told(store: ReleaseStore) -> None:
    twice_promoted(store)

    def attempt(name: str) -> LedgerRow | None:
        try:
            return roll_back(store, name)
        except ReleaseError:
            return None

    with ThreadPoolExecutor(4) as pool:
        won = [row for row in pool.map(attempt, "abcd") if row is not None]
    (posted,) = store.outbox.find(State.WAITING)
    assert [posted.message] == [message_of(row) for row in won]


def test_an_abort_leaves_one_message_and_other_ends_none(store: ReleaseStore) -> None:
    twice_promoted(store)
    kept = store.rollouts.open(begun_rollout(), epoch=4)
    paused = store.rollouts.save(kept, ordered(kept.rollout, Order.PAUSE))
    assert paused is not None
    assert store.outbox.find(State.WAITING) == ()
    assert store.rollouts.save(kept, ordered(kept.rollout, Order.ABORT)) is None  # another was first
    assert store.outbox.find(State.WAITING) == ()
    ended = store.rollouts.save(paused, ordered(paused.rollout, Order.ABORT))
    assert ended is not None
    (posted,) = store.outbox.find(State.WAITING)
    last = store.ledger("m")[-1]
    assert (posted.message.kind, posted.message.actor) == (MessageKind.ROLLOUT_ABORTED, "ada")
    assert (posted.message.epoch, posted.message.ledger_hash) == (last.epoch, last.hash)
    store.rollouts.settle(ended)
    later = store.rollouts.open(begun_rollout("r"), epoch=4)
    completed = ordered(ordered(later.rollout, Order.PROMOTE), Order.PROMOTE)
    assert completed.state is RolloutState.COMPLETED
    assert store.rollouts.save(later, completed) is not None
    assert store.outbox.find(State.WAITING) == (posted,)


def test_how_far_a_message_got_is_kept_for_each_receiver(store: ReleaseStore) -> None:
    twice_promoted(store)
    roll_back(store)
    (posted,) = store.outbox.find(State.WAITING)
    store.outbox.record(posted.message.id, "one", Delivery(state=State.DELIVERED, n_attempts=1))
    store.outbox.record(posted.message.id, "two", WAITS)
    assert store.outbox.settle(posted.message.id, ["one", "two"]) is State.WAITING
    (posted,) = store.outbox.find(State.WAITING)
    assert posted.deliveries == {"one": Delivery(state=State.DELIVERED, n_attempts=1), "two": WAITS}
    assert store.outbox.settle(posted.message.id, ["one"]) is State.DELIVERED  # the other is asked for no more
    assert store.outbox.find(State.WAITING) == ()


def test_what_is_closed_and_old_is_removed(store: ReleaseStore) -> None:
    twice_promoted(store)
    roll_back(store)
    (posted,) = store.outbox.find(State.WAITING)
    later = datetime.fromisoformat(posted.message.at) + timedelta(seconds=1)
    assert store.outbox.prune(later) == 0  # it waits
    assert store.outbox.settle(posted.message.id, []) is State.UNWANTED
    assert store.outbox.prune(datetime.fromisoformat(posted.message.at)) == 0
    assert store.outbox.prune(later) == 1
    assert store.outbox.find(State.UNWANTED) == ()


def test_a_message_that_was_changed_in_the_database_is_named(store: ReleaseStore, url: str) -> None:
    twice_promoted(store)
    roll_back(store)
    execute(url, "UPDATE outbox SET value = '{}'")
    with pytest.raises(IntegrityError, match=r"the message .* of m"):
        store.outbox.find(State.WAITING)
