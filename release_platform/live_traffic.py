"""What the live servers counted is fetched and kept in the release store."""

from collections.abc import Sequence
from datetime import datetime

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.coverage import owed_by
from release_platform.domain.ports import Given, HandedIn, Servers

FARTHEST_BACK = 120
"""How many minutes of windows a server is asked for at most."""


RECENT = 3
"""Minutes that are asked for at least: a server may have been away for a moment."""


class Round:
    """What the servers hand in at one moment, asked once for all models; a second time where one needs older minutes.

    Attributes:
        at: The moment. Whoever judges what was handed in judges it as of then.
    """

    def __init__(self, servers: Servers | None, at: datetime) -> None:
        self.at = at
        self._servers = servers
        self._after: int | None = None
        self._handed: Sequence[HandedIn] = ()

    @property
    def last(self) -> int:
        """The last minute that is over, since 1970."""
        return int(self.at.timestamp() // 60) - 1

    def handed_in(self, after: int) -> Sequence[HandedIn]:
        """Returns what each server handed in of the minutes after one, and may be of some before."""
        if self._servers is not None and (self._after is None or after < self._after):
            self._after = min(after, self.last - RECENT) if self._after is None else self.last - FARTHEST_BACK
            self._handed = self._servers.windows(self._after)
        return self._handed


class LiveTraffic:
    """The windows of the models that one set of servers serves; without servers there are none."""

    def __init__(self, store: ReleaseStore, servers: Servers | None) -> None:
        self._store = store
        self._servers = servers

    def ask(self, at: datetime) -> Round:
        """Returns a round of this moment."""
        return Round(self._servers, at)

    def collect(self, model: str, heard: Round, *, after: int) -> tuple[str, ...]:
        """Keeps what was counted of a model in the minutes after one, up to the last that is over.

        What is kept already stays as it is. Returns a sentence for each server that handed in nothing.
        """
        after = max(after, heard.last - FARTHEST_BACK)
        handed = heard.handed_in(after)
        for one in handed:
            mine = [w for w in one.windows if w.key.model == model and after < w.key.minute <= heard.last]
            self._store.windows.record(one.replica, mine)
        return tuple(f"{one.url} hands in no windows: {one.problem}" for one in handed if one.problem)

    def collect_all(self, model: str, share: Given, heard: Round, *, after: int) -> tuple[str, ...]:
        """Does the same, and keeps of which of these minutes all was handed in, by processes that give this share."""
        said = self.collect(model, heard, after=after)
        after = max(after, heard.last - FARTHEST_BACK)
        owed = owed_by(heard.handed_in(after), model, share, after=after, last=heard.last, at=heard.at)
        self._store.windows.record_owed(model, owed)  # after the windows: told is what is kept
        return said
