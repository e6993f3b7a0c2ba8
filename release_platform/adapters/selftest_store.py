"""What selftests found, in the release store, each with the signed statement of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from release_platform.adapters.store_tables import readable, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.selftest import Selftest

_selftests = table("selftests", "selftest_id", "model digest at signature", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSelftest:
    """A selftest as it was kept, not verified yet.

    Attributes:
        selftest: What was found.
        at: When it was kept, ISO 8601.
        signature: The bundle of the signed statement.
        selftest_id: The identity of the row.
    """

    selftest: Selftest
    at: str
    signature: str
    selftest_id: str


class SelftestStore:
    """The selftests of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, found: Selftest, *, at: str, signature: str) -> None:
        """Keeps what a selftest found, with the bundle of its signed statement."""
        values = {
            "selftest_id": uuid.uuid4().hex,
            "model": found.model,
            "digest": found.digest,
            "at": at,
            "signature": signature,
            "value": found.to_json(),
        }
        with self._transactions.begin() as connection:
            connection.execute(_selftests.insert().values(values))

    def all_of(self, model: str, digest: str | None = None) -> tuple[KeptSelftest, ...]:
        """Returns the selftests of a model, the newest first; with a digest, only those that found exactly that.

        Raises:
            IntegrityError: One was changed in the database.
        """
        query = _selftests.select().where(_selftests.c.model == model).order_by(_selftests.c.at.desc())
        if digest is not None:
            query = query.where(_selftests.c.digest == digest)
        with self._transactions.read() as connection:
            return tuple(map(_kept_from, connection.execute(query).mappings().all()))

    def find_last(self, model: str) -> KeptSelftest | None:
        """Returns the newest selftest of a model, or None.

        Raises:
            IntegrityError: It was changed in the database.
        """
        query = _selftests.select().where(_selftests.c.model == model).order_by(_selftests.c.at.desc()).limit(1)
        with self._transactions.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _kept_from(row)

    def replace_signature(self, selftest_id: str, signature: str) -> None:
        """Signs a selftest with another key."""
        query = sa.update(_selftests).where(_selftests.c.selftest_id == selftest_id).values(signature=signature)
        with self._transactions.begin() as connection:
            connection.execute(query)


def _kept_from(row: Mapping[Any, Any]) -> KeptSelftest:
    with readable(f"a selftest of {row['model']} of {row['at']}"):
        found = Selftest.from_json(row["value"])
        if (found.model, found.digest) != (row["model"], row["digest"]) or found.to_json() != row["value"]:
            raise ValueError("it is of something else")
        return KeptSelftest(selftest=found, at=row["at"], signature=row["signature"], selftest_id=row["selftest_id"])
