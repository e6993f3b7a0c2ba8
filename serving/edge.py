"""The outermost layer: gives each request its id, counts it, and turns what nobody foresaw into a problem document."""

import asyncio
import logging
import re
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Problem, Stopping, problem_response
from serving.metrics import Metrics
from serving.models import LoadedModel

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LOG = logging.getLogger(__name__)


def request_id_of(scope: Scope) -> str:
    """Returns the id of a request that went through `Edge`."""
    return str(scope["state"]["request_id"])


def mark_served(scope: Scope, loaded: LoadedModel) -> None:
    """Notes which version a request is answered from, for the metrics."""
    scope["state"]["served"] = (loaded.model, loaded.version)


class Edge:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(Headers(scope=scope).get(REQUEST_ID))
        begun, started = perf_counter(), False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = state["request_id"]
                self._count(scope, message["status"], perf_counter() - begun)
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:  # uvicorn's last resort when the time to stop is over
            if started:
                raise
            problem: Problem = Stopping("the server is stopping; send the request again")
        except Exception:
            _LOG.exception("request %s failed in an unforeseen way", state["request_id"])
            if started:
                raise
            problem = Problem(f"the server failed; its log has the cause under request id {state['request_id']}")
        else:
            return
        answer = problem_response(problem, instance=scope["path"], request_id=state["request_id"])
        await answer(scope, receive, send_marked)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        model, version = scope["state"].get("served", ("", ""))
        route: Any = scope.get("route")
        path = getattr(route, "path", "")
        self._metrics.request_answered(route=path, model=model, version=version, status=status, seconds=seconds)


def _request_id(given: str | None) -> str:
    return given if given is not None and _SANE_ID.fullmatch(given) else uuid4().hex
