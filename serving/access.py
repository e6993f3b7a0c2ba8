"""Who may call: lets a request in, or says why not."""

import logging
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from release_platform.adapters.key_ring import KeyRing, shown_key
from release_platform.domain.api_keys import Scope
from release_platform.domain.errors import ReleaseError
from release_platform.domain.ports import Clock
from serving.errors import Forbidden, TooManyRequests, Unauthenticated

_OPEN = frozenset({Scope.PREDICT, Scope.READ})
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([^ ]*)")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose key a request came with; logs may show all of it."""

    key_id: str
    name: str


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
        self._seconds = seconds
        self._ring: KeyRing | None = None
        try:
            if path is not None:
                self._ring = KeyRing(path, rate_per_minute=rate_per_minute, clock=clock, seconds=seconds)
        except ReleaseError as error:
            raise ValueError(f"SERVING_API_KEYS: {error.problem}; {error.remedy}") from None

    def announce(self) -> None:
        """Logs who may call, loudly when that is everybody; for the start, once logging is set up."""
        if self._ring is None:
            _LOG.warning(
                "ANYBODY WHO REACHES THIS SERVER MAY PREDICT AND READ: set SERVING_API_KEYS to ask for API keys"
            )
        else:
            _LOG.info("callers must show one of the %d API keys of %s", len(self._ring), self._path)

    @property
    def required(self) -> bool:
        """Whether callers must show a key."""
        return self._ring is not None

    @property
    def problem(self) -> str:
        """What is wrong with the file of keys now, so that the keys read before still count; empty when nothing is."""
        return "" if self._ring is None else self._ring.problem

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
        if self._ring is None:
            if scope in _OPEN:
                return None
            raise Forbidden(f"'{scope}' needs an API key, and this server knows none: set SERVING_API_KEYS")
        text = shown_key(authorization, x_api_key)
        if text is None and scope is Scope.READ:
            text = _password(authorization)
        if text is None:
            how = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise Unauthenticated(how, login=scope is Scope.READ)
        held = self._ring.find(text)
        if held is None:
            raise Unauthenticated("the API key is not valid: check that it is whole, or ask for a new one")
        caller = Caller(key_id=held.key.key_id, name=held.key.name)
        if scope not in held.key.scopes:
            detail = f"API key {caller.key_id} has no scope '{scope}'; ask for a key that has it"
            raise Forbidden(detail, caller_id=caller.key_id)
        if held.window is not None and (wait := held.window.wait_s(self._seconds())) > 0:
            raise TooManyRequests(
                f"API key {caller.key_id} may send {held.window.per_minute} requests per minute",
                retry_after_s=wait,
                caller_id=caller.key_id,
            )
        return caller


def _password(authorization: bytes | None) -> bytes | None:
    """Returns the password of HTTP's own login: a browser sends it unasked, so it counts for what reads only."""
    basic = _BASIC.fullmatch(authorization or b"")
    if basic is None:
        return None
    try:
        return b64decode(basic[1], validate=True).partition(b":")[2]
    except ValueError:
        return None
