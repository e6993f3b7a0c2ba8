"""What operators may do to a server; never without an API key of the scope `admin`."""

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from serving.models import Live
from serving.routes.health import describe
from serving.schemas import answers
from serving.watch import Watcher


def build_admin_routes(*, watcher: Watcher, live: Live) -> APIRouter:
    """Returns the routes under `/admin`."""
    router = APIRouter(prefix="/admin", tags=["operations"])

    @router.post("/refresh", summary="Look at the registry now", responses=answers(None, 401, 403, 429))
    async def refresh() -> Response:
        await watcher.refresh(at_once=True)
        described: dict[str, Any] = describe(live.table)
        return Response(orjson.dumps(described), media_type="application/json")

    return router
