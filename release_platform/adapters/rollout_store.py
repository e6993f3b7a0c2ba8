"""The rollouts in the release store: each a frozen value that is replaced as a whole, if nobody else was first."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.outbox_store import post_abort
from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.errors import Refused
from release_platform.domain.ports import Clock
from release_platform.domain.rollout import Rollout, RolloutState

_rollouts = table("rollouts", "rollout_id", "model epoch begun_at state settled revision", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRollout:
    """A rollout as the release store has it.

    Attributes:
        rollout: Where it stands.
        epoch: The epoch of the model's head when it began.
        revision: How often it was replaced.
        settled: Whether it has ended, and all that must hold at its end was brought about.
    """

    rollout: Rollout
    epoch: int
    revision: int = 0
    settled: bool = False


class RolloutStore:
    """The rollouts of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    def open(self, rollout: Rollout, *, epoch: int) -> KeptRollout:
        """Keeps a new rollout and returns it; of the same id again, the one that is kept, as it stands now.

        Raises:
            Refused: Another rollout of the model is under way.
        """
        values = {"epoch": epoch, "revision": 0, "settled": False, "begun_at": rollout.since.isoformat()}
        with suppress(DuplicateRow), self._transactions.begin() as connection:
            connection.execute(_rollouts.insert().values(**values, **_identity(rollout), **_state(rollout)))
        known = self.find(rollout.rollout_id)
        if known is not None:
            return known
        other = self.find_current(rollout.model)
        said = f"version {other.rollout.candidate} is under way" if other is not None else "another version was"
        raise Refused(
            f"{rollout.model}: the rollout of {said}",
            remedy=f"one at a time: wait for it, or `release rollout abort {rollout.model}`",
        )

    def save(self, kept: KeptRollout, rollout: Rollout) -> KeptRollout | None:
        """Replaces a rollout as it was read, and returns it as it is kept now; None: another was first."""
        changed = _rollouts.update().where(*_exactly(kept)).values(**_state(rollout), revision=kept.revision + 1)
        with self._transactions.begin() as connection:
            if connection.execute(changed).rowcount != 1:
                return None
            if rollout.state is RolloutState.ABORTED and not kept.rollout.ended:
                post_abort(connection, rollout, self._clock.now())
        return replace(kept, rollout=rollout, revision=kept.revision + 1)

    def settle(self, kept: KeptRollout) -> None:
        """Records that all that must hold at the end of a rollout was brought about; again does nothing."""
        if not kept.rollout.ended:
            raise ValueError("a rollout that goes on is not settled")
        with self._transactions.begin() as connection:
            connection.execute(_rollouts.update().where(*_exactly(kept)).values(settled=True))

    def find(self, rollout_id: str) -> KeptRollout | None:
        """Returns a rollout, or None."""
        return self._first(_rollouts.select().where(_rollouts.c.rollout_id == rollout_id))

    def find_current(self, model: str) -> KeptRollout | None:
        """Returns the rollout of a model that is not settled yet, or None."""
        return self._first(_rollouts.select().where(_rollouts.c.model == model, _rollouts.c.settled == sa.false()))

    def find_last(self, model: str) -> KeptRollout | None:
        """Returns the rollout of a model that began last, or None."""
        return self._first(
            _rollouts.select().where(_rollouts.c.model == model).order_by(_rollouts.c.begun_at.desc()).limit(1)
        )

    def _first(self, query: sa.Select[Any]) -> KeptRollout | None:
        with self._transactions.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _kept_from(row)


def _identity(rollout: Rollout) -> dict[str, Any]:
    return {"rollout_id": rollout.rollout_id, "model": rollout.model}


def _state(rollout: Rollout) -> dict[str, Any]:
    return {"state": rollout.state.value, "value": rollout.to_json()}


def _exactly(kept: KeptRollout) -> tuple[sa.ColumnElement[bool], ...]:
    return _rollouts.c.rollout_id == kept.rollout.rollout_id, _rollouts.c.revision == kept.revision


def _kept_from(row: Mapping[Any, Any]) -> KeptRollout:
    with readable(f"the rollout {row['rollout_id']} of {row['model']}"):
        rollout = Rollout.from_json(row["value"])
        if (rollout.rollout_id, rollout.model, rollout.state) != (row["rollout_id"], row["model"], row["state"]):
            raise ValueError("it is of something else")
        return KeptRollout(rollout=rollout, epoch=row["epoch"], revision=row["revision"], settled=bool(row["settled"]))
