"""A clock that stands still until a test moves it."""

from datetime import datetime, timedelta


class FakeClock:
    """The `Clock` of a test, and a clock that never goes back."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """See `Clock`."""
        return self._now

    def seconds(self) -> float:
        """Returns the seconds since some moment."""
        return self._now.timestamp()

    def pass_s(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += timedelta(seconds=seconds)
