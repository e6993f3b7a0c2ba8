"""What a process counted goes to the one that comes in its place, when it ends in good order.

```
cache_dir/handover/<machine, address, port, place among the workers>.json

  process O runs --drained, all counted--> what O counted --S starts in its place--> process S runs
        |
      killed: O is still said to run when S starts, so S knows that something is lacking
```
The file says either who runs in this place or what it left. It is replaced under a lock, and only by whom it names: so
a process that was killed, or that was not the last one here, leaves nothing that a later one could take for all.
"""

import fcntl
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

import orjson

from release_platform.adapters.whole_files import write_whole
from release_platform.domain.json_form import exactly
from release_platform.domain.windows import Window

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a process counted that ended in good order, and told nobody or everybody.

    Attributes:
        replica: The process's name.
        since: The minute in which it began to count.
        ended: The minute in which it ended.
        whole: The minutes that it counted from beginning to end, and the one in which it ended.
        windows: Its windows.
    """

    replica: str
    since: int
    ended: int
    whole: tuple[int, ...]
    windows: tuple[Window, ...]

    def told_after(self, minute: int, *, before: int) -> dict[str, Any]:
        """Returns, as a JSON value, what is told of the minutes after one and before another."""
        return {
            "replica": self.replica,
            "since": self.since,
            "ended": self.ended,
            "whole": [whole for whole in self.whole if minute < whole < before],
            "windows": [window.to_json() for window in self.windows if minute < window.key.minute < before],
        }

    def since_minute(self, minute: int) -> "Ended":
        """Returns what it counted in a minute and later."""
        return Ended(
            replica=self.replica,
            since=self.since,
            ended=self.ended,
            whole=tuple(whole for whole in self.whole if whole >= minute),
            windows=tuple(window for window in self.windows if window.key.minute >= minute),
        )


class Handover:
    """The place of one process: a file that the one before it left, and the one after it will find.

    Args:
        folder: Where the places of this machine's servers are.
        address: Where the server listens; with port 0 nobody comes in its place.
        replica: The name of this process.
    """

    def __init__(self, folder: Path, address: tuple[str, int], replica: str) -> None:
        self._folder = folder
        self._address = address
        self._replica = replica
        self._file: Path | None = None

    def take(self, place: int) -> tuple[Ended, ...] | None:
        """Takes a place among the workers, and returns what the processes before counted, the newest last.

        None when the one before did not end in good order, or nobody knows of one.
        """
        host, port = self._address
        if not port:
            return None
        name = quote(f"{socket.gethostname()} {host} {port} {place}", safe="")
        file = self._folder / f"{name}.json"
        try:
            with self._alone():
                _, found = _read(file)
                self._put(file, None)
                self._prune(file)
        except OSError as error:
            _LOG.warning("what the process before counted cannot be taken over: %s", error)
            with suppress(OSError):  # a later process must not take it for what was counted last
                file.unlink()
            return None
        self._file = file
        return found

    def leave(self, ended: Sequence[Ended]) -> None:
        """Leaves what this process counted to the next one, unless that one was faster."""
        if self._file is None:
            return
        try:
            with self._alone():
                if _read(self._file)[0] == self._replica:
                    self._put(self._file, ended)
        except OSError as error:
            _LOG.warning("what this process counted cannot be handed over: %s", error)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _prune(self, own: Path) -> None:
        """Removes what was left in places that nobody came back to, as those of containers that were made anew."""
        for file in self._folder.glob("*.json"):
            if file != own and file.stat().st_mtime < time() - _ABANDONED_S and _read(file)[1] is not None:
                file.unlink()

    def _put(self, file: Path, ended: Sequence[Ended] | None) -> None:
        left = None if ended is None else [one.told_after(-1, before=one.ended + 1) for one in ended]
        write_whole(file, orjson.dumps({"format": _FORMAT, "runs": self._replica, "left": left}))


def _read(file: Path) -> tuple[str, tuple[Ended, ...] | None]:
    """Returns who runs, or ran last, in a place, and what was left there; nobody where that cannot be read."""
    try:
        said = exactly(orjson.loads(file.read_bytes()), "place", **_PLACE)
        if said["format"] != _FORMAT:
            return "", None
        left = None if said["left"] is None else tuple(map(_ended, said["left"]))
    except FileNotFoundError:
        return "", None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        _LOG.warning("what the process before counted cannot be read: %s", error)
        return "", None
    return said["runs"], left


def _ended(value: object) -> Ended:
    of = exactly(value, "process that ended", **_ENDED)
    windows = tuple(map(Window.from_json, of["windows"]))
    return Ended(**{**of, "whole": tuple(map(int, of["whole"])), "windows": windows})


_ABANDONED_S = 3600.0  # nobody asks for windows that are older
_FORMAT = 1
_PLACE: dict[str, Any] = {"format": int, "runs": str, "left": (list, type(None))}
_ENDED: dict[str, Any] = {"replica": str, "since": int, "ended": int, "whole": list, "windows": list}
