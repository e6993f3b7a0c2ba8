"""What `/docs` shows of requests and answers. Requests are read by `inputs`, which names field and row at fault."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import MEDIA_TYPE

Value = float | int | bool | str | None
Label = float | int | bool | str


class Answer(BaseModel):
    """Predictions, and which version they are of."""

    model: str = Field(examples=["breast_cancer"])
    version: str = Field(examples=["3"])
    digest: str = Field(examples=["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    epoch: int = Field(examples=[4], description="The transition that put this version into Production.")
    engine: str = Field(examples=["onnx", "skops"])
    prediction_id: str = Field(description="What this prediction is called by, e.g. when its outcome is known.")
    predictions: list[Label] = Field(description="One per row: the label, or the value of a regression.")
    classes: list[Label] | None = Field(None, description="The labels, in the order of the probabilities.")
    probabilities: list[list[float]] | None = Field(None, description="One list per row, one number per class.")


class InputColumn(BaseModel):
    """A column that the model takes."""

    name: str
    type: str = Field(description="number, integer, boolean, category (text) or timestamp (ISO 8601 text).")
    nullable: bool


class ModelSummary(BaseModel):
    """A model and its live version."""

    model: str
    version: str
    digest: str
    epoch: int
    since: str


class ModelList(BaseModel):
    """Every model that answers."""

    models: list[ModelSummary]


class ModelDescription(ModelSummary):
    """What a model is, what it takes, and a request that it answers."""

    task: str
    engine: str
    classes: list[Label] | None
    inputs: list[InputColumn]
    example: dict[str, list[dict[str, Value]]]


class PushedFile(BaseModel):
    """A file of the version."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PushBody(BaseModel):
    """A move of Production, with all that proves it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    certificate: str = Field(description="The signed certificate of the move: a Sigstore bundle, as text.")
    signature: str = Field(description="The signed statement of the version's registration: likewise.")
    manifest: list[PushedFile] = Field(min_length=1, description="The files of the version.")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 writes it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    field: str | None = None
    row: int | None = None


def answers(success: type[BaseModel] | None, *problems: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of a route's answers: that of success, and the statuses of its problems."""
    content = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}}
    described: dict[int | str, dict[str, Any]] = {} if success is None else {200: {"model": success}}
    for status in problems:
        described[status] = {"description": "Problem", "content": content}
    return described


_LABEL = {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string"}]}
_VALUE = {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string"}, {"type": "null"}]}
_ROW = {"type": "object", "additionalProperties": _VALUE}
_COLUMN = {"type": "array", "items": _VALUE, "minItems": 1}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

ROUTE_KEY = {
    "type": "string",
    "description": "Whose request it is, e.g. a customer's number: one key is always answered on one route.",
}

PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "description": "Rows as records, or as columns. `GET /v1/models/{model}` tells the inputs and an example row.",
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {
                        "title": "Rows",
                        "type": "object",
                        "required": ["rows"],
                        "additionalProperties": False,
                        "properties": {"rows": {"type": "array", "items": _ROW, "minItems": 1}, "route_key": ROUTE_KEY},
                    },
                    {
                        "title": "Columns",
                        "type": "object",
                        "required": ["columns"],
                        "additionalProperties": False,
                        "properties": {
                            "columns": {"type": "object", "additionalProperties": _COLUMN},
                            "route_key": ROUTE_KEY,
                        },
                    },
                ]
            },
            "examples": {
                "rows": {"value": {"rows": [{"age": 41, "city": "Bern"}, {"age": 35, "city": "Basel"}]}},
                "columns": {"value": {"columns": {"age": [41, None], "city": ["Bern", "Basel"]}}},
            },
        },
        "application/vnd.apache.arrow.stream": _BINARY,
        "application/vnd.apache.arrow.file": _BINARY,
    },
}

_PUSH: dict[str, Any] = PushBody.model_json_schema()
_PUSH["properties"]["manifest"]["items"] = _PUSH.pop("$defs")["PushedFile"]  # a reference would not resolve in OpenAPI

PUSH_BODY: dict[str, Any] = {
    "required": True,
    "description": "It needs no login: both signatures are checked, and the epoch must be later than the accepted one.",
    "content": {"application/json": {"schema": _PUSH}},
}


class EndedWindows(BaseModel):
    """What a process counted that ended in good order, told by the one in its place."""

    replica: str = Field(description="The process.")
    since: int = Field(description="The minute in which it began to count.")
    ended: int = Field(description="The minute in which it ended.")
    whole: list[int] = Field(description="The closed minutes of which it counted all that it answered.")
    windows: list[dict[str, Any]] = Field(description="Its counts.")


class GivenShare(BaseModel):
    """A share of the traffic that a version has beside the one in Production."""

    route: str = Field(description="`canary` or `shadow`.")
    version: str
    weight: float = Field(description="The share, 0 to 1.")


class ReplicaWindows(BaseModel):
    """What one process counted."""

    replica: str = Field(description="The process; another after each start.")
    closed: int = Field(description="The last minute, since 1970, that is closed on it.")
    since: int = Field(description="The minute in which it began to count.")
    whole: list[int] = Field(description="The closed minutes that it counted from beginning to end.")
    windows: list[dict[str, Any]] = Field(
        description="Counts by model, version, route and minute: what was told once never changes."
    )
    before: list[EndedWindows] = Field(description="The processes that were in its place before, the newest last.")
    gives: dict[str, list[GivenShare]] = Field(
        description="Of each model that it serves, what versions beside Production have of the traffic now."
    )


class ObservedWindows(BaseModel):
    """What every process behind this port counted."""

    closed: int = Field(description="The last minute that is closed on all of them: what to send as `after` next.")
    silent: int = Field(description="How many processes did not answer in time; ask again.")
    replicas: list[ReplicaWindows]


class SampledRequest(BaseModel):
    """A request that was answered."""

    prediction_id: str
    model: str
    version: str
    route: str
    minute: int
    n_rows: int = Field(description="How many rows it had; at most the first 100 are here, and 10,000 values.")
    columns: dict[str, list[Value]]
    predictions: list[Label]
    confidences: list[float] | None = Field(description="The probability of each answer; null of a regression.")


class ToldLabel(BaseModel):
    """What would have been right of a prediction of the sample, as it was told."""

    prediction_id: str
    model: str
    version: str
    minute: int = Field(description="When it was told.")
    label: Label


class ToldCalls(BaseModel):
    """The calls that came for a version in one minute, sampled or not."""

    model: str
    version: str
    minute: int
    answered: int
    refused: int = Field(description="Calls that do not fit the inputs of the version.")
    faults: list[tuple[str, str, int]] = Field(
        description="What was wrong with how many: an input, or `other`; `missing`, `value`, `unknown` or `body`."
    )


class ReplicaSamples(BaseModel):
    """What one process kept."""

    replica: str
    closed: int
    samples: list[SampledRequest]
    labels: list[ToldLabel]
    calls: list[ToldCalls]


class ObservedSamples(BaseModel):
    """What every process behind this port kept."""

    closed: int = Field(description="The last minute of which all of them told all: what to send as `after` next.")
    more: bool = Field(description="Whether there is more of minutes that are over: ask again at once.")
    silent: int = Field(description="How many processes did not answer in time; ask again.")
    replicas: list[ReplicaSamples]


class RefusedOutcome(BaseModel):
    """An outcome that cannot be counted."""

    prediction_id: str
    outcome: str
    reason: str


class OutcomesTold(BaseModel):
    """What became of outcomes."""

    counted: int
    repeated: list[str] = Field(description="Predictions of which this outcome had come already; it was ignored.")
    unknown: list[str] = Field(description="Predictions that nobody here knows: never made, too old, or not routed.")
    held: list[str] = Field(description="Predictions that another server may know: their outcomes are carried there.")
    unanswered: list[str] = Field(description="Predictions of a process that did not answer in time: tell them again.")
    refused: list[RefusedOutcome]


class HeldOutcome(BaseModel):
    """An outcome of a prediction that another server may have made."""

    prediction_id: str
    name: str
    outcome: Label
    age_s: float = Field(description="Seconds since it was told.")


class OutcomesHeld(BaseModel):
    """Outcomes that are held, those that were offered longest ago."""

    held: list[HeldOutcome]
    n_held: int = Field(description="How many are held in all.")


class OutcomesSettled(BaseModel):
    """How many outcomes are held no longer."""

    carried: int
    unknown: int


_SETTLED = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["prediction_id", "name"],
        "properties": {"prediction_id": {"type": "string"}, "name": {"type": "string"}},
    },
}

SETTLED_BODY: dict[str, Any] = {
    "required": True,
    "description": "Outcomes that were held here: those that another server knows now, and those that none knows.",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"carried": _SETTLED, "unknown": _SETTLED}},
            "example": {"carried": [{"prediction_id": "9f0c1b6be1d0a7c4-27", "name": "label"}], "unknown": []},
        }
    },
}

OUTCOMES_BODY: dict[str, Any] = {
    "required": True,
    "description": "For each prediction its id and what became of it: a `label`, which is what would have been right, "
    "or numbers by names of your own.",
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["prediction_id"],
                    "minProperties": 2,
                    "properties": {"prediction_id": {"type": "string"}, "label": _LABEL},
                    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"},
                    "additionalProperties": _LABEL,
                },
            },
            "example": [{"prediction_id": "9f0c1b6be1d0a7c4-27", "label": "benign", "cost": 12.5}],
        }
    },
}


class Scored(BaseModel):
    """Predictions as MLflow's scoring server gives them."""

    predictions: list[float] | list[list[float]] = Field(
        description="One per row: the value of a regression, or one probability per class."
    )


SCORING_BODY: dict[str, Any] = {
    "required": True,
    "description": "Rows in one of the forms of MLflow's scoring protocol. Columns that the model does not take are "
    "left out, and so are other members, `params` too. Lists without names are in the order of the model's inputs.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "minProperties": 1,
                "properties": {
                    "dataframe_split": {
                        "type": "object",
                        "required": ["data"],
                        "properties": {
                            "columns": {"type": "array", "items": {"type": "string"}},
                            "index": {"type": "array"},
                            "data": {"type": "array", "items": {"type": "array", "items": _VALUE}, "minItems": 1},
                        },
                    },
                    "dataframe_records": {"type": "array", "items": _ROW, "minItems": 1},
                    "instances": {"description": "Records, lists, or columns."},
                    "inputs": {"description": "Columns, lists, or records."},
                },
            },
            "examples": {
                "dataframe_split": {"value": {"dataframe_split": {"columns": ["age", "city"], "data": [[41, "Bern"]]}}},
                "dataframe_records": {"value": {"dataframe_records": [{"age": 41, "city": "Bern"}]}},
                "instances": {"value": {"instances": [{"age": 41, "city": "Bern"}, {"age": None, "city": "Basel"}]}},
                "inputs": {"value": {"inputs": {"age": [41, None], "city": ["Bern", "Basel"]}}},
            },
        },
        "text/csv": {"schema": {"type": "string"}, "example": "age,city\n41,Bern\n,Basel\n"},
    },
}
