"""Where the platform pushes a move of Production or beside it, so that it takes effect without the registry."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from release_platform.domain.attestation import Certificate
from serving.bodies import read_body
from serving.doors import JSON, check_media_type
from serving.pushes import MAX_BODY_BYTES, Pushes
from serving.routes.native import share_response, summary_response
from serving.schemas import PUSH_BODY, ModelSummary, answers
from serving.settings import Settings


def build_move_routes(*, pushes: Pushes, settings: Settings) -> APIRouter:
    """Returns `/v1/models/{model}/certificate`."""
    router = APIRouter(prefix="/v1/models", tags=["operations"])

    @router.post(
        "/{model}/certificate",
        summary="Take a signed move of Production",
        openapi_extra={"requestBody": PUSH_BODY},
        responses=answers(ModelSummary, 400, 403, 404, 408, 409, 413, 415, 422, 503),
    )
    async def push(model: str, request: Request) -> Response:
        head = dict(request.scope["headers"])
        check_media_type(head, frozenset({JSON}))
        body = await read_body(request.receive, head, max_bytes=MAX_BODY_BYTES, within_s=settings.body_timeout_s)
        accepted = await pushes.accept(model, body)
        return share_response(accepted) if isinstance(accepted, Certificate) else summary_response(accepted)

    return router
