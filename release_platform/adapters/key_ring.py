"""Which API keys are good now, by a file that is looked at again every few seconds.

The file alone decides, so that callers are known when database and registry are down. One that went bad changes
nothing, and is named until it is good again.
"""

import hashlib
import hmac
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from release_platform.adapters.api_keys import read_api_keys
from release_platform.adapters.clock import SystemClock
from release_platform.domain.api_keys import KEY_PATTERN, ApiKey, KeyState
from release_platform.domain.errors import ReleaseError
from release_platform.domain.ports import Clock

LOOK_EVERY_S = 5.0
_WINDOW_S = 60.0
_KEY = re.compile(KEY_PATTERN.encode())
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]*)")
_NOBODY = bytes(32)
_LOG = logging.getLogger(__name__)


class MovingWindow:
    """Counts the requests of the last minute, exactly; the moment of each is kept, in at most 32 bytes.

    Args:
        per_minute: Most requests within any 60 s.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._taken: deque[float] = deque(maxlen=per_minute)

    def wait_s(self, now: float) -> float:
        """Takes a request and returns 0; or returns the seconds, more than 0, until one could be taken.

        Args:
            now: A moment in seconds that never goes back.
        """
        if len(self._taken) == self.per_minute and (wait := self._taken[0] + _WINDOW_S - now) > 0:
            return wait
        self._taken.append(now)  # the oldest makes room
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key of the file, and the requests that came with it in the last minute; None where no limit holds."""

    key: ApiKey
    digest: bytes
    window: MovingWindow | None


class KeyRing:
    """The keys of one file. For one thread at a time.

    Args:
        path: The file.
        rate_per_minute: Most requests per minute with a key that has no limit of its own; None for no limit.
        clock: The time by which keys expire.
        seconds: A clock that never goes back, for when to look at the file.

    Raises:
        ReleaseError: The file is not there, or no file of API keys.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate_per_minute: int | None = None,
        clock: Clock | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._path = path
        self._rate = rate_per_minute
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._held: dict[bytes, HeldKey] = {}
        self._problem = ""
        self._stamp = _stamp(path)
        self._looked = seconds()
        self._take()

    def __len__(self) -> int:
        """Returns how many keys the file holds, good or not."""
        return len(self._held)

    @property
    def problem(self) -> str:
        """What is wrong with the file now, so that the keys read before still count; empty when nothing is."""
        self._look()
        return self._problem

    def find(self, text: bytes) -> HeldKey | None:
        """Returns the key of this text; None unless it is good now."""
        self._look()
        found = _KEY.fullmatch(text)
        held = self._held.get(found[1]) if found else None
        # Compared even where no key has the id, so that the time does not tell which ids there are.
        equal = hmac.compare_digest(hashlib.sha256(text).digest(), held.digest if held else _NOBODY)
        good = held is not None and equal and held.key.state(self._clock.now()) is KeyState.ACTIVE
        return held if good else None

    def _look(self) -> None:
        now = self._seconds()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self._take()
        except ReleaseError as error:
            self._stamp = None  # so that it is tried again, changed or not
            if error.problem != self._problem:
                _LOG.error("THE API KEYS READ BEFORE STILL COUNT: %s; %s", error.problem, error.remedy)
            self._problem = error.problem
        else:
            self._stamp, self._problem = stamp, ""
            _LOG.info("read %d API keys", len(self._held))

    def _take(self) -> None:
        before = self._held
        self._held = {
            key.key_id.encode(): self._made(key, before.get(key.key_id.encode())) for key in read_api_keys(self._path)
        }

    def _made(self, key: ApiKey, before: HeldKey | None) -> HeldKey:
        rate = self._rate if key.rate_per_minute is None else key.rate_per_minute
        window = None if rate is None else MovingWindow(rate)
        if window and before and before.window and before.window.per_minute == rate:
            window = before.window  # what was sent already counts on
        return HeldKey(key=key, digest=bytes.fromhex(key.sha256), window=window)


def shown_key(authorization: bytes | None, x_api_key: bytes | None) -> bytes | None:
    """Returns the text of the key that a request shows; None when it shows none.

    Args:
        authorization: The header `Authorization`, of which `Bearer KEY` counts; None when it did not come.
        x_api_key: The header `X-API-Key`, which counts before the other; None when it did not come.
    """
    if x_api_key is not None:
        return x_api_key
    bearer = _BEARER.fullmatch(authorization or b"")
    return bytes(bearer[1]) if bearer else None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes with a file; None when there is none, or it cannot be told."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
