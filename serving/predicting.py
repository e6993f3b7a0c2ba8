"""The routes that predict: each is declared in FastAPI, and answered by the edge without FastAPI's detour.

Both ways end in `respond`, so they give the same answer to the same bytes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from time import perf_counter
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from serving.answering import Answering, Call
from serving.doors import Door, Sent
from serving.errors import Problem, problem_response, unforeseen
from serving.observations import error_kind
from serving.requests import mark_served, request_id_of

_TAKEN_APART = frozenset(b"%?#")
_N_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256

Found = tuple["PredictRoute", str, str | None]


@dataclass(frozen=True, kw_only=True)
class PredictRoute:
    """A route that predicts.

    Attributes:
        template: Its path; `{model}` and `{version}` stand for what a client names.
        door: The protocol that it speaks.
        summary: What it does, for the documentation.
        body: The OpenAPI description of its body.
        responses: That of its answers.
        tag: Where the documentation lists it.
    """

    template: str
    door: Door
    summary: str
    body: Mapping[str, Any]
    responses: dict[int | str, dict[str, Any]]
    tag: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a client names in the path."""
        return tuple(re.findall(r"{(\w+)}", self.template))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the paths of this route."""
        return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.template))


class Directory:
    """Finds the route of a path. It remembers what it found of short ones; any client may send many long ones."""

    def __init__(self, routes: Sequence[PredictRoute]) -> None:
        self._routes = routes
        self._remember = lru_cache(maxsize=_N_REMEMBERED)(self._find)
        self._remember_url = lru_cache(maxsize=_N_REMEMBERED)(self._find_url)

    def find(self, path: str) -> Found | None:
        """Finds the route of a path."""
        return self._remember(path) if len(path) <= _LONGEST_REMEMBERED else self._find(path)

    def find_url(self, url: bytes) -> Found | None:
        """Finds the route of a path as it stands in a request; None for one that would have to be taken apart first."""
        return self._remember_url(url) if len(url) <= _LONGEST_REMEMBERED else self._find_url(url)

    def _find(self, path: str) -> Found | None:
        for route in self._routes:
            found = route.pattern.fullmatch(path)
            if found is not None:
                named = found.groupdict()
                return route, named.get("model", ""), named.get("version")
        return None

    def _find_url(self, url: bytes) -> Found | None:
        return None if set(url) & _TAKEN_APART or not url.isascii() else self.find(url.decode("ascii"))


async def respond(answering: Answering, call: Call, receive: Receive) -> Sent:
    """Returns what goes out to a call: the answer, or the problem in the words of its protocol."""
    try:
        sent = await answering.answer(call, receive)
    except Exception as error:  # noqa: BLE001 - it is logged, and the client is told
        sent = told(error, call)
    answering.finished(call)
    return sent


def respond_soon(answering: Answering, call: Call, body: bytes, deliver: Callable[[Sent], None]) -> bool:
    """Delivers the same within this turn of the event loop, or returns False: `respond` then goes on from there."""

    def write(answer: Sent | Exception) -> None:
        deliver(told(answer, call) if isinstance(answer, Exception) else answer)
        answering.finished(call)

    try:
        answering.begin(call)
        return answering.soon(call, body, write)
    except Exception as error:  # noqa: BLE001 - it is logged, and the client is told
        write(error)
        return True


def told(error: Exception, call: Call) -> Sent:
    """Returns a problem as it goes out to a call."""
    problem = error if isinstance(error, Problem) else unforeseen(call.request_id)
    call.problem, call.error = problem.slug, error_kind(problem) or call.error
    call.caller_id = call.caller_id or problem.caller_id
    more = call.door.complain(problem)
    response = problem_response(problem, instance=call.path, request_id=call.request_id, more=more)
    return Sent(response.status_code, [*response.raw_headers, *call.names], bytes(response.body))


def build_predict_routes(routes: Sequence[PredictRoute], *, answering: Answering) -> APIRouter:
    """Returns the routes as FastAPI declares them."""
    router = APIRouter()
    for route in routes:
        router.add_api_route(
            route.template,
            _endpoint(route, answering),
            methods=["POST"],
            summary=route.summary,
            tags=[route.tag],
            operation_id=re.sub(r"\W+", "_", route.template).strip("_"),
            responses=route.responses,
            openapi_extra={"requestBody": dict(route.body), "parameters": [_parameter(name) for name in route.names]},
        )
    return router


def _endpoint(route: PredictRoute, answering: Answering) -> Any:
    async def predict(request: Request) -> Response:
        call = Call(
            door=route.door,
            route=route.template,
            path=request.scope["path"],
            model=request.path_params.get("model", ""),
            version=request.path_params.get("version"),
            head=dict(request.scope["headers"]),
            request_id=request_id_of(request.scope),
            begun=perf_counter(),
        )
        sent = await respond(answering, call, request.receive)
        mark_served(request.scope, call.served, call.problem, call.caller_id)
        response = Response(sent.body, sent.status)
        response.raw_headers = sent.headers
        return response

    return predict


def _parameter(name: str) -> dict[str, Any]:
    described = {
        "model": "Name of the model; `GET /v1/models` lists them.",
        "version": "Number of the version: the live one, or the one that was in Production before it.",
    }
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": described[name],
        "schema": {"type": "string"},
    }
