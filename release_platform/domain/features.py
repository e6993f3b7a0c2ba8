"""The feature plan: what a model takes, and what is derived from it row by row.

One plan serves twice: the `features` asset applies it to the training data and serving applies it to a request, so the
two cannot differ. Nothing in a plan is fitted; whatever learns from data lives inside the model's pipeline.

Columns are NumPy arrays of shape (n_rows,): numbers, integers and booleans as float64 with NaN for missing, categories
as object arrays of text with `MISSING` for missing, timestamps as datetime64[us] with NaT for missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import inf, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING = "<missing>"
MAXIMUM_NAMES = 100_000
MAXIMUM_COMBINED = 32

Column = npt.NDArray[Any]
Inputs = Mapping[str, Column] | npt.NDArray[np.float64]
"""Rows as a plan takes them: each input by name, or, of a plain plan, one matrix of shape (n_rows, n_inputs)."""


class ColumnType(StrEnum):
    """What a column holds."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    TIMESTAMP = "timestamp"


class Operation(StrEnum):
    """A stateless, row-wise derivation of one feature from one or two columns."""

    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    LOG1P = "log1p"
    ABSOLUTE = "absolute"
    IS_MISSING = "is_missing"
    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"
    SINE_OF_DAY = "sine_of_day"
    COSINE_OF_DAY = "cosine_of_day"
    COMBINE = "combine"


_PAIR = {Operation.ADD, Operation.SUBTRACT, Operation.MULTIPLY, Operation.DIVIDE, Operation.COMBINE}
_OF_TIME = {Operation.HOUR, Operation.WEEKDAY, Operation.MONTH, Operation.SINE_OF_DAY, Operation.COSINE_OF_DAY}
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A column that the model's clients send.

    Attributes:
        allowed: The only texts that the contract knows, for a category; empty where it names none.
    """

    name: str
    type: ColumnType
    nullable: bool = False
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an input needs a name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A feature computed from inputs (or from features derived before it)."""

    name: str
    operation: Operation
    of: tuple[str, ...]

    def __post_init__(self) -> None:
        wanted = 2 if self.operation in _PAIR else 1
        if len(self.of) != wanted:
            raise ValueError(f"{self.name}: '{self.operation}' takes {wanted} column(s), not {len(self.of)}")

    @property
    def type(self) -> ColumnType:
        """The type of the result."""
        return ColumnType.CATEGORY if self.operation is Operation.COMBINE else ColumnType.NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePlan:
    """Inputs, derivations in order, and the names of the features that the model is given, in order."""

    inputs: tuple[Input, ...]
    derived: tuple[Derived, ...]
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self._names):
            raise ValueError("a name in the plan is no text")
        if len(self._names) > MAXIMUM_NAMES:
            raise ValueError(f"the plan names more than {MAXIMUM_NAMES:,} columns")
        types = {column.name: column.type for column in self.inputs}
        combined = dict.fromkeys(types, 1)
        if len(types) != len(self.inputs):
            raise ValueError("an input is named twice")
        for step in self.derived:
            if step.name in types:
                raise ValueError(f"'{step.name}' is named twice")
            for source in step.of:
                if source not in types:
                    raise ValueError(
                        f"'{step.name}' is derived from '{source}', which is no input and not derived before it"
                    )
                _check_type(step, source, types[source])
            if len({types[source] is ColumnType.TIMESTAMP for source in step.of}) > 1:
                raise ValueError(f"'{step.name}': a timestamp and a number cannot be taken together")
            types[step.name] = step.type
            combined[step.name] = sum(combined[source] for source in step.of) if step.type is ColumnType.CATEGORY else 1
            if combined[step.name] > MAXIMUM_COMBINED:  # each text is as long as all that it is made of
                raise ValueError(f"'{step.name}' combines more than {MAXIMUM_COMBINED} columns")
        for name in self.features:
            if name not in types:
                raise ValueError(f"the feature '{name}' is neither an input nor derived")
            if types[name] is ColumnType.TIMESTAMP:
                raise ValueError(f"the feature '{name}' is a timestamp: derive hour, weekday or month from it instead")
        if not self.features:
            raise ValueError("a model needs at least one feature")

    @property
    def _names(self) -> list[str]:
        steps = [name for step in self.derived for name in (step.name, *step.of)]
        return [*(column.name for column in self.inputs), *steps, *self.features]

    @property
    def plain(self) -> bool:
        """Whether the features are the inputs, in order, and all of them numbers: one matrix holds the rows then."""
        numeric = {ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN}
        return self.features == tuple(c.name for c in self.inputs) and all(c.type in numeric for c in self.inputs)

    def packed(self, columns: Mapping[str, Column]) -> Inputs:
        """Returns rows as one matrix where the plan is plain, else as they are."""
        return np.column_stack([columns[name] for name in self.features]) if self.plain else columns

    def columns(self, inputs: Inputs) -> Mapping[str, Column]:
        """Returns rows as columns, whichever form they have."""
        if isinstance(inputs, np.ndarray):
            return {column.name: inputs[:, place] for place, column in enumerate(self.inputs)}
        return inputs

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of each feature, in order."""
        every = {c.name: c.type for c in self.inputs} | {d.name: d.type for d in self.derived}
        return {name: every[name] for name in self.features}

    def apply(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Returns the features of these rows.

        Args:
            columns: Each input by name, shape (n_rows,), as `as_column` returns it.

        Returns:
            Each feature by name, in order, shape (n_rows,): float64 (NaN: missing) or object (text).

        Raises:
            KeyError: An input is absent.
        """
        have = self.derive(columns)
        return {name: have[name] for name in self.features}

    def derive(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Returns the inputs of these rows, and all that is derived from them, in order. As `apply`."""
        have: dict[str, Column] = {column.name: columns[column.name] for column in self.inputs}
        with np.errstate(all="ignore"):  # what overflows is judged by the answer
            for step in self.derived:
                have[step.name] = _OPERATIONS[step.operation](*(have[name] for name in step.of))
        return have

    def sources_of(self, name: str) -> list[str]:
        """Returns the inputs that an input or a derived column is made of, at least one, each once."""
        found = dict.fromkeys([name])
        for step in reversed(self.derived):  # each is derived from inputs, or from those before it
            if step.name in found:
                found |= dict.fromkeys(step.of)
        return [column.name for column in self.inputs if column.name in found]

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as a JSON value."""
        return {
            "inputs": [_input_json(column) for column in self.inputs],
            "derived": [{"name": d.name, "operation": d.operation.value, "of": list(d.of)} for d in self.derived],
            "features": list(self.features),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "FeaturePlan":
        """Returns the plan that `to_json` wrote."""
        return FeaturePlan(
            inputs=tuple(
                Input(
                    name=c["name"],
                    type=ColumnType(c["type"]),
                    nullable=bool(c["nullable"]),
                    allowed=tuple(c.get("allowed", ())),
                )
                for c in value["inputs"]
            ),
            derived=tuple(
                Derived(name=d["name"], operation=Operation(d["operation"]), of=tuple(d["of"]))
                for d in value["derived"]
            ),
            features=tuple(value["features"]),
        )


def _input_json(column: Input) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "type": column.type.value, "nullable": column.nullable}
    return described | ({"allowed": list(column.allowed)} if column.allowed else {})


def _check_type(step: Derived, source: str, found: ColumnType) -> None:
    if step.operation is Operation.IS_MISSING:
        return
    if step.operation in _OF_TIME:
        fits = found is ColumnType.TIMESTAMP
    elif step.operation is Operation.COMBINE:
        fits = found is ColumnType.CATEGORY
    elif step.operation is Operation.SUBTRACT and found is ColumnType.TIMESTAMP:
        fits = True
    else:
        fits = found in {ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN}
    if not fits:
        raise ValueError(f"'{step.name}': '{step.operation}' does not take the {found} '{source}'")


def n_rows_of(inputs: Inputs) -> int:
    """Returns how many rows there are."""
    return len(inputs) if isinstance(inputs, np.ndarray) else len(next(iter(inputs.values())))


def is_missing(column: Column) -> npt.NDArray[np.bool_]:
    """Returns where a column, as a plan takes it, is missing. Shape (n_rows,), bool."""
    if column.dtype.kind == "M":
        return np.isnat(column)
    if column.dtype.kind == "O":
        return np.asarray(column == MISSING, dtype=np.bool_)
    return np.isnan(column)


def _subtract(a: Column, b: Column) -> Column:
    if a.dtype.kind == "M":
        return np.where(np.isnat(a) | np.isnat(b), np.nan, (a - b) / np.timedelta64(1, "s"))
    return a - b


def _divide(a: Column, b: Column) -> Column:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b == 0, np.nan, a / b)


def _log1p(a: Column) -> Column:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a > -1, np.log1p(a), np.nan)


def _of_day(a: Column) -> Column:
    seconds = (a - a.astype("datetime64[D]")) / np.timedelta64(1, "s")
    return np.where(np.isnat(a), np.nan, seconds) * (2 * np.pi / _DAY_S)


def _hour(a: Column) -> Column:
    return np.where(
        np.isnat(a), np.nan, (a.astype("datetime64[h]") - a.astype("datetime64[D]")) / np.timedelta64(1, "h")
    )


def _weekday(a: Column) -> Column:
    days = a.astype("datetime64[D]").astype(np.int64)
    return np.where(np.isnat(a), np.nan, (days + 3) % 7)  # 1970-01-01 was a Thursday; Monday is 0


def _month(a: Column) -> Column:
    months = a.astype("datetime64[M]").astype(np.int64)
    return np.where(np.isnat(a), np.nan, months % 12 + 1)


def _combine(a: Column, b: Column) -> Column:
    both = np.array([f"{x}|{y}" for x, y in zip(a, b, strict=True)], dtype=object)
    both[is_missing(a) | is_missing(b)] = MISSING
    return both


_OPERATIONS: dict[Operation, Callable[..., Column]] = {
    Operation.ADD: lambda a, b: a + b,
    Operation.SUBTRACT: _subtract,
    Operation.MULTIPLY: lambda a, b: a * b,
    Operation.DIVIDE: _divide,
    Operation.LOG1P: _log1p,
    Operation.ABSOLUTE: np.abs,
    Operation.IS_MISSING: lambda a: is_missing(a).astype(np.float64),
    Operation.HOUR: _hour,
    Operation.WEEKDAY: _weekday,
    Operation.MONTH: _month,
    Operation.SINE_OF_DAY: lambda a: np.sin(_of_day(a)),
    Operation.COSINE_OF_DAY: lambda a: np.cos(_of_day(a)),
    Operation.COMBINE: _combine,
}


class InputError(ValueError):
    """A value that a plan's input does not take.

    Attributes:
        field: The input's name.
        row: 0-based row of the request.
        problem: What is wrong with it.
    """

    def __init__(self, field: str, row: int, problem: str) -> None:
        super().__init__(f"row {row}, '{field}': {problem}")
        self.field = field
        self.row = row
        self.problem = problem


def as_column(column: Input, values: Sequence[object]) -> Column:
    """Returns JSON values as a column that a plan takes.

    Args:
        column: The input that they are of.
        values: One per row: numbers, booleans, text, or None for missing. Timestamps are ISO 8601 text; one without an
            offset is taken as UTC.

    Raises:
        InputError: A value is missing and may not be, has another type, or is not finite. Names the first such row.
    """
    read = _READERS[column.type]
    out: list[object] = []
    for row, value in enumerate(values):
        if value is None:
            if not column.nullable:
                raise InputError(column.name, row, "is missing; this input may not be null")
            out.append(_ABSENT[column.type])
            continue
        try:
            out.append(read(value))
        except (ValueError, OverflowError) as error:
            raise InputError(column.name, row, str(error)) from None
    return np.array(out, dtype=_DTYPES[column.type])


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value!r:.40}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _read_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"is not a number: {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = inf
    if not isfinite(number):
        raise ValueError("is not finite; send null for a missing value")
    return number


def _read_integer(value: object) -> float:
    number = _read_number(value)
    if not number.is_integer():
        raise ValueError(f"is not a whole number: {_shown(value)}")
    return number


def _read_boolean(value: object) -> float:
    if not isinstance(value, bool):
        raise ValueError(f"is not true or false: {_shown(value)}")
    return float(value)


def _read_category(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not text: {_shown(value)}")
    value.encode()  # a lone surrogate is a UnicodeEncodeError, hence a ValueError
    if value == MISSING:
        raise ValueError(f"is the reserved text {MISSING}; send null for a missing value")
    return value


def _read_timestamp(value: object) -> np.datetime64:
    if not isinstance(value, str):
        raise ValueError(f"is not an ISO 8601 time: {_shown(value)}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"is not an ISO 8601 time: {_shown(value)}") from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


_READERS: dict[ColumnType, Callable[[object], object]] = {
    ColumnType.NUMBER: _read_number,
    ColumnType.INTEGER: _read_integer,
    ColumnType.BOOLEAN: _read_boolean,
    ColumnType.CATEGORY: _read_category,
    ColumnType.TIMESTAMP: _read_timestamp,
}
_ABSENT: dict[ColumnType, object] = {
    ColumnType.NUMBER: np.nan,
    ColumnType.INTEGER: np.nan,
    ColumnType.BOOLEAN: np.nan,
    ColumnType.CATEGORY: MISSING,
    ColumnType.TIMESTAMP: np.datetime64("NaT", "us"),
}
_DTYPES: dict[ColumnType, str] = {
    ColumnType.NUMBER: "float64",
    ColumnType.INTEGER: "float64",
    ColumnType.BOOLEAN: "float64",
    ColumnType.CATEGORY: "object",
    ColumnType.TIMESTAMP: "datetime64[us]",
}
