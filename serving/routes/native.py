"""The platform's own protocol: `/v1/models`."""

from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from release_platform.domain.metrics import Task
from serving.bodies import read_json_body
from serving.edge import mark_served
from serving.engine import Engine
from serving.inputs import read_columns
from serving.models import Live, LoadedModel
from serving.schemas import PREDICT_BODY, Answer, ModelDescription, ModelList, answers
from serving.settings import Settings

VERSION_HEADER = "X-Model-Version"
DIGEST_HEADER = "X-Model-Digest"
EPOCH_HEADER = "X-Model-Epoch"


def build_native_routes(*, live: Live, engine: Engine, settings: Settings) -> APIRouter:
    """Returns the routes under `/v1/models`."""
    router = APIRouter(prefix="/v1/models", tags=["models"])

    @router.get("", summary="Models that answer", responses=answers(ModelList))
    async def list_models() -> Response:
        table = live.table
        return _json({"models": [_summary(table.loaded[name]) for name in sorted(table.loaded)]})

    @router.get(
        "/{model}",
        summary="What a model is and takes",
        responses=answers(ModelDescription, 404, 422, 503),
    )
    async def describe_model(model: str) -> Response:
        loaded = live.table.get_model(model)
        return _json(_description(loaded), loaded)

    @router.post(
        "/{model}/predict",
        summary="Predict rows",
        openapi_extra={"requestBody": PREDICT_BODY},
        responses=answers(Answer, 400, 404, 408, 413, 415, 422, 500, 503),
    )
    async def predict(model: str, request: Request) -> Response:
        loaded = live.table.get_model(model)
        mark_served(request.scope, loaded)
        body = await read_json_body(request, max_bytes=settings.max_body_bytes, within_s=settings.body_timeout_s)
        answer = await engine.run(partial(_answer, engine, loaded, body, settings.max_rows))
        return Response(answer, media_type="application/json", headers=_named(loaded))

    return router


def _answer(engine: Engine, loaded: LoadedModel, body: bytes, max_rows: int) -> bytes:
    columns = read_columns(body, loaded.package.plan, max_rows=max_rows)
    predictions = engine.predict(loaded, columns).to_json()
    if loaded.package.task is not Task.REGRESSION:
        predictions["classes"] = list(loaded.package.classes)
    named = {
        "model": loaded.model,
        "version": loaded.version,
        "digest": loaded.digest,
        "epoch": loaded.epoch,
        "engine": loaded.package.engine_name,
    }
    return orjson.dumps(named | predictions)


def _summary(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "model": loaded.model,
        "version": loaded.version,
        "digest": loaded.digest,
        "epoch": loaded.epoch,
        "since": loaded.since.isoformat(timespec="milliseconds"),
    }


def summary_response(loaded: LoadedModel) -> Response:
    """Returns the answer that says which version of a model is live."""
    return _json(_summary(loaded), loaded)


def _description(loaded: LoadedModel) -> dict[str, Any]:
    package = loaded.package
    return _summary(loaded) | {
        "task": package.task.value,
        "engine": package.engine_name,
        "classes": list(package.classes) if package.task is not Task.REGRESSION else None,
        "inputs": package.plan.to_json()["inputs"],
        "example": {"rows": [loaded.example]},
    }


def _named(loaded: LoadedModel) -> dict[str, str]:
    return {VERSION_HEADER: loaded.version, DIGEST_HEADER: loaded.digest, EPOCH_HEADER: str(loaded.epoch)}


def _json(value: Any, loaded: LoadedModel | None = None) -> Response:
    headers = _named(loaded) if loaded is not None else None
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)
