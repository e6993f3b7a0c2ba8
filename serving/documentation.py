"""The OpenAPI document of `/docs`: it says how keys are shown, and has a path for each model that is served."""

from typing import Any

from release_platform.domain.features import ColumnType, Input
from serving.limits import Limits
from serving.models import LoadedModel, RouteTable
from serving.routes.native import PREDICT_ROUTES
from serving.routing import KEY_MEMBER
from serving.schemas import ROUTE_KEY

_TYPES: dict[ColumnType, dict[str, Any]] = {
    ColumnType.NUMBER: {"type": "number"},
    ColumnType.INTEGER: {"type": "integer"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.CATEGORY: {"type": "string"},
    ColumnType.TIMESTAMP: {"type": "string", "description": "ISO 8601; UTC without an offset."},
}


def with_keys(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns an OpenAPI document that says how an API key is shown."""
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    components = schema.get("components", {}) | {"securitySchemes": schemes}
    return schema | {"components": components, "security": [{name: []} for name in schemes]}


def with_models(schema: dict[str, Any], table: RouteTable, limits: Limits) -> dict[str, Any]:
    """Returns an OpenAPI document with, for each model that answers, the path that predicts by it.

    The schema and examples of its body are made from the signature of the live version.
    """
    template = PREDICT_ROUTES[0].template
    general = schema["paths"][template]["post"]
    own = {
        template.replace("{model}", name): {"post": _operation(general, table.loaded[name], limits)}
        for name in sorted(table.loaded)
    }
    return schema | {"paths": own | schema["paths"]}


def _operation(general: dict[str, Any], loaded: LoadedModel, limits: Limits) -> dict[str, Any]:
    name, row = loaded.model, loaded.example
    examples = {"rows": {"rows": [row]}, "columns": {"columns": {field: [value] for field, value in row.items()}}}
    inputs = loaded.package.plan.inputs
    described = {
        "schema": {"oneOf": [_rows(inputs, limits), _columns(inputs, limits)]},
        "examples": {form: {"value": value} for form, value in examples.items()},
    }
    body = general["requestBody"]
    kept = {member: value for member, value in general.items() if member != "parameters"}
    return kept | {
        "tags": [name],
        "summary": f"Predict rows by version {loaded.version} of {name}",
        "operationId": f"predict_{name}",
        "requestBody": body
        | {
            "description": f"What version {loaded.version} takes, as records or as columns.",
            "content": body["content"] | {"application/json": described},
        },
    }


def _rows(inputs: tuple[Input, ...], limits: Limits) -> dict[str, Any]:
    row = _object({one.name: _value(one, limits) for one in inputs}, extra=limits.ignore_extra)
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.max_rows}
    return _body("Rows", rows=rows)


def _columns(inputs: tuple[Input, ...], limits: Limits) -> dict[str, Any]:
    size = {"minItems": 1, "maxItems": limits.max_rows}
    columns = {one.name: {"type": "array", "items": _value(one, limits), **size} for one in inputs}
    return _body("Columns", columns=_object(columns, extra=limits.ignore_extra))


def _body(title: str, **given: dict[str, Any]) -> dict[str, Any]:
    body = _object(given, title=title)
    return body | {"properties": given | {KEY_MEMBER: ROUTE_KEY}}


def _object(properties: dict[str, Any], *, extra: bool = False, **more: Any) -> dict[str, Any]:
    rules = {"properties": properties, "required": list(properties), "additionalProperties": extra}
    return {"type": "object", **more, **rules}


def _value(column: Input, limits: Limits) -> dict[str, Any]:
    value = dict(_TYPES[column.type])
    if column.allowed and not limits.refuse_unknown:
        value["examples"] = list(column.allowed)
    elif column.allowed:
        value["enum"] = [*column.allowed, None] if column.nullable else list(column.allowed)
    if column.nullable:
        value["type"] = [value["type"], "null"]
    return value
