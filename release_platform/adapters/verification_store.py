"""What verifications of live servers showed, in the release store: a row each, which never changes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.verified import Verified

_verifications = table("verifications", "verification_id", "model at", "value")


class VerificationStore:
    """The verifications of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, verified: Verified) -> None:
        """Keeps what a verification showed, shortened; again does nothing."""
        kept = verified.shortened()
        values = {"verification_id": kept.verification_id, "model": kept.model, "at": kept.at, "value": kept.to_json()}
        with suppress(DuplicateRow), self._transactions.begin() as connection:
            connection.execute(_verifications.insert().values(values))

    def since(self, model: str, at: str) -> tuple[Verified, ...]:
        """Returns those of a model that ended at a moment (ISO 8601, UTC) or later, oldest first."""
        of = _verifications.c
        query = _verifications.select().where(of.model == model, of.at >= at).order_by(of.at)
        with self._transactions.read() as connection:
            return tuple(map(_verified_from, connection.execute(query).mappings().all()))

    def drop_before(self, at: str) -> int:
        """Drops those of every model that ended before a moment, and returns how many there were."""
        with self._transactions.begin() as connection:
            return int(connection.execute(_verifications.delete().where(_verifications.c.at < at)).rowcount)


def _verified_from(row: Mapping[Any, Any]) -> Verified:
    with readable(f"a verification of {row['model']} of {row['at']}"):
        verified = Verified.from_json(row["value"])
        if (verified.verification_id, verified.model, verified.at) != (row["verification_id"], row["model"], row["at"]):
            raise ValueError("it is of something else")
        return verified
