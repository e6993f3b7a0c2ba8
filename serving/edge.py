"""The outermost layer: gives each request its id, answers predictions, counts, tells of what nobody foresaw."""

import asyncio
import logging
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answering import Answering, Call, new_id
from serving.doors import Head
from serving.errors import Problem, Stopping, problem_response
from serving.metrics import Metrics
from serving.predicting import Directory, Found, PredictRoute, Sent, respond, told

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LOG = logging.getLogger(__name__)


class Edge:
    """An ASGI application around another.

    Args:
        app: The application that answers what is no prediction.
        answering: What answers predictions.
        metrics: What is told of each request.
        routes: The routes that predict; those that are not here go through `app`, to the same end.
        logs: Whether each request is logged, not only those that failed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        answering: Answering,
        metrics: Metrics,
        routes: Sequence[PredictRoute],
        logs: bool = False,
    ) -> None:
        self._app = app
        self._answering = answering
        self._metrics = metrics
        self._find = Directory(routes).find
        self._logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = perf_counter()
        head = Head(scope["headers"])
        request_id = _request_id(head)
        found = self._find(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._pass_on(scope, receive, send, request_id, begun)
        else:
            await self._predict(found, scope, head, receive, send, request_id, begun)

    async def _predict(
        self, found: Found, scope: Scope, head: Head, receive: Receive, send: Send, request_id: str, begun: float
    ) -> None:
        route, model, version = found
        call = Call(
            door=route.door,
            route=route.template,
            model=model,
            version=version,
            head=head,
            receive=receive,
            request_id=request_id,
        )
        try:
            sent = await respond(self._answering, call, scope["path"])
        except asyncio.CancelledError:  # uvicorn's last resort when the time to stop is over
            sent = told(_stopping(), call, scope["path"])
        except Exception:  # noqa: BLE001 - it is logged, and the client is told
            sent = told(_unforeseen(request_id), call, scope["path"])
        served = call.served
        names = ("", "") if served is None else (served.model, served.version)
        self._count(route.template, names, sent.status, call.problem, request_id, begun)
        await _send(sent, request_id, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, request_id: str, begun: float) -> None:
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
                route: Any = scope.get("route")
                served, problem = state.get("served", ("", "")), state.get("problem", "")
                self._count(getattr(route, "path", ""), served, message["status"], problem, request_id, begun)
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:
            if started:
                raise
            problem: Problem = _stopping()
        except Exception:
            problem = _unforeseen(request_id)
            if started:
                raise
        else:
            return
        answer = problem_response(problem, instance=scope["path"], request_id=request_id)
        await answer(scope, receive, send_marked)

    def _count(
        self, route: str, served: tuple[str, str], status: int, problem: str, request_id: str, begun: float
    ) -> None:
        model, version = served
        seconds = perf_counter() - begun
        self._metrics.request_answered(route=route, model=model, version=version, status=status, seconds=seconds)
        if problem:
            self._metrics.problem_told(model, problem)
        if self._logs or status >= 500:
            noted = {"request_id": request_id, "route": route, "status": status, "ms": round(seconds * 1000, 3)}
            about = {"model": model, "version": version, "problem": problem}
            _LOG.info("answered", extra=noted | {name: value for name, value in about.items() if value})


async def _send(sent: Sent, request_id: str, send: Send) -> None:
    headers = [*sent.headers, (b"x-request-id", request_id.encode())]
    await send({"type": "http.response.start", "status": sent.status, "headers": headers})
    await send({"type": "http.response.body", "body": sent.body})


def _stopping() -> Problem:
    return Stopping("the server is stopping; send the request again")


def _unforeseen(request_id: str) -> Problem:
    _LOG.exception("request %s failed in an unforeseen way", request_id)
    return Problem(f"the server failed; its log has the cause under request id {request_id}")


def _request_id(head: Head) -> str:
    given = head.get(b"x-request-id")
    return given.decode() if given is not None and _SANE_ID.fullmatch(given) else new_id()
