"""The outermost layer: gives each request its id, answers predictions, counts, tells of what nobody foresaw."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from release_platform.domain.api_keys import without_keys
from serving.access import Access
from serving.answering import Answering, Call, new_id
from serving.doors import Head, Headers, Sent
from serving.errors import Problem, Stopping, problem_response, unforeseen
from serving.logs import on_one_line
from serving.metrics import Metrics
from serving.permissions import PROBES, needed
from serving.predicting import Directory, Found, PredictRoute, respond, respond_soon, told
from serving.requests import mark_served
from serving.tracing import Tracing

_BEGUN = "call"
_LONGEST_PATH = 200
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """A request that is passed on, while it is here."""

    method: str
    path: str
    head: Head
    request_id: str
    begun: float


class Edge:
    """An ASGI application around another.

    Args:
        app: The application that answers what is no prediction.
        answering: What answers predictions.
        access: Who may call.
        metrics: What is told of each request.
        routes: The routes that predict.
        fast: Whether they are answered here; otherwise they go through `app`, to the same end.
        logs: Whether each request is logged, not only those that the server failed.
        tracing: What makes spans of requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        answering: Answering,
        access: Access,
        metrics: Metrics,
        routes: Sequence[PredictRoute],
        fast: bool = True,
        logs: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._answering = answering
        self._access = access
        self._metrics = metrics
        directory = Directory(routes)
        self._find, self._find_url = directory.find, directory.find_url
        self._fast = fast
        self._logs = logs
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = self._find(scope["path"]) if scope["method"] == "POST" else None
        if found is not None and self._fast:
            call = scope.get("state", {}).get(_BEGUN) or _call(found, scope["path"], scope["headers"])
            await self._predict(call, receive, send)
        else:
            head = dict(scope["headers"])
            visit = _Visit(scope["method"], scope["path"], head, _request_id(head), perf_counter())
            await self._pass_on(visit, scope, receive, send, predicts=found is not None)

    def soon(
        self, url: bytes, headers: Headers, body: bytes, state: dict[str, Any], deliver: Callable[[Sent], None]
    ) -> bool:
        """Answers a request to predict, for a server that has read it whole and would otherwise have to make a task.

        Args:
            url: What the request names: path and query.
            headers: Its headers, lower-case names.
            body: All of its body.
            state: The ASGI state of the request; where it was begun here, it goes on from there.
            deliver: Is given the answer, before this turn of the event loop ends.

        Returns:
            Whether it is; False where it takes longer, or this is no such request: it is then to be passed to
            `__call__`.
        """
        if not self._fast or self._tracing is not None or len(body) > self._answering.inline_bytes:
            return False
        found = self._find_url(url)
        if found is None:
            return False
        call = _call(found, url.decode("ascii"), headers)
        is_taken = respond_soon(self._answering, call, body, lambda sent: deliver(self._done(call, sent)))
        if not is_taken:
            state[_BEGUN] = call
        return is_taken

    def settle(self) -> None:
        """Delivers all answers that `soon` promised."""
        self._answering.settle()

    async def _predict(self, call: Call, receive: Receive, send: Send) -> None:
        try:
            sent = await respond(self._answering, call, receive)
        except asyncio.CancelledError:  # uvicorn's last resort when the time to stop is over
            sent = told(_stopping(), call)
        self._done(call, sent)
        await send({"type": "http.response.start", "status": sent.status, "headers": sent.headers})
        await send({"type": "http.response.body", "body": sent.body})

    def _done(self, call: Call, sent: Sent) -> Sent:
        served = ("", "") if call.served is None else (call.served.model, call.served.version)
        self._count(call, call.route, served, sent.status, call.problem, call.caller_id)
        sent.headers.append((b"x-request-id", call.request_id.encode()))
        return sent

    async def _pass_on(self, visit: _Visit, scope: Scope, receive: Receive, send: Send, *, predicts: bool) -> None:
        state = scope.setdefault("state", {})
        state["request_id"] = visit.request_id
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = visit.request_id
                route: Any = scope.get("route")
                served, problem = state.get("served", ("", "")), state.get("problem", "")
                caller = state.get("caller", "")
                self._count(visit, getattr(route, "path", ""), served, message["status"], problem, caller)
            await send(message)

        try:
            if not predicts:
                self._admit(visit, scope)
            if visit.path.endswith("\n"):  # Starlette's patterns end in `$`, which matches before one last newline
                scope["path"] += "\n"
            await self._app(scope, receive, send_marked)
        except Problem as refused:
            problem = refused
            mark_served(scope, None, problem.slug, problem.caller_id)
        except asyncio.CancelledError:
            if started:
                raise
            problem = _stopping()
        except Exception:
            problem = unforeseen(visit.request_id)
            if started:
                raise
        else:
            return
        answer = problem_response(problem, instance=visit.path, request_id=visit.request_id)
        await answer(scope, receive, send_marked)

    def _admit(self, visit: _Visit, scope: Scope) -> None:
        wanted = needed(scope["method"], visit.path)
        if wanted is not None:
            head = visit.head
            caller = self._access.admit(head.get(b"authorization"), head.get(b"x-api-key"), wanted)
            mark_served(scope, None, caller_id="" if caller is None else caller.key_id)

    def _count(
        self, visit: Call | _Visit, route: str, served: tuple[str, str], status: int, problem: str, caller: str
    ) -> None:
        model, version = served
        seconds = perf_counter() - visit.begun
        self._metrics.request_answered(route=route, model=model, version=version, status=status, seconds=seconds)
        if problem:
            self._metrics.problem_told(model, problem)
        failed = status >= 500 and visit.path not in PROBES
        if self._logs or failed or self._tracing is not None:
            known = {"route": route, "model": model, "version": version, "problem": problem, "caller": caller}
            self._tell(visit, status, seconds, {name: value for name, value in known.items() if value})

    def _tell(self, visit: Call | _Visit, status: int, seconds: float, known: dict[str, Any]) -> None:
        noted: dict[str, Any] = {"request_id": visit.request_id, "method": visit.method}
        path = without_keys(visit.path)[:_LONGEST_PATH]
        noted |= {"path": path, "status": status, "ms": round(seconds * 1000, 3), **known}
        if self._tracing is not None:
            self._tracing.note(noted)
        if self._logs or status >= 500:
            level = logging.INFO if status < 500 else logging.WARNING if status == 503 else logging.ERROR
            trace = visit.head.get(b"traceparent")
            if trace is not None:
                noted["traceparent"] = trace[:55].decode("latin-1")
            text = ("%s: %s answered %d in %.1f ms", visit.request_id, on_one_line(path), status, seconds * 1000)
            _LOG.log(level, *text, extra=noted)


def _call(found: Found, path: str, headers: Headers) -> Call:
    route, model, version = found
    head = dict(headers)
    return Call(
        door=route.door,
        route=route.template,
        path=path,
        model=model,
        version=version,
        head=head,
        request_id=_request_id(head),
        begun=perf_counter(),
    )


def _stopping() -> Problem:
    return Stopping("the server is stopping; send the request again")


def _request_id(head: Head) -> str:
    given = head.get(b"x-request-id")
    return given.decode() if given is not None and _SANE_ID.fullmatch(given) else new_id()
