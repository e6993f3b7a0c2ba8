"""Turns the body of a request into the columns that a feature plan takes, or names the field and row at fault."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from release_platform.domain.features import Column, FeaturePlan, Input, InputError, as_column
from serving.errors import InvalidInput, MalformedBody
from serving.parsing import parse, parse_leniently

_SCALARS = frozenset({int, float, str, bool, type(None)})
_FORMS = 'send {"rows": [{...}, ...]} or {"columns": {"name": [...], ...}}'
_LONGEST_NAME = 100  # beyond it no likeness is looked for
_SHOWN = 10


def read_columns(body: bytes, plan: FeaturePlan, *, max_rows: int) -> dict[str, Column]:
    """Returns the inputs that a body holds, each of shape (n_rows,), at least one row.

    Args:
        body: JSON, as rows (records) or as columns.
        plan: What the model takes. Every input must be given, null included; no other may be.
        max_rows: Most rows that are taken.

    Raises:
        RequestProblem: The body is not JSON, or not what the plan takes.
    """
    try:
        value = parse(body)
    except MalformedBody:
        with suppress(ValueError):  # NaN, 1e999 and lone surrogates have a field and a row
            _columns(parse_leniently(body), plan, max_rows)
        raise
    return _columns(value, plan, max_rows)


def _columns(value: Any, plan: FeaturePlan, max_rows: int) -> dict[str, Column]:
    if not isinstance(value, dict):
        raise InvalidInput(f"the body is {_kind(value)}, not an object; {_FORMS}")
    for key in value:
        if key not in {"rows", "columns"}:
            raise InvalidInput(f"the body has a member '{key:.100}' that is not known; {_FORMS}", field=key)
    if len(value) != 1:
        raise InvalidInput(f"the body has both rows and columns; {_FORMS}" if value else f"the body is empty; {_FORMS}")
    names = [column.name for column in plan.inputs]
    if "rows" in value:
        raw = _from_rows(value["rows"], names, max_rows)
    else:
        raw = _from_columns(value["columns"], names, max_rows)
    return {column.name: _read(column, raw[column.name]) for column in plan.inputs}


def _from_rows(rows: Any, names: Sequence[str], max_rows: int) -> dict[str, list[Any]]:
    if not isinstance(rows, list):
        raise InvalidInput(f"'rows' is {_kind(rows)}, not an array of objects", field="rows")
    _check_count(len(rows), max_rows, "rows")
    wanted = set(names)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"row {index} is {_kind(row)}, not an object", row=index)
        if row.keys() != wanted:
            raise _misnamed(row, names, index)
    return {name: [row[name] for row in rows] for name in names}


def _from_columns(columns: Any, names: Sequence[str], max_rows: int) -> dict[str, list[Any]]:
    if not isinstance(columns, dict):
        raise InvalidInput(f"'columns' is {_kind(columns)}, not an object of arrays", field="columns")
    if columns.keys() != set(names):
        raise _misnamed(columns, names, None)
    for name in names:
        if not isinstance(columns[name], list):
            raise InvalidInput(f"the column '{name}' is {_kind(columns[name])}, not an array", field=name)
    n_rows = len(columns[names[0]])
    for name in names:
        if len(columns[name]) != n_rows:
            raise InvalidInput(f"'{name}' has {len(columns[name])} values, but '{names[0]}' has {n_rows}", field=name)
    _check_count(n_rows, max_rows, "columns")
    return columns


def _check_count(n_rows: int, max_rows: int, field: str) -> None:
    if n_rows == 0:
        raise InvalidInput("there are no rows; send at least one", field=field)
    if n_rows > max_rows:
        detail = f"{n_rows:,} rows are more than the {max_rows:,} of one request; send them in parts"
        raise InvalidInput(detail, field=field)


def _misnamed(given: Mapping[str, Any], names: Sequence[str], row: int | None) -> InvalidInput:
    where = "there" if row is None else f"in row {row}, there"
    known = set(names)
    missing = [name for name in names if name not in given]
    extra = [name for name in given if name not in known]
    if extra:
        close = get_close_matches(extra[0], missing or names, n=1) if len(extra[0]) <= _LONGEST_NAME else []
        hint = f"did you mean '{close[0]}'?" if close else "leave it out"
        detail = f"{where} is '{extra[0]:.100}', which the model does not take; {hint}"
        return InvalidInput(detail, field=extra[0], row=row)
    listed = ", ".join(f"'{name}'" for name in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    return InvalidInput(f"{where} is no {listed}; send null for a missing value", field=missing[0], row=row)


def _read(column: Input, values: Sequence[Any]) -> Column:
    if not _SCALARS.issuperset(map(type, values)):
        row = next(i for i, value in enumerate(values) if type(value) not in _SCALARS)
        detail = f"row {row}, '{column.name}': is {_kind(values[row])}, not a single value"
        raise InvalidInput(detail, field=column.name, row=row)
    try:
        return as_column(column, values)
    except InputError as error:
        raise InvalidInput(str(error), field=error.field, row=error.row) from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
