"""Who may call: reads the file of API keys, and lets a request in or says why not.

The file alone decides, so that callers are known when database and registry are down. It is looked at again every few
seconds; one that went bad changes nothing, and is named until it is good again.
"""

import hashlib
import hmac
import logging
import re
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from release_platform.adapters.api_keys import read_api_keys
from release_platform.adapters.clock import SystemClock
from release_platform.domain.api_keys import KEY_PATTERN, ApiKey, KeyState, Scope
from release_platform.domain.errors import ReleaseError
from release_platform.domain.ports import Clock
from serving.errors import Forbidden, TooManyRequests, Unauthenticated

LOOK_EVERY_S = 5.0
_WINDOW_S = 60.0
_OPEN = frozenset({Scope.PREDICT, Scope.READ})
_KEY = re.compile(KEY_PATTERN.encode())
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]*)")
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([^ ]*)")
_NOBODY = bytes(32)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose key a request came with; logs may show all of it."""

    key_id: str
    name: str


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
class _Entry:
    key: ApiKey
    digest: bytes
    caller: Caller
    window: MovingWindow | None


class Access:
    """Decides which requests are let in. For one thread: the event loop's.

    Args:
        path: The file of API keys; None lets everybody predict and read, and nobody do more.
        rate_per_minute: Most requests per minute with a key that has no limit of its own; None for no limit.
        clock: The time by which keys expire.
        seconds: A clock that never goes back, for the rates and for when to look at the file.

    Raises:
        ValueError: The file is not there or no file of API keys, or there is a limit but no file.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        rate_per_minute: int | None = None,
        clock: Clock | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        if path is None and rate_per_minute is not None:
            raise ValueError("SERVING_RATE_LIMIT is per API key: it needs SERVING_API_KEYS, the file of the keys")
        self._path = path
        self._rate = rate_per_minute
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._entries: dict[bytes, _Entry] = {}
        self._problem = ""
        self._stamp = _stamp(path)
        self._looked = seconds()
        try:
            self._take()
        except ReleaseError as error:
            raise ValueError(f"SERVING_API_KEYS: {error.problem}; {error.remedy}") from None

    def announce(self) -> None:
        """Logs who may call, loudly when that is everybody; for the start, once logging is set up."""
        if self._path is None:
            _LOG.warning(
                "ANYBODY WHO REACHES THIS SERVER MAY PREDICT AND READ: set SERVING_API_KEYS to ask for API keys"
            )
        else:
            _LOG.info("callers must show one of the %d API keys of %s", len(self._entries), self._path)

    @property
    def required(self) -> bool:
        """Whether callers must show a key."""
        return self._path is not None

    @property
    def problem(self) -> str:
        """What is wrong with the file of keys now, so that the keys read before still count; empty when nothing is."""
        self._look()
        return self._problem

    def admit(self, authorization: bytes | None, x_api_key: bytes | None, scope: Scope) -> Caller | None:
        """Lets a request in, and returns whose it is; None where no key is asked for.

        Args:
            authorization: The header `Authorization`, of which `Bearer KEY` counts, and to read the password of
                `Basic`, which browsers ask for; None when it did not come.
            x_api_key: The header `X-API-Key`, which counts before the other; None when it did not come.
            scope: What the request asks for.

        Raises:
            Unauthenticated: There is no key, or it is not good; which of its faults it has is not told.
            Forbidden: The key is not for this scope; or no keys are asked for, and the scope is not for everybody.
            TooManyRequests: The key's limit is reached.
        """
        if self._path is None:
            if scope in _OPEN:
                return None
            raise Forbidden(f"'{scope}' needs an API key, and this server knows none: set SERVING_API_KEYS")
        self._look()
        entry = self._entry(_shown(authorization, x_api_key, scope))
        if scope not in entry.key.scopes:
            key_id = entry.caller.key_id
            raise Forbidden(f"API key {key_id} has no scope '{scope}'; ask for a key that has it", caller_id=key_id)
        if entry.window is not None and (wait := entry.window.wait_s(self._seconds())) > 0:
            raise TooManyRequests(
                f"API key {entry.caller.key_id} may send {entry.window.per_minute} requests per minute",
                retry_after_s=wait,
                caller_id=entry.caller.key_id,
            )
        return entry.caller

    def _entry(self, text: bytes) -> _Entry:
        found = _KEY.fullmatch(text)
        entry = self._entries.get(found[1]) if found else None
        # Compared even where no key has the id, so that the time does not tell which ids there are.
        equal = hmac.compare_digest(hashlib.sha256(text).digest(), entry.digest if entry else _NOBODY)
        if entry is None or not equal or entry.key.state(self._clock.now()) is not KeyState.ACTIVE:
            raise Unauthenticated("the API key is not valid: check that it is whole, or ask for a new one")
        return entry

    def _look(self) -> None:
        now = self._seconds()
        if self._path is None or now - self._looked < LOOK_EVERY_S:
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
            _LOG.info("read %d API keys", len(self._entries))

    def _take(self) -> None:
        if self._path is None:
            return
        before = self._entries
        self._entries = {
            key.key_id.encode(): self._made(key, before.get(key.key_id.encode())) for key in read_api_keys(self._path)
        }

    def _made(self, key: ApiKey, before: _Entry | None) -> _Entry:
        rate = self._rate if key.rate_per_minute is None else key.rate_per_minute
        window = None if rate is None else MovingWindow(rate)
        if window and before and before.window and before.window.per_minute == rate:
            window = before.window  # what was sent already counts on
        caller = Caller(key_id=key.key_id, name=key.name)
        return _Entry(key=key, digest=bytes.fromhex(key.sha256), caller=caller, window=window)


def _shown(authorization: bytes | None, x_api_key: bytes | None, scope: Scope) -> bytes:
    if x_api_key is not None:
        return x_api_key
    bearer = _BEARER.fullmatch(authorization or b"")
    if bearer is not None:
        return bytes(bearer[1])
    basic = _BASIC.fullmatch(authorization or b"") if scope is Scope.READ else None
    if basic is not None:  # to read only: a browser sends it unasked, whichever page makes it send a request
        with suppress(ValueError):
            return b64decode(basic[1], validate=True).partition(b":")[2]
    how = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    raise Unauthenticated(how, login=scope is Scope.READ)


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Returns what changes with a file; None when there is none, or it cannot be told."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None
