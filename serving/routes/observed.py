"""Where a collector fetches what routed requests came to, and a sample of them, of every worker behind this port."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from serving.observations import Observations
from serving.samples import Page, Samples
from serving.schemas import ObservedSamples, ObservedWindows, answers
from serving.siblings import Siblings

WINDOWS = "windows"
SAMPLES = "samples"
_PROBLEMS = (401, 403, 422, 429)

_After = Annotated[int, Query(ge=-1, le=2**53, description="Minutes since 1970; later ones are told.")]


def build_observed_routes(*, observations: Observations, samples: Samples, siblings: Siblings) -> APIRouter:
    """Returns `/v1/windows` and `/admin/samples`."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/v1/windows",
        summary="What each version did on its route in each closed minute",
        responses=answers(ObservedWindows, *_PROBLEMS),
    )
    async def windows(after: _After = -1) -> Response:
        own = observations.closed_after(after)
        others, n_silent = await siblings.ask_all({"what": WINDOWS, "after": after})
        replicas: list[dict[str, Any]] = [own, *others]
        closed = min(replica["closed"] for replica in replicas)
        return _answer({"closed": closed, "silent": n_silent, "replicas": replicas})

    @router.get(
        "/admin/samples",
        summary="A sample of the requests that were answered, with their rows",
        responses=answers(ObservedSamples, *_PROBLEMS),
    )
    async def sampled(after: _After = -1) -> Response:
        own = samples.closed_after(after)
        others, n_silent = await siblings.ask_all({"what": SAMPLES, "after": after}, read=Page.from_bytes)
        pages = [own, *others]
        closed, more = min(page.closed for page in pages), any(page.more for page in pages)
        replicas = [orjson.Fragment(page.body) for page in pages]
        return _answer({"closed": closed, "more": more, "silent": n_silent, "replicas": replicas})

    return router


def _answer(told: dict[str, Any]) -> Response:
    return Response(orjson.dumps(told), media_type="application/json")
