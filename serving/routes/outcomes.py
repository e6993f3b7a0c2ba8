"""Where clients tell later what became of a prediction, and the platform fetches what is for another server."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from serving.bodies import read_body
from serving.doors import JSON, check_media_type
from serving.errors import InvalidInput
from serving.forms import kind
from serving.outcomes import is_name
from serving.parsing import parse
from serving.schemas import OUTCOMES_BODY, SETTLED_BODY, OutcomesHeld, OutcomesSettled, OutcomesTold, answers
from serving.telling import Desk

MOST_OUTCOMES = 10_000
_MOST_BYTES = 4 * 1024**2
_VALUES = (str, int, float)  # a truth is an int


def build_outcome_routes(*, desk: Desk, body_timeout_s: float) -> APIRouter:
    """Returns `/v1/outcomes` and `/v1/outcomes/held`."""
    router = APIRouter(prefix="/v1", tags=["models"])

    async def body_of(request: Request) -> bytes:
        head = dict(request.scope["headers"])
        check_media_type(head, frozenset({JSON}))
        return await read_body(request.receive, head, max_bytes=_MOST_BYTES, within_s=body_timeout_s)

    @router.post(
        "/outcomes",
        summary="Tell what became of predictions",
        openapi_extra={"requestBody": OUTCOMES_BODY},
        responses=answers(OutcomesTold, 400, 408, 413, 415, 422)
        | {202: {"model": OutcomesTold, "description": "Some are held, for another server."}},
    )
    async def outcomes(
        request: Request,
        carried: Annotated[bool, Query(description="Another server was told first: hold nothing.")] = False,
    ) -> Response:
        told = await desk.tell(read_outcomes(await body_of(request)), carried=carried)
        return Response(orjson.dumps(told.to_json()), 202 if told.held else 200, media_type="application/json")

    @router.get(
        "/outcomes/held",
        summary="Outcomes of predictions that another server may have made",
        tags=["operations"],
        responses=answers(OutcomesHeld, 422),
    )
    async def held(
        most: Annotated[int, Query(ge=1, le=MOST_OUTCOMES, description="Most that are told.")] = 1000,
    ) -> Response:
        return Response(orjson.dumps(await desk.offer(most)), media_type="application/json")

    @router.post(
        "/outcomes/held",
        summary="Say what became of outcomes that were held",
        tags=["operations"],
        openapi_extra={"requestBody": SETTLED_BODY},
        responses=answers(OutcomesSettled, 400, 408, 413, 415, 422),
    )
    async def settle(request: Request) -> Response:
        carried, unknown = read_settled(await body_of(request))
        return Response(orjson.dumps(await desk.settle(carried, unknown)), media_type="application/json")

    return router


def read_settled(body: bytes) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns the outcomes of a body that were carried and those that no server knows, by prediction id and name.

    Raises:
        RequestProblem: It is no JSON, or no such lists.
    """
    value = parse(body, _n_settled)
    if not isinstance(value, dict):
        raise InvalidInput(f"the body is {kind(value)}, not an object with 'carried' and 'unknown'")
    return _named(value, "carried"), _named(value, "unknown")


def _named(value: dict[str, Any], field: str) -> list[tuple[str, str]]:
    several = value.get(field, [])
    if not isinstance(several, list):
        raise InvalidInput(f"'{field}' is {kind(several)}, not an array", field=field)
    found = []
    for row, one in enumerate(several):
        named = (one.get("prediction_id"), one.get("name")) if isinstance(one, dict) else (None, None)
        if not (isinstance(named[0], str) and isinstance(named[1], str)):
            raise InvalidInput(f"row {row} of '{field}' has no texts 'prediction_id' and 'name'", field=field, row=row)
        found.append((named[0], named[1]))
    return found


def read_outcomes(body: bytes) -> list[dict[str, Any]]:
    """Returns the outcomes of a body, each with `prediction_id`, `name` and `value`.

    Raises:
        RequestProblem: It is no JSON, or not such a list; names the row.
    """
    value = parse(body, _n_members)
    if not isinstance(value, list):
        raise InvalidInput(f"the body is {kind(value)}, not an array of outcomes")
    found = [outcome for row, one in enumerate(value) for outcome in _outcomes(row, one)]
    if not 0 < len(found) <= MOST_OUTCOMES:
        raise InvalidInput(f"there are {len(found):,} outcomes; send from one to {MOST_OUTCOMES:,}")
    return found


def _outcomes(row: int, one: Any) -> list[dict[str, Any]]:
    if not isinstance(one, dict):
        raise InvalidInput(f"row {row} is {kind(one)}, not an object", row=row)
    prediction_id = one.get("prediction_id")
    if not isinstance(prediction_id, str):
        raise InvalidInput(f"row {row} has no text 'prediction_id'", field="prediction_id", row=row)
    named = [(name, value) for name, value in one.items() if name != "prediction_id"]
    if not named:
        raise InvalidInput(f"row {row} has no outcome; send a 'label', or a number by a name", field="label", row=row)
    for name, value in named:
        if not is_name(name):
            raise InvalidInput(f"row {row}: an outcome cannot be called '{name:.100}'", field=name, row=row)
        if not isinstance(value, _VALUES):
            raise InvalidInput(f"row {row}, '{name}': is {kind(value)}, not a single value", field=name, row=row)
    return [{"prediction_id": prediction_id[:64], "name": name, "value": value} for name, value in named]


def _n_members(value: Any) -> int:
    return sum(len(one) for one in value if isinstance(one, dict)) if isinstance(value, list) else 0


def _n_settled(value: Any) -> int:
    lists = [value.get(field) for field in ("carried", "unknown")] if isinstance(value, dict) else []
    rows = [one for several in lists if isinstance(several, list) for one in several if isinstance(one, dict)]
    return (len(value) if isinstance(value, dict) else 0) + sum(map(len, rows))
