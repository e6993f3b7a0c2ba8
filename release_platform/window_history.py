"""The windows of a model, read again and again: only what is new since the last time is read from the release store.

```
minutes:   first ..................... mark .................... last
           read once, kept in memory | here it is looked which there are, and the new ones are read
```
What is kept in the release store never changes, and nobody adds to a minute that is over for `FARTHEST_BACK` minutes,
so a minute before the mark is read once. A process that starts reads all of it once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from release_platform.domain.windows import Window, WindowKey
from release_platform.live_traffic import FARTHEST_BACK

OPEN_MINUTES = FARTHEST_BACK + 5
"""So many of the last minutes may still get windows: those that servers are asked for, and some for other clocks."""

ReplicaKey = tuple[str, str, int, str]
"""What a replica's window is of: version, route, minute, and the replica."""


class Windows(Protocol):
    """The windows that are kept; see `WindowStore`."""

    def keys(self, model: str, first: int, last: int) -> frozenset[ReplicaKey]:
        """Returns of what there are windows, and of which replica."""

    def of_replicas(self, model: str, first: int, last: int) -> Mapping[ReplicaKey, Window]:
        """Returns the windows of each replica."""

    def oldest(self, model: str) -> int | None:
        """Returns the first minute of which there is a window."""


@dataclass(slots=True)
class _Known:
    """What is known of a model.

    Attributes:
        first: The first minute that was read.
        read: The last minute that was read.
        keys: Which windows of the last minutes are known.
        windows: The windows of all these minutes, those of all replicas added up.
    """

    first: int
    read: int
    keys: set[ReplicaKey] = field(default_factory=set)
    windows: dict[WindowKey, Window] = field(default_factory=dict)


class WindowHistory:
    """Reads windows as the release store does, and remembers what it read."""

    def __init__(self, store: Windows) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}
        self._lock = Lock()

    def windows(self, model: str, first: int, last: int) -> tuple[Window, ...]:
        """Returns the windows of a model from one minute to another, both included, those of all replicas added up.

        Raises:
            Unavailable: The database does not answer.
        """
        with self._lock:
            return self._windows(model, first, last)

    def _windows(self, model: str, first: int, last: int) -> tuple[Window, ...]:
        known = self._known.pop(model, None)  # what is read in part only is not kept
        if known is None or first < known.first or last < known.read:  # another promotion, or the clock was put back
            known = _Known(first=first, read=first - 1)
        self._read_on(model, known, last)
        self._forget(model, known, first)
        self._known[model] = known
        return tuple(sorted(known.windows.values(), key=_place))

    def _read_on(self, model: str, known: _Known, last: int) -> None:
        mark = max(known.first, min(known.read + 1, last - OPEN_MINUTES))
        new = self._store.keys(model, mark, last) - known.keys
        if new:
            minutes = [minute for _, _, minute, _ in new]
            for key, window in self._store.of_replicas(model, min(minutes), max(minutes)).items():
                if key not in known.keys:
                    there = known.windows.get(window.key)
                    known.windows[window.key] = window if there is None else there.merge(window)
                    known.keys.add(key)
        known.read = last

    def _forget(self, model: str, known: _Known, first: int) -> None:
        """Leaves out what is before the first minute that is asked for, and what the release store has dropped."""
        oldest = self._store.oldest(model)
        known.first = first
        begin = known.read + 1 if oldest is None else max(first, oldest)
        for gone in [key for key in known.windows if key.minute < begin]:
            del known.windows[gone]
        open_since = max(begin, known.read - OPEN_MINUTES)
        known.keys = {key for key in known.keys if key[2] >= open_since}


def _place(window: Window) -> tuple[str, str, str, int]:
    key = window.key
    return key.model, key.version, key.route, key.minute
