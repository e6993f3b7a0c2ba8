"""What operators and probes ask: is it alive, is it ready, what does it serve, how does it do."""

from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from release_platform.domain.windows import Route
from serving.access import Access
from serving.metrics import Metrics
from serving.models import BESIDE, Beside, Live, Refusal, RouteTable
from serving.siblings import Siblings

WORKER = "worker"
"""What another worker is asked for its name."""


def build_health_routes(
    *,
    live: Live,
    metrics: Metrics,
    access: Access,
    configured: tuple[str, ...],
    started_at: datetime,
    siblings: Siblings,
) -> APIRouter:
    """Returns `/livez`, `/readyz`, `/status` and `/metrics`.

    Args:
        live: What is served.
        metrics: What is counted.
        access: Who may call.
        configured: The models that the server was told to serve; empty for all in Production.
        started_at: When the server was made, in UTC.
        siblings: The workers of this server, by the names with which the ids of their predictions begin.
    """
    router = APIRouter(tags=["operations"])

    @router.head("/livez", include_in_schema=False)
    @router.get("/livez", summary="The process runs")
    async def livez() -> Response:
        return _json({"alive": True})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", summary="Requests can be answered", responses={503: {"description": "No; with reasons."}})
    async def readyz() -> Response:
        reasons = not_ready(live.table, configured=configured, draining=live.draining)
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    @router.get("/status", summary="What is served, since when, and what was refused")
    async def status() -> Response:
        server = {"started_at": _moment(started_at), "draining": live.draining, "configured": list(configured)}
        keys = {"required": access.required, "problem": access.problem or None}
        others, n_silent = await siblings.ask_all({"what": WORKER})
        workers = {"worker": siblings.origin, "workers": sorted([siblings.origin, *others]), "silent": n_silent}
        return _json({"server": server | workers | {"api_keys": keys}} | describe(live.table))

    @router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def exposition() -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router


def not_ready(table: RouteTable, *, configured: tuple[str, ...], draining: bool) -> list[str]:
    """Returns why no traffic should come; empty when it should.

    Ready is: not draining, and a verified version is loaded of every configured model, or of at least one where none
    is configured.
    """
    reasons = ["the server is about to stop"] if draining else []
    for model in configured:
        if model not in table.loaded:
            known = table.refusals.get(model)
            reasons.append(known.reason if known else f"no version of '{model}' is loaded yet")
    if not configured and not table.loaded:
        reasons.append("no model is loaded; promote a version, or see `/status` for what was refused")
    return reasons


def describe(table: RouteTable) -> dict[str, Any]:
    """Returns the route table as `/status` shows it."""
    contact = table.contact
    return {
        "registry": {
            "reachable": contact.reachable,
            "last_success": _moment(contact.last_success),
            "problem": contact.problem,
        },
        "models": {name: _model(table, name) for name in table.names},
    }


def _model(table: RouteTable, name: str) -> dict[str, Any]:
    loaded, standby, refusal = table.loaded.get(name), table.standby.get(name), table.refusals.get(name)
    return {
        "version": loaded.version if loaded else None,
        "digest": loaded.digest if loaded else None,
        "epoch": loaded.epoch if loaded else None,
        "engine": loaded.package.engine_name if loaded else None,
        "since": _moment(loaded.since if loaded else None),
        "origin": loaded.origin.value if loaded else None,
        "standby": standby.version if standby else None,
        "refusal": _refusal(refusal),
        "routes": _routes(table, name),
    }


def _routes(table: RouteTable, name: str) -> dict[str, Any]:
    """Returns who is asked, and with which share of the requests; a shadow is asked as well, not instead."""
    loaded, canary = table.loaded.get(name), table.canary.get(name)
    routes: dict[str, Any] = {
        Route.STABLE.value: None
        if loaded is None
        else {"version": loaded.version, "weight": 1.0 - (0.0 if canary is None else canary.weight)}
    }
    for route in BESIDE:
        beside, refusal = table.beside(route).get(name), table.refusals_beside.get((name, route))
        if beside is not None or refusal is not None:
            routes[route.value] = _beside(beside) | {"refusal": _refusal(refusal)}
    return routes


def _beside(beside: Beside | None) -> dict[str, Any]:
    loaded = None if beside is None else beside.loaded
    return {
        "version": loaded.version if loaded else None,
        "weight": beside.weight if beside else 0.0,
        "digest": loaded.digest if loaded else None,
        "epoch": loaded.epoch if loaded else None,
        "engine": loaded.package.engine_name if loaded else None,
        "since": _moment(loaded.since if loaded else None),
    }


def _refusal(refusal: Refusal | None) -> dict[str, Any] | None:
    if refusal is None:
        return None
    return {
        "version": refusal.version,
        "kind": refusal.kind,
        "reason": refusal.reason,
        "since": _moment(refusal.at),
        "n_attempts": refusal.n_attempts,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
