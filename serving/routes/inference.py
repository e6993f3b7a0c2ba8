"""The Open Inference Protocol, version 2, over REST: `/v2`, with tensors in JSON or in bytes."""

from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version as installed
from typing import Any, ClassVar

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from release_platform.domain.features import ColumnType
from release_platform.domain.prediction import Predictions
from serving.bodies import read_body
from serving.doors import JSON, Ask, Head, Reply
from serving.errors import InvalidInput, NotOffered, Problem
from serving.inference_bodies import (
    JSON_LENGTH,
    OCTETS,
    PROBABILITIES,
    output_datatypes,
    read_inference,
    read_key,
    write_inference,
)
from serving.inference_schemas import INFER_BODY, InferAnswer, InferMetadata, InferReady, InferServer
from serving.limits import Limits
from serving.models import Live, LoadedModel, RouteTable
from serving.parsing import parse
from serving.predicting import PredictRoute
from serving.route_keys import found_key
from serving.routes.health import not_ready
from serving.routing import MARK
from serving.schemas import answers

_STATUSES = (400, 404, 408, 413, 415, 422, 500, 503)
_DISTRIBUTION = "model-release-platform"
_PLATFORMS = {"onnx": "onnx_onnxv1", "skops": "sklearn_skops"}
_DATATYPES = {
    ColumnType.NUMBER: "FP64",
    ColumnType.INTEGER: "INT64",
    ColumnType.BOOLEAN: "BOOL",
    ColumnType.CATEGORY: "BYTES",
    ColumnType.TIMESTAMP: "BYTES",
}
_INDEX_BYTES = 4096
_INDEX_WITHIN_S = 5.0
_BY_PROMOTION = "a promotion or a rollback puts a version into Production, and nothing else loads or unloads one"
_ABSENT = "this server does not offer that call; `/docs` lists what there is"
_NOT_OFFERED = {
    "/v2/repository/models/{model}/load": _BY_PROMOTION,
    "/v2/repository/models/{model}/unload": _BY_PROMOTION,
    **dict.fromkeys(
        (
            "/v2/models/{model}/stats",
            "/v2/models/{model}/versions/{version}/stats",
            "/v2/models/{model}/config",
            "/v2/models/{model}/versions/{version}/config",
            "/v2/models/{model}/trace/setting",
            "/v2/trace/setting",
            "/v2/logging",
            "/v2/systemsharedmemory/{rest:path}",
            "/v2/cudasharedmemory/{rest:path}",
        ),
        _ABSENT,
    ),
}


class InferenceDoor:
    """Tensors in JSON or in bytes. Clients of the protocol need not name a content type, and some do not."""

    media_types: ClassVar[frozenset[bytes]] = frozenset({JSON, OCTETS, b""})

    def is_ready(self, head: Head) -> bool:
        """See `Door`; nothing is loaded late."""
        return True

    def read(self, body: bytes, head: Head, loaded: LoadedModel, limits: Limits) -> Ask:
        """See `Door`."""
        return read_inference(body, head.get(JSON_LENGTH), loaded, limits)

    def key_in(self, body: bytes, head: Head, limits: Limits) -> bytes | None:
        """See `Door`."""
        if MARK not in body:
            return None
        return found_key(lambda: read_key(body, head.get(JSON_LENGTH), limits))

    def write(self, ask: Ask, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> Reply:
        """See `Door`."""
        return write_inference(ask, loaded, predictions, prediction_id)

    def complain(self, problem: Problem) -> Mapping[str, str]:
        """See `Door`; `errors.document` says `error` below `/v2`, also where there is no door."""
        return {}


_DOOR = InferenceDoor()

INFER_ROUTES = tuple(
    PredictRoute(
        template=template,
        door=_DOOR,
        summary=summary,
        body=INFER_BODY,
        responses=answers(InferAnswer, *_STATUSES),
        tag="open inference protocol",
    )
    for template, summary in (
        ("/v2/models/{model}/infer", "Predict tensors"),
        (
            "/v2/models/{model}/versions/{version}/infer",
            "Predict tensors by the live version, or by the one before it",
        ),
    )
)


def build_inference_routes(*, live: Live, configured: tuple[str, ...]) -> APIRouter:
    """Returns the routes under `/v2` that do not predict.

    Args:
        live: What is served.
        configured: The models that the server was told to serve; empty for all in Production.
    """
    router = APIRouter(tags=["open inference protocol"])
    _add_server_routes(router, live, configured)
    _add_model_routes(router, live)
    for path, reason in _NOT_OFFERED.items():
        router.add_api_route(path, _refusal(reason), methods=["GET", "POST"], include_in_schema=False)
    return router


def _add_server_routes(router: APIRouter, live: Live, configured: tuple[str, ...]) -> None:
    @router.get("/v2", summary="What the server is", responses=answers(InferServer))
    async def describe_server() -> Response:
        return _json({"name": _DISTRIBUTION, "version": installed(_DISTRIBUTION), "extensions": ["binary_tensor_data"]})

    @router.get("/v2/health/live", summary="The process runs")
    async def server_live() -> Response:
        return _json({"live": True})

    @router.get(
        "/v2/health/ready",
        summary="Requests can be answered",
        responses={503: {"description": "No; with the reason."}},
    )
    async def server_ready() -> Response:
        reasons = not_ready(live.table, configured=configured, draining=live.draining)
        return _json({"ready": False, "error": "; ".join(reasons)}, status=503) if reasons else _json({"ready": True})

    @router.post("/v2/repository/index", summary="Every version that answers, and models of which none does")
    async def index(request: Request) -> Response:
        head = dict(request.scope["headers"])
        body = await read_body(request.receive, head, max_bytes=_INDEX_BYTES, within_s=_INDEX_WITHIN_S)
        only_ready = _only_ready(body)
        return _json([one for one in _index(live.table) if not only_ready or one["state"] == "READY"])


def _add_model_routes(router: APIRouter, live: Live) -> None:
    @router.get(
        "/v2/models/{model}", summary="What a model takes and gives", responses=answers(InferMetadata, 404, 503)
    )
    async def describe_live_version(model: str) -> Response:
        return _metadata(live.table, live.table.get_model(model))

    @router.get(
        "/v2/models/{model}/versions/{version}",
        summary="What a version takes and gives: the live one, or the one before it",
        responses=answers(InferMetadata, 404, 503),
    )
    async def describe_version(model: str, version: str) -> Response:
        return _metadata(live.table, live.table.get_model(model, version))

    @router.get("/v2/models/{model}/ready", summary="A model answers", responses=answers(InferReady, 404, 503))
    async def model_ready(model: str) -> Response:
        return _ready(live.table.get_model(model))

    @router.get(
        "/v2/models/{model}/versions/{version}/ready",
        summary="A version answers",
        responses=answers(InferReady, 404, 503),
    )
    async def version_ready(model: str, version: str) -> Response:
        return _ready(live.table.get_model(model, version))


def _metadata(table: RouteTable, loaded: LoadedModel) -> Response:
    package = loaded.package
    shapes = {PROBABILITIES: [-1, len(package.classes)]}
    metadata = {
        "name": loaded.model,
        "versions": [one.version for one in _that_answer(table, loaded.model)],
        "platform": _PLATFORMS[package.engine_name],
        "inputs": [
            {"name": column.name, "datatype": _DATATYPES[column.type], "shape": [-1]} for column in package.plan.inputs
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shapes.get(name, [-1])}
            for name, datatype in output_datatypes(package).items()
        ],
    }
    return _json(metadata, loaded)


def _ready(loaded: LoadedModel) -> Response:
    return _json({"name": loaded.model, "ready": True}, loaded)


def _that_answer(table: RouteTable, model: str) -> list[LoadedModel]:
    """Returns the live version of a model and, behind it, the one before it."""
    return [versions[model] for versions in (table.loaded, table.standby) if model in versions]


def _index(table: RouteTable) -> list[dict[str, str]]:
    index: list[dict[str, str]] = []
    for name in table.names:
        answering = _that_answer(table, name)
        index += [{"name": name, "version": one.version, "state": "READY", "reason": ""} for one in answering]
        if not answering:
            refusal = table.refusals.get(name)
            why = "no version is loaded yet" if refusal is None else refusal.reason
            which = "" if refusal is None else refusal.version or ""
            index.append({"name": name, "version": which, "state": "UNAVAILABLE", "reason": why})
    return index


def _only_ready(body: bytes) -> bool:
    asked = parse(body) if body else {}
    if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
        raise InvalidInput('send nothing, or {"ready": true} for the versions that answer only', field="ready")
    return bool(asked.get("ready", False))


def _refusal(reason: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def refuse() -> Response:
        raise NotOffered(reason)

    return refuse


def _json(value: Any, loaded: LoadedModel | None = None, *, status: int = 200) -> Response:
    response = Response(orjson.dumps(value), status, media_type="application/json")
    response.raw_headers += loaded.headers if loaded is not None else ()
    return response
