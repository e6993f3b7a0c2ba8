"""The system's clock."""

from datetime import UTC, datetime


class SystemClock:
    """The `Clock` of the machine."""

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)
