"""Who may call: every request goes through here before it is routed, so no route can forget to ask."""

import base64
import binascii
import logging
from collections.abc import Callable
from time import monotonic

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from release_platform.adapters.key_ring import KeyRing, shown_key
from release_platform.adapters.swagger_page import FILES
from release_platform.api.problems import Denied
from release_platform.domain.api_keys import ApiKey, Scope, without_keys

WHOAMI = "/v1/whoami"
_OPEN = frozenset({"/livez", "/docs", "/openapi.json"})
_READERS = frozenset({Scope.READ, Scope.OPERATOR})
_LOG = logging.getLogger(__name__)


def needed(method: str, path: str) -> frozenset[Scope] | None:
    """Returns the scopes of which a key needs one; None when anybody may ask.

    What is not named here needs a key too, whether there is such a path or not, and one of the scope `operator` unless
    it only reads.
    """
    if method in {"GET", "HEAD"} and (path in _OPEN or path.startswith(f"{FILES}/")):
        return None
    if path == WHOAMI:
        return frozenset(Scope)
    return _READERS if method in {"GET", "HEAD"} else frozenset({Scope.OPERATOR})


class Door:
    """An ASGI application that lets in who shows a key for what is asked; the key is then `state.key` of the request.

    Args:
        app: What is behind.
        ring: The keys.
        seconds: A clock that never goes back, for the rates.
    """

    def __init__(self, app: ASGIApp, *, ring: KeyRing, seconds: Callable[[], float] = monotonic) -> None:
        self._app = app
        self._ring = ring
        self._seconds = seconds

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        if scope["type"] == "http":
            path: str = scope["path"]
            try:
                self._let_in(scope, path)
            except Denied as denied:
                await denied.response(path, basic=path == WHOAMI)(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            return  # there is nothing but HTTP here
        await self._app(scope, receive, send)

    def _let_in(self, scope: Connection, path: str) -> None:
        wanted = needed(scope["method"], path)
        if wanted is None:
            return
        key = self._shown(scope, basic=path == WHOAMI)
        if not wanted & set(key.scopes):
            named = " or ".join(sorted(wanted))
            raise Denied(
                403,
                f"API key {key.key_id} has no scope {named}",
                remedy="ask for a key that has it: `release api-key create NAME --scope operator`",
            )
        scope.setdefault("state", {})["key"] = key
        if scope["method"] not in {"GET", "HEAD"}:
            _LOG.info("%s (key %s): %s %s", key.name, key.key_id, scope["method"], without_keys(path))

    def _shown(self, scope: Connection, *, basic: bool) -> ApiKey:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        text = shown_key(authorization, headers.get(b"x-api-key"))
        if text is None and basic:
            text = _password(authorization)
        if text is None:
            raise Denied(
                401, "no API key was sent", remedy="send one, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        held = self._ring.find(text)
        if held is None:
            raise Denied(401, "the API key is not valid", remedy="check that it is whole, or ask for a new one")
        if held.window is not None and (wait := held.window.wait_s(self._seconds())) > 0:
            said = f"API key {held.key.key_id} may send {held.window.per_minute} requests per minute"
            raise Denied(429, said, remedy="come again later", retry_after_s=wait)
        return held.key


def _password(authorization: bytes | None) -> bytes | None:
    """Returns the password of a basic login, whatever name it is for; None when there is none."""
    kind, _, value = (authorization or b"").partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return None
