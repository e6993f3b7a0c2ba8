"""MLflow's scoring protocol: what clients of `mlflow models serve` call."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import orjson
from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from release_platform.domain.prediction import Predictions
from serving.doors import JSON, Ask, Head, Reply, media_type_of
from serving.errors import ModelNotLoaded, Problem, WrongMediaType
from serving.limits import Limits
from serving.models import Live, LoadedModel
from serving.predicting import PredictRoute
from serving.route_keys import found_key
from serving.routes.health import not_ready
from serving.routing import MARK
from serving.schemas import SCORING_BODY, Scored, answers
from serving.scoring import read_key_csv, read_key_json, read_scoring_csv, read_scoring_json

CSV = b"text/csv"
_STATUSES = (400, 404, 408, 413, 415, 422, 500, 503)
_CODES = {
    400: "BAD_REQUEST",
    404: "RESOURCE_DOES_NOT_EXIST",
    408: "DEADLINE_EXCEEDED",
    422: "INVALID_PARAMETER_VALUE",
    503: "TEMPORARILY_UNAVAILABLE",
}


class ScoringDoor:
    """Data frames, records, lists or columns in JSON, or CSV; the answer is probabilities, or values."""

    media_types: ClassVar[frozenset[bytes]] = frozenset({JSON, CSV})

    def is_ready(self, head: Head) -> bool:
        """See `Door`; nothing is loaded late."""
        return True

    def read(self, body: bytes, head: Head, loaded: LoadedModel, limits: Limits) -> Ask:
        """See `Door`."""
        _check_parameters(head)
        if media_type_of(head) == CSV:
            return Ask(read_scoring_csv(body, loaded.package.plan, loaded.form, limits))
        return Ask(read_scoring_json(body, loaded.form, limits))

    def key_in(self, body: bytes, head: Head, limits: Limits) -> bytes | None:
        """See `Door`."""
        if MARK not in body:
            return None
        read = read_key_csv if media_type_of(head) == CSV else read_key_json
        return found_key(lambda: read(body, limits))

    def write(self, ask: Ask, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> Reply:
        """See `Door`."""
        said = predictions.values if predictions.probabilities is None else predictions.probabilities
        return Reply(orjson.dumps({"predictions": np.ascontiguousarray(said)}, option=orjson.OPT_SERIALIZE_NUMPY))

    def complain(self, problem: Problem) -> Mapping[str, str]:
        """See `Door`."""
        code = _CODES.get(problem.status, "BAD_REQUEST" if problem.status < 500 else "INTERNAL_ERROR")
        return {"error_code": code, "message": problem.detail}


def _check_parameters(head: Head) -> None:
    """Refuses the content types of MLflow 1, e.g. `application/json; format=pandas-split`, as MLflow does."""
    _, *parameters = (head.get(b"content-type") or b"").split(b";")
    for parameter in parameters:
        name = parameter.partition(b"=")[0].strip().lower()
        if name not in {b"", b"charset"}:
            shown = name.decode("latin-1")[:100]
            raise WrongMediaType(f"the content type has a parameter '{shown}'; name the form in the body instead")


SCORING_ROUTES = tuple(
    PredictRoute(
        template=template,
        door=ScoringDoor(),
        summary=summary,
        body=SCORING_BODY,
        responses=answers(Scored, *_STATUSES),
        tag="MLflow",
    )
    for template, summary in (
        ("/invocations", "Score rows by the one model that the server has"),
        ("/v1/models/{model}/invocations", "Score rows by a model"),
    )
)


def build_scoring_routes(*, live: Live, configured: tuple[str, ...]) -> APIRouter:
    """Returns `/ping`, `/health` and `/version`. The first two say the same as `/readyz`."""
    router = APIRouter(tags=["MLflow"])
    own = version("model-release-platform")

    async def ping() -> Response:
        reasons = not_ready(live.table, configured=configured, draining=live.draining)
        if reasons:
            raise ModelNotLoaded("; ".join(reasons))
        return PlainTextResponse("\n")

    for path in ("/ping", "/health"):
        router.add_api_route(
            path,
            ping,
            summary="Requests can be answered",
            response_class=PlainTextResponse,
            responses={503: {"description": "No."}},
        )

    @router.get("/version", summary="Version of this server", response_class=PlainTextResponse)
    async def tell_version() -> Response:
        return PlainTextResponse(own)

    return router
