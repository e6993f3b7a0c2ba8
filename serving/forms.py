"""Turns what a protocol parsed into the rows that a feature plan takes, or names the field and row at fault."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import (
    MISSING,
    Column,
    ColumnType,
    FeaturePlan,
    Input,
    InputError,
    Inputs,
    as_column,
)
from serving.errors import InvalidInput
from serving.limits import Limits
from serving.plain_json import PlainJson, is_whole

_SCALARS = frozenset({int, float, str, bool, type(None)})
_NUMBERS: frozenset[type] = frozenset({int, float})
_NUMBERS_OR_NULL: frozenset[type] = frozenset({int, float, type(None)})
_LONGEST_NAME = 100  # beyond it no likeness is looked for
_SHOWN = 10


@lru_cache(maxsize=32)
def form_of(plan: FeaturePlan) -> "Form":
    """Returns the form of a plan, which takes some time to be made; one for all versions that have the plan."""
    return Form(plan)


class Form:
    """The form that the rows of one model have.

    Every input must be given, null included; no other may be, unless the limits say that it is left out.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._plan = plan
        self.names = [column.name for column in plan.inputs]
        self._wanted = dict.fromkeys(self.names)
        self._numeric = plan.plain and all(column.type is not ColumnType.BOOLEAN for column in plan.inputs)
        self.plain_json = PlainJson(plan) if self._numeric else None
        """The quick way to read JSON, for rows that are numbers only."""

    def from_rows(self, rows: Any, limits: Limits, *, field: str = "rows") -> Inputs:
        """Returns rows that came as a list of objects.

        Raises:
            InvalidInput: They are not what the plan takes.
        """
        if not isinstance(rows, list):
            raise InvalidInput(f"'{field}' is {kind(rows)}, not an array of objects", field=field)
        check_count(len(rows), limits, field)
        quick = self._quick_rows(rows)
        if quick is not None:
            return quick
        given = [self._named(row, limits, index) for index, row in enumerate(rows)]
        return self._read({name: [row[name] for row in given] for name in self.names}, limits)

    def from_columns(self, columns: Any, limits: Limits, *, field: str = "columns") -> Inputs:
        """Returns rows that came as an object of arrays. Raises as `from_rows`."""
        if not isinstance(columns, dict):
            raise InvalidInput(f"'{field}' is {kind(columns)}, not an object of arrays", field=field)
        columns = self._named(columns, limits, None)
        for name in self.names:
            if not isinstance(columns[name], list):
                raise InvalidInput(f"the column '{name}' is {kind(columns[name])}, not an array", field=name)
        n_rows = self._equal_lengths({name: len(columns[name]) for name in self.names})
        check_count(n_rows, limits, field)
        quick = self._quick_columns(columns)
        return self._read(columns, limits) if quick is None else quick

    def from_arrays(self, columns: Mapping[str, Column], limits: Limits) -> Inputs:
        """Returns rows that came as typed arrays, each of shape (n_rows,).

        Args:
            columns: Numbers (float, int), bool, text (object, `None` for missing) or datetime64; in floats NaN, and in
                times NaT, stand for missing.
            limits: What may be given.

        Raises:
            InvalidInput: They are not what the plan takes.
        """
        columns = self._named(columns, limits, None)
        n_rows = self._equal_lengths({name: len(columns[name]) for name in self.names})
        check_count(n_rows, limits, "columns")
        typed = {column.name: _typed(column, columns[column.name]) for column in self._plan.inputs}
        return self._packed(typed, limits)

    def from_matrix(self, matrix: npt.NDArray[Any], limits: Limits) -> Inputs:
        """Returns rows that came as one array of numbers, shape (n_rows, n_inputs), columns in the plan's order.

        Raises:
            InvalidInput: They are not what the plan takes.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(self.names):
            shape = "x".join(str(length) for length in matrix.shape)
            raise InvalidInput(f"the array has shape {shape}; the model takes {len(self.names)} columns")
        check_count(len(matrix), limits, "rows")
        if self._numeric and matrix.dtype.kind == "f" and self._is_clean(matrix):
            return np.ascontiguousarray(matrix, dtype=np.float64)
        return self.from_arrays({name: matrix[:, place] for place, name in enumerate(self.names)}, limits)

    @cached_property
    def _types(self) -> frozenset[type]:
        """The types that values of a quick request have: null only where every input may be."""
        return _NUMBERS_OR_NULL if all(column.nullable for column in self._plan.inputs) else _NUMBERS

    @cached_property
    def _whole(self) -> list[int]:
        return [place for place, column in enumerate(self._plan.inputs) if column.type is ColumnType.INTEGER]

    @cached_property
    def _times(self) -> list[str]:
        return [column.name for column in self._plan.inputs if column.type is ColumnType.TIMESTAMP]

    @cached_property
    def _get(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        get = itemgetter(*self.names)
        return get if len(self.names) > 1 else lambda row: (get(row),)

    def _quick_rows(self, rows: list[Any]) -> Inputs | None:
        """Returns rows of plain numbers as a matrix; None where anything needs a closer look."""
        if not self._numeric:
            return None
        wanted, get = self._wanted.keys(), self._get
        flat: list[Any] = []
        for row in rows:
            if type(row) is not dict or row.keys() != wanted:
                return None
            flat += get(row)
        matrix = self._quick(flat)
        return None if matrix is None else self._if_whole(matrix.reshape(len(rows), -1))

    def _quick_columns(self, columns: Mapping[str, list[Any]]) -> Inputs | None:
        if not self._numeric:
            return None
        flat = list(chain.from_iterable(columns[name] for name in self.names))
        matrix = self._quick(flat)
        return None if matrix is None else self._if_whole(np.ascontiguousarray(matrix.reshape(len(self.names), -1).T))

    def _quick(self, values: list[Any]) -> npt.NDArray[np.float64] | None:
        if not self._types.issuperset(map(type, values)):
            return None
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:  # a whole number of hundreds of digits
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(numbers)  # quicker than to look at each; if it is not finite, each is
        sound = isfinite(total) or np.isfinite(numbers).sum() + values.count(None) == len(values)
        return numbers if sound else None

    def _if_whole(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Returns the matrix itself, or None when a whole number is wanted where there is none."""
        return matrix if not self._whole or is_whole(matrix[:, self._whole]) else None

    def _is_clean(self, matrix: npt.NDArray[Any]) -> bool:
        sound = ~np.isinf(matrix) if type(None) in self._types else np.isfinite(matrix)
        return bool(sound.all()) and self._if_whole(matrix) is not None

    def _named(self, given: Any, limits: Limits, row: int | None) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            raise InvalidInput(f"row {row} is {kind(given)}, not an object", row=row)
        if given.keys() == self._wanted.keys():
            return given
        if limits.ignore_extra and self._wanted.keys() <= given.keys():
            return given
        raise _misnamed(given, self.names, row, ignore_extra=limits.ignore_extra)

    def _equal_lengths(self, lengths: Mapping[str, int]) -> int:
        first = self.names[0]
        for name, length in lengths.items():
            if length != lengths[first]:
                raise InvalidInput(f"'{name}' has {length} values, but '{first}' has {lengths[first]}", field=name)
        return lengths[first]

    def _read(self, raw: Mapping[str, Sequence[Any]], limits: Limits) -> Inputs:
        if limits.takes_nat and self._times:
            raw = dict(raw) | {name: [None if value == "NaT" else value for value in raw[name]] for name in self._times}
        return self._packed({column.name: _column(column, raw[column.name]) for column in self._plan.inputs}, limits)

    def _packed(self, columns: Mapping[str, Column], limits: Limits) -> Inputs:
        for column in self._plan.inputs if limits.refuse_unknown else ():
            _check_known(column, columns[column.name])
        return self._plan.packed(columns)


def check_count(n_rows: int, limits: Limits, field: str) -> None:
    """Refuses no rows, and more than may come in one request.

    Raises:
        InvalidInput: It is either.
    """
    if n_rows == 0:
        raise InvalidInput("there are no rows; send at least one", field=field)
    if n_rows > limits.max_rows:
        detail = f"{n_rows:,} rows are more than the {limits.max_rows:,} of one request; send them in parts"
        raise InvalidInput(detail, field=field)


def check_route_key(key: object) -> None:
    """Refuses a key to be routed by that is given and is no text.

    Raises:
        InvalidInput: It is none.
    """
    if key is not None and not isinstance(key, str):
        raise InvalidInput(f"'route_key' is {kind(key)}, not text", field="route_key")


def kind(value: object) -> str:
    """Returns what a JSON value is, in words."""
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _column(column: Input, values: Sequence[Any]) -> Column:
    if not _SCALARS.issuperset(map(type, values)):
        row = next(i for i, value in enumerate(values) if type(value) not in _SCALARS)
        detail = f"row {row}, '{column.name}': is {kind(values[row])}, not a single value"
        raise InvalidInput(detail, field=column.name, row=row)
    try:
        return as_column(column, values)
    except InputError as error:
        raise InvalidInput(str(error), field=error.field, row=error.row) from None


def _check_known(column: Input, values: Column) -> None:
    known = {*column.allowed, MISSING}
    if column.allowed and not known.issuperset(values):
        row = next(i for i, value in enumerate(values) if value not in known)
        listed = ", ".join(f"'{value:.40}'" for value in column.allowed[:_SHOWN])
        raise _at(column, row, f"'{values[row]:.40}' is not among the known: {listed}")


def _typed(column: Input, values: Column) -> Column:
    match column.type, values.dtype.kind:
        case ((ColumnType.NUMBER | ColumnType.INTEGER), "f" | "i" | "u"):
            return _numbers(column, values.astype(np.float64))
        case ColumnType.TIMESTAMP, "M":
            return _present(column, values.astype("datetime64[us]"), np.isnat(values))
        case ColumnType.BOOLEAN, "b":
            return values.astype(np.float64)
        case _, ("O" | "b" | "f" | "i" | "u") as found:
            # Text, and what does not fit: the one reader of single values says what is wrong with which row.
            absent = np.isnan(values) if found == "f" else np.zeros(len(values), dtype=np.bool_)
            return _column(
                column, [None if gone else value for value, gone in zip(values.tolist(), absent, strict=True)]
            )
        case _:
            raise InvalidInput(f"'{column.name}' holds {values.dtype}, not {column.type.value}", field=column.name)


def _numbers(column: Input, values: npt.NDArray[np.float64]) -> Column:
    infinite = np.isinf(values)
    if infinite.any():
        raise _at(column, int(np.argmax(infinite)), "is not finite; send a missing value instead")
    if column.type is ColumnType.INTEGER:
        broken = (np.floor(values) != values) & ~np.isnan(values)
        if broken.any():
            row = int(np.argmax(broken))
            raise _at(column, row, f"is not a whole number: {values[row]!r:.40}")
    return _present(column, values, np.isnan(values))


def _present(column: Input, values: Column, absent: npt.NDArray[np.bool_]) -> Column:
    if not column.nullable and absent.any():
        raise _at(column, int(np.argmax(absent)), "is missing; this input may not be null")
    return values


def _at(column: Input, row: int, problem: str) -> InvalidInput:
    return InvalidInput(f"row {row}, '{column.name}': {problem}", field=column.name, row=row)


def _misnamed(given: Mapping[str, Any], names: Sequence[str], row: int | None, *, ignore_extra: bool) -> InvalidInput:
    where = "there" if row is None else f"in row {row}, there"
    known = set(names)
    missing = [name for name in names if name not in given]
    extra = [name for name in given if name not in known]
    if extra and not ignore_extra:
        close = get_close_matches(extra[0], missing or names, n=1) if len(extra[0]) <= _LONGEST_NAME else []
        hint = f"did you mean '{close[0]}'?" if close else "leave it out"
        detail = f"{where} is '{extra[0]:.100}', which the model does not take; {hint}"
        return InvalidInput(detail, field=extra[0], row=row, missing=missing)
    listed = ", ".join(f"'{name}'" for name in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    detail = f"{where} is no {listed}; send every input, null where one may be missing"
    return InvalidInput(detail, field=missing[0], row=row, missing=missing)
