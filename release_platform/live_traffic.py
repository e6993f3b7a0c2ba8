"""What the live servers counted is fetched and kept in the release store."""

from collections.abc import Sequence
from datetime import datetime

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.coverage import owed_by
from release_platform.domain.ports import HandedIn, Servers

FARTHEST_BACK = 120
"""How many minutes of windows a server is asked for at most."""


class LiveTraffic:
    """The windows of the models that one set of servers serves; without servers there are none."""

    def __init__(self, store: ReleaseStore, servers: Servers | None) -> None:
        self._store = store
        self._servers = servers

    def collect(self, model: str, *, after: int, now: datetime) -> tuple[str, ...]:
        """Keeps what was counted of a model in the minutes after one, up to the last that is over.

        What is kept already stays as it is. Returns a sentence for each server that handed in nothing.
        """
        return self._collect(model, after, now)[1]

    def collect_all(self, model: str, *, after: int, now: datetime) -> tuple[str, ...]:
        """Does the same, and keeps of which of these minutes all was handed in: what must not be missed."""
        handed, said = self._collect(model, after, now)
        last = _last(now)
        owed = owed_by(handed, after=max(after, last - FARTHEST_BACK), last=last, at=now)
        self._store.windows.record_owed(model, owed)  # after the windows: told is what is kept
        return said

    def _collect(self, model: str, after: int, now: datetime) -> tuple[Sequence[HandedIn], tuple[str, ...]]:
        if self._servers is None:
            return (), ()
        last = _last(now)
        after = max(after, last - FARTHEST_BACK)
        handed = self._servers.windows(after)
        for one in handed:
            mine = [w for w in one.windows if w.key.model == model and after < w.key.minute <= last]
            self._store.windows.record(one.replica, mine)
        return handed, tuple(f"{one.url} hands in no windows: {one.problem}" for one in handed if one.problem)


def _last(now: datetime) -> int:
    """Returns the last minute that is over, since 1970."""
    return int(now.timestamp() // 60) - 1
