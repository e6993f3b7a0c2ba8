"""Where clients tell later what became of a prediction."""

import re
from collections import defaultdict
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.bodies import read_body
from serving.doors import JSON, check_media_type
from serving.errors import InvalidInput
from serving.forms import kind
from serving.observations import Observations
from serving.outcomes import Told, is_name
from serving.parsing import parse
from serving.samples import Samples
from serving.schemas import OUTCOMES_BODY, OutcomesTold, answers
from serving.siblings import Siblings

OUTCOMES = "outcomes"
MOST_OUTCOMES = 10_000
_MOST_BYTES = 4 * 1024**2
_ID = re.compile(r"([0-9a-f]{16})-[0-9a-f]{1,16}")
_VALUES = (str, int, float)  # a truth is an int


def build_outcome_routes(
    *, observations: Observations, samples: Samples, siblings: Siblings, body_timeout_s: float
) -> APIRouter:
    """Returns `/v1/outcomes`."""
    router = APIRouter(prefix="/v1", tags=["models"])

    @router.post(
        "/outcomes",
        summary="Tell what became of predictions",
        openapi_extra={"requestBody": OUTCOMES_BODY},
        responses=answers(OutcomesTold, 400, 408, 413, 415, 422),
    )
    async def outcomes(request: Request) -> Response:
        head = dict(request.scope["headers"])
        check_media_type(head, frozenset({JSON}))
        body = await read_body(request.receive, head, max_bytes=_MOST_BYTES, within_s=body_timeout_s)
        by_replica: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for outcome in read_outcomes(body):
            named = _ID.fullmatch(outcome["prediction_id"])
            by_replica["" if named is None else named[1]].append(outcome)
        told = Told()
        for replica, several in by_replica.items():
            told = told.and_(await _told(observations, samples, siblings, replica, several))
        return Response(orjson.dumps(told.to_json()), media_type="application/json")

    return router


async def _told(
    observations: Observations, samples: Samples, siblings: Siblings, replica: str, several: list[dict[str, Any]]
) -> Told:
    """Returns what the process that made some predictions says of their outcomes."""
    if replica == observations.replica:
        return observations.take(several, labelled=samples.label)
    ids = tuple(dict.fromkeys(outcome["prediction_id"] for outcome in several))
    if replica and siblings.has(replica):
        try:
            answer = await siblings.ask(replica, {"what": OUTCOMES, "outcomes": several})
        except TimeoutError:
            return Told(unanswered=ids)
        if answer is not None:
            return Told.from_json(answer)
    return Told(unknown=ids)


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
