"""Puts the operators' API together. Importing this starts nothing."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import release_platform
from release_platform.adapters.key_ring import KeyRing
from release_platform.adapters.swagger_page import add_swagger_page
from release_platform.api.door import Door
from release_platform.api.problems import Denied, problem, problem_of
from release_platform.api.routes import build_routes
from release_platform.domain.errors import ReleaseError
from release_platform.project import Project, read_projects
from release_platform.services import Services

MAX_BODY_BYTES = 65_536
DESCRIPTION = """Requests, approves, cancels and rolls back promotions, drills rollbacks, and tells what was.

Every call shows an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Whoever writes needs the scope
`operator`, and the name of the key is the name in the ledger. `release promote` and its like use this API when
RELEASE_API_URL is set."""


class Application(FastAPI):
    """A FastAPI application behind its door."""

    door: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        await self.door(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what the door lets in, as FastAPI does."""
        await super().__call__(scope, receive, send)


def create_app(services: Services, ring: KeyRing) -> FastAPI:
    """Returns the application.

    Args:
        services: The platform's services.
        ring: The keys that callers may show.
    """
    folders = (Path(release_platform.__file__).parent / "examples", services.settings.models.resolve())

    def projects() -> Mapping[str, Project]:
        return read_projects(*folders)[0]

    app = Application(
        title="Model releases",
        description=DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        max_body_size=MAX_BODY_BYTES,
    )
    app.door = Door(app.answer, ring=ring)

    @app.get("/livez", summary="Whether the process answers", tags=["operations"])
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    add_swagger_page(app)
    app.include_router(build_routes(services, projects))
    app.add_exception_handler(ReleaseError, _answer_release)
    app.add_exception_handler(Denied, _answer_denied)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    return app


async def _answer_release(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReleaseError)
    return problem_of(error, request.url.path)


async def _answer_denied(request: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    return error.response(request.url.path, basic=False)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said, path = f"{request.method} {request.url.path}: {error.detail}", request.url.path
    headers = dict(error.headers or {})
    return problem(
        error.status_code, "http-error", str(error.detail), said, path, "`/docs` lists what there is", headers
    )


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Not pydantic's own text: it repeats what was sent, which may be a key.
    found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    title = "A value is not what is taken"
    return problem(422, "invalid-input", title, "; ".join(found), request.url.path, "`/docs` shows what is taken")
