"""Reads the JSON of our own protocol: `{"rows": [{...}, ...]}` or `{"columns": {"name": [...], ...}}`.

Beside them may stand a `route_key`: it decides which version answers (`routing`), never what it answers.
"""

from contextlib import suppress
from typing import Any

from release_platform.domain.features import Inputs
from serving.errors import InvalidInput, MalformedBody
from serving.forms import Form, check_route_key, kind
from serving.limits import Limits
from serving.parsing import parse, parse_leniently

_FORMS = 'send {"rows": [{...}, ...]} or {"columns": {"name": [...], ...}}'


def read_json(body: bytes, form: Form, limits: Limits) -> Inputs:
    """Returns the rows that a body holds, at least one.

    Raises:
        RequestProblem: The body is not JSON, or not what the form takes.
    """
    quick = None if form.plain_json is None else form.plain_json.read(body, limits.max_rows)
    if quick is not None:
        return quick
    try:
        value = parse(body)
    except MalformedBody:
        with suppress(ValueError):  # NaN, 1e999 and lone surrogates have a field and a row
            _inputs(parse_leniently(body), form, limits)
        raise
    return _inputs(value, form, limits)


def _inputs(value: Any, form: Form, limits: Limits) -> Inputs:
    if not isinstance(value, dict):
        raise InvalidInput(f"the body is {kind(value)}, not an object; {_FORMS}")
    for key in value:
        if key not in {"rows", "columns", "route_key"}:
            raise InvalidInput(f"the body has a member '{key:.100}' that is not known; {_FORMS}", field=key)
    check_route_key(value.get("route_key"))
    if ("rows" in value) == ("columns" in value):
        both = f"the body has both rows and columns; {_FORMS}"
        raise InvalidInput(both if "rows" in value else f"the body is empty; {_FORMS}")
    if "rows" in value:
        return form.from_rows(value["rows"], limits)
    return form.from_columns(value["columns"], limits)
