"""Where a collector fetches what routed requests came to, of every worker behind this port."""

from typing import Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from serving.observations import Observations
from serving.schemas import ObservedWindows, answers
from serving.siblings import Siblings

WINDOWS = "windows"


def build_observed_routes(*, observations: Observations, siblings: Siblings) -> APIRouter:
    """Returns `/admin/windows`."""
    router = APIRouter(prefix="/admin", tags=["operations"])

    @router.get(
        "/windows",
        summary="What each version did on its route in each closed minute",
        responses=answers(ObservedWindows, 401, 403, 422, 429),
    )
    async def windows(
        after: int = Query(-1, ge=-1, le=2**53, description="Minutes since 1970; later ones are told."),
    ) -> Response:
        others, n_silent = await siblings.ask_all({"what": WINDOWS, "after": after})
        replicas: list[dict[str, Any]] = [observations.closed_after(after), *others]
        closed = min(replica["closed"] for replica in replicas)
        told = {"closed": closed, "silent": n_silent, "replicas": replicas}
        return Response(orjson.dumps(told), media_type="application/json")

    return router
