"""Reads the bodies of MLflow's scoring protocol, as `mlflow models serve` does, but with the types of the plan.

Columns that the model does not take are left out, and members that are none of the four forms are not looked at:
clients of MLflow rely on both. Lists without names are in the order of the model's inputs. Only `route_key`, beside the
form or as a column, is looked at: a request is routed by it (`route_keys`).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import islice
from typing import Any

from release_platform.domain.features import ColumnType, FeaturePlan, Inputs
from serving.errors import InvalidInput, MalformedBody
from serving.forms import Form, check_count, check_route_key, kind
from serving.limits import Limits
from serving.parsing import parse_with_nan
from serving.route_keys import shared_key
from serving.routing import KEY_MEMBER, MARK

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ONE_OF = f"send an object with exactly one of {', '.join(FORMS)}"
_SPLIT = frozenset({"columns", "index", "data"})
_TRUTHS = {"true": True, "false": False}
_MISSING = frozenset({"NA", "N/A", "NaN", "nan", "NULL", "null", "None"})  # as pandas reads them; in text they are text


def read_scoring_json(body: bytes, form: Form, limits: Limits) -> Inputs:
    """Returns the rows that a JSON body holds, at least one. NaN stands for null: Python's clients write it so.

    Raises:
        RequestProblem: The body is not JSON, not of the protocol, or not what the form takes.
    """
    is_keyed = MARK in body and KEY_MEMBER not in form.names
    return parse_with_nan(body, partial(_read, form=form, limits=limits, is_keyed=is_keyed))


def read_key_json(body: bytes, limits: Limits) -> str | None:
    """Returns the key that a JSON body is routed by: its member `route_key`, or else the column that its rows have.

    Raises:
        RequestProblem: The body is not JSON, not of the protocol, or what is there is no key.
    """
    return parse_with_nan(body, _key_in)


def _key_in(value: Any) -> str | None:
    field = _form_of(value)
    check_route_key(value.get(KEY_MEMBER))
    return value.get(KEY_MEMBER) or shared_key(_keys(value[field], field))


def _keys(given: Any, field: str) -> Sequence[Any]:
    """Returns the keys of the rows; none where they carry none, or are not what the protocol allows."""
    if field == "dataframe_split" and isinstance(given, dict):
        names, given = given.get("columns"), given.get("data")
        if isinstance(names, list) and isinstance(given, list):
            place = names.index(KEY_MEMBER) if KEY_MEMBER in names else len(names)
            return [row[place] for row in given if isinstance(row, list) and len(row) == len(names) > place]
    if isinstance(given, dict):
        keys = given.get(KEY_MEMBER, [])
        return keys if isinstance(keys, list) else [keys]
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    return [row.get(KEY_MEMBER) for row in rows]


def _form_of(value: Any) -> str:
    if not isinstance(value, dict):
        raise InvalidInput(f"the body is {kind(value)}; {_ONE_OF}")
    given = [name for name in FORMS if name in value]
    if len(given) != 1:
        found = ", ".join(f"'{name:.40}'" for name in islice(value, 10)) or "nothing"
        raise InvalidInput(f"the body holds {found}; {_ONE_OF}")
    return given[0]


def _read(value: Any, form: Form, limits: Limits, *, is_keyed: bool) -> Inputs:
    field = _form_of(value)
    if is_keyed:
        _key_in(value)
    lenient = replace(limits, ignore_extra=True, takes_nat=True)
    if field == "dataframe_split":
        return _split(value[field], form, lenient)
    if field == "dataframe_records" and not isinstance(value[field], list):
        raise InvalidInput(f"'{field}' is {kind(value[field])}, not an array of objects", field=field)
    return _tensors(value[field], form, lenient, field)


def read_scoring_csv(body: bytes, plan: FeaturePlan, form: Form, limits: Limits) -> Inputs:
    """Returns the rows of a CSV body, whose first line names the columns.

    An empty cell is null, and so is NA where the column is not text.

    Raises:
        RequestProblem: The body is not CSV in UTF-8, or not what the form takes.
    """
    header, rows = _lines(body, limits)
    if KEY_MEMBER in header and KEY_MEMBER not in form.names:
        shared_key(_cells(header, rows))
    columns = _by_name(header, rows, form, limits, "csv")
    types = {column.name: column.type for column in plan.inputs}
    typed = {name: [_cell(text, types[name]) for text in texts] for name, texts in columns.items()}
    return form.from_columns(typed, replace(limits, takes_nat=True))


def read_key_csv(body: bytes, limits: Limits) -> str | None:
    """Returns the key that the rows of a CSV body carry, or None. Raises as `read_scoring_csv`."""
    header, rows = _lines(body, limits)
    return shared_key(_cells(header, rows)) if KEY_MEMBER in header else None


def _lines(body: bytes, limits: Limits) -> tuple[list[str], list[list[str]]]:
    try:
        lines = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        return next(lines, []), list(islice(filter(None, lines), limits.max_rows + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedBody(f"the body is not CSV in UTF-8: {error}") from None


def _cells(header: list[str], rows: Sequence[list[str]]) -> list[str]:
    """Returns the keys of rows that are as long as their header; the others are refused by whoever reads them."""
    place = header.index(KEY_MEMBER)
    return [row[place] for row in rows if len(row) == len(header)]


def _split(value: Any, form: Form, limits: Limits) -> Inputs:
    field = "dataframe_split"
    if not isinstance(value, dict):
        raise InvalidInput(f"'{field}' is {kind(value)}, not an object with 'columns' and 'data'", field=field)
    unknown = next((name for name in value if name not in _SPLIT), None)
    if unknown is not None or "data" not in value:
        raise InvalidInput(f"'{field}' takes 'data', and 'columns' and 'index' where there are some", field=field)
    names = value.get("columns")
    if names is None:
        return _tensors(value["data"], form, limits, field)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"'columns' of '{field}' is not an array of names", field=field)
    if not isinstance(value["data"], list):
        raise InvalidInput(f"'data' of '{field}' is {kind(value['data'])}, not an array of rows", field=field)
    return form.from_columns(_by_name(names, value["data"], form, limits, field), limits)


def _tensors(value: Any, form: Form, limits: Limits, field: str) -> Inputs:
    """Returns rows that came as records, as lists, or as columns."""
    if isinstance(value, dict):
        if value and not any(isinstance(values, list) for values in value.values()):
            return form.from_rows([value], limits, field=field)
        return form.from_columns(value, limits, field=field)
    if not isinstance(value, list):
        raise InvalidInput(f"'{field}' is {kind(value)}, not rows or columns", field=field)
    first = value[0] if value else None
    if isinstance(first, list):
        return form.from_columns(_by_name(form.names, value, form, limits, field), limits)
    if not isinstance(first, dict) and len(form.names) == 1:
        return form.from_columns({form.names[0]: value}, limits)
    return form.from_rows(_filled(value, form), limits, field=field)


def _filled(rows: list[Any], form: Form) -> list[Any]:
    """Returns records in which what only some of them leave out is null, as in a data frame."""
    wanted = dict.fromkeys(form.names)
    if all(not isinstance(row, dict) or wanted.keys() <= row.keys() for row in rows):
        return rows
    seen = {name for row in rows if isinstance(row, dict) for name in row}
    absent = {name: None for name in form.names if name in seen}
    return [absent | row if isinstance(row, dict) else row for row in rows]


def _by_name(names: Sequence[str], rows: Sequence[Any], form: Form, limits: Limits, field: str) -> dict[str, list[Any]]:
    """Returns the columns that the form takes, of rows that are lists."""
    check_count(len(rows), limits, field)
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise InvalidInput(f"row {index} is {kind(row)}, not an array", row=index)
        if len(row) != len(names):
            raise InvalidInput(f"row {index} has {len(row)} values, but there are {len(names)} columns", row=index)
    known = frozenset(form.names)
    columns: dict[str, list[Any]] = {}
    for name, values in _columns(names, rows):
        if name in columns:
            raise InvalidInput(f"there are two columns '{name:.100}'; send each once", field=name)
        if name in known:
            columns[name] = values
    return columns


def _columns(names: Sequence[str], rows: Sequence[list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        yield name, list(values)


def _cell(text: str, wanted: ColumnType) -> Any:
    """Returns the value of a CSV cell; the text itself where it is not of the type, for the form to name it."""
    if not text or (text in _MISSING and wanted is not ColumnType.CATEGORY):
        return None
    if wanted in {ColumnType.NUMBER, ColumnType.INTEGER}:
        try:
            return text if "_" in text else float(text)
        except ValueError:
            return text
    return _TRUTHS.get(text.lower(), text) if wanted is ColumnType.BOOLEAN else text
