"""What the live servers counted is fetched and kept in the release store."""

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.ports import Servers

FARTHEST_BACK = 120
"""How many minutes of windows a server is asked for at most."""


class LiveTraffic:
    """The windows of the models that one set of servers serves; without servers there are none."""

    def __init__(self, store: ReleaseStore, servers: Servers | None) -> None:
        self._store = store
        self._servers = servers

    def collect(self, model: str, *, after: int, last: int) -> tuple[str, ...]:
        """Keeps what was counted of a model in the minutes after one, up to the last that is over.

        What is kept already stays as it is. Returns a sentence for each server that handed in nothing.
        """
        if self._servers is None:
            return ()
        after, said = max(after, last - FARTHEST_BACK), list[str]()
        for handed in self._servers.windows(after):
            if handed.problem:
                said.append(f"{handed.url} hands in no windows: {handed.problem}")
                continue
            mine = [w for w in handed.windows if w.key.model == model and after < w.key.minute <= last]
            self._store.windows.record(handed.replica, mine)
        return tuple(said)
