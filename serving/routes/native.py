"""The platform's own protocol: `/v1/models`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
import orjson
from fastapi import APIRouter
from starlette.responses import Response

from release_platform.domain.attestation import Certificate
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from serving import arrow
from serving.doors import JSON, Ask, Head, Reply, media_type_of
from serving.errors import Problem
from serving.inputs import read_json
from serving.limits import Limits
from serving.models import Live, LoadedModel
from serving.predicting import PredictRoute
from serving.route_keys import found_key
from serving.routing import MARK, key_in
from serving.schemas import PREDICT_BODY, Answer, ModelDescription, ModelList, answers

_STATUSES = (400, 404, 408, 413, 415, 422, 500, 503)


class NativeDoor:
    """Rows or columns in JSON, or Arrow IPC; the answer names the version, and what it is called by later."""

    media_types: ClassVar[frozenset[bytes]] = frozenset({JSON}) | arrow.MEDIA_TYPES

    def is_ready(self, head: Head) -> bool:
        """See `Door`."""
        if head.get(b"content-type") == JSON and b"accept" not in head:  # the usual request
            return True
        return arrow.is_ready(head, media_type_of(head))

    def read(self, body: bytes, head: Head, loaded: LoadedModel, limits: Limits) -> Ask:
        """See `Door`."""
        if head.get(b"content-type") == JSON and b"accept" not in head:  # the usual request
            return Ask(read_json(body, loaded.form, limits))
        media_type = media_type_of(head)
        if media_type in arrow.MEDIA_TYPES:
            inputs = arrow.read_arrow(body, media_type, loaded.form, limits)
        else:
            inputs = read_json(body, loaded.form, limits)
        return Ask(inputs, arrow.wanted(head, media_type))

    def key_in(self, body: bytes, head: Head, limits: Limits) -> bytes | None:
        """See `Door`."""
        if MARK not in body:
            return None
        media_type = media_type_of(head)
        if media_type not in arrow.MEDIA_TYPES:
            return key_in(body)
        return found_key(lambda: arrow.read_key(body, media_type, limits))

    def write(self, ask: Ask, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> Reply:
        """See `Door`."""
        if ask.options is not None:
            return Reply(arrow.write_arrow(ask.options, loaded, predictions, prediction_id), ask.options)
        members = orjson.dumps(said(loaded, predictions), option=orjson.OPT_SERIALIZE_NUMPY)
        return Reply(b'%s"prediction_id":"%s",%s' % (loaded.members, prediction_id.encode(), members[1:]))

    def complain(self, problem: Problem) -> Mapping[str, str]:
        """See `Door`."""
        return {}


def said(loaded: LoadedModel, predictions: Predictions) -> dict[str, Any]:
    """Returns predictions as the members of an answer."""
    if predictions.probabilities is None:
        return {"predictions": np.ascontiguousarray(predictions.values)}
    return {
        "predictions": predictions.values.tolist(),
        "probabilities": np.ascontiguousarray(predictions.probabilities),
        "classes": loaded.package.classes,
    }


PREDICT_ROUTES = (
    PredictRoute(
        template="/v1/models/{model}/predict",
        door=NativeDoor(),
        summary="Predict rows",
        body=PREDICT_BODY,
        responses=answers(Answer, *_STATUSES),
        tag="models",
    ),
    PredictRoute(
        template="/v1/models/{model}/versions/{version}/predict",
        door=NativeDoor(),
        summary="Predict rows by the live version, or by the one before it",
        body=PREDICT_BODY,
        responses=answers(Answer, *_STATUSES),
        tag="models",
    ),
)


def build_model_routes(*, live: Live) -> APIRouter:
    """Returns the routes under `/v1/models` that tell what there is."""
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

    return router


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


def share_response(certificate: Certificate) -> Response:
    """Returns the answer that says which version has its share of the requests, or lost it, since which move."""
    names = ("model", "version", "digest", "epoch")
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    return _json({**{name: getattr(certificate, name) for name in names}, "since": since})


def _description(loaded: LoadedModel) -> dict[str, Any]:
    package = loaded.package
    return _summary(loaded) | {
        "task": package.task.value,
        "engine": package.engine_name,
        "classes": list(package.classes) if package.task is not Task.REGRESSION else None,
        "inputs": package.plan.to_json()["inputs"],
        "example": {"rows": [loaded.example]},
    }


def _json(value: Any, loaded: LoadedModel | None = None) -> Response:
    headers = None if loaded is None else {name.decode(): value.decode() for name, value in loaded.headers}
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)
