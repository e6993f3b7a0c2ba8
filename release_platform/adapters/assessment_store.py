"""What aborts and automatic rollbacks were decided on, in the release store: by its digest, which their rows name."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.store_tables import damaged, table
from release_platform.adapters.store_transactions import Transactions
from release_platform.domain.identity import digest_of

_assessments = table("assessments", "digest", "model", "value")


class AssessmentStore:
    """The assessments of all models. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, model: str, value: Mapping[str, Any]) -> str:
        """Keeps a JSON value and returns its digest; again does nothing."""
        digest = digest_of(dict(value))
        with suppress(DuplicateRow), self._transactions.begin() as connection:
            connection.execute(_assessments.insert().values(digest=digest, model=model, value=dict(value)))
        return digest

    def find(self, digest: str) -> dict[str, Any] | None:
        """Returns what is kept under a digest, or None.

        Raises:
            IntegrityError: It is not of this digest any more.
        """
        with self._transactions.read() as connection:
            value = connection.scalar(sa.select(_assessments.c.value).where(_assessments.c.digest == digest))
        if value is None:
            return None
        if not isinstance(value, dict) or digest_of(value) != digest:
            raise damaged(f"the assessment {digest} is another one")
        return value
