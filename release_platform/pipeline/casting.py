"""Casts the columns of any data frame to the types of a contract: one dtype per column type, whatever the source gave.

| column type | snapshot dtype | missing |
|---|---|---|
| number | float64 | NaN |
| integer | Int64 | NA |
| boolean | boolean | NA |
| category | string[pyarrow] | NA |
| timestamp | datetime64[us], UTC without zone | NaT |

Every cast runs in Arrow over whole columns. Rows are looked at one by one only to find the value that does not fit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from release_platform.domain.data_spec import label_text
from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType

_FAILURES = (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError)
_TRUTHS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
_MEANING = {
    ColumnType.NUMBER: "a finite number",
    ColumnType.INTEGER: "a whole number",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.CATEGORY: "text",
    ColumnType.TIMESTAMP: "an ISO 8601 time",
}


def cast_columns(frame: pd.DataFrame, types: Mapping[str, ColumnType], *, source: str) -> pa.Table:
    """Returns the named columns, cast, in the order of `types`: float64, int64, bool, large_string or timestamp[us].

    Raises:
        SourceError: A value does not fit its column's type; names row, column and value.
    """
    return pa.table({name: _column(frame[name], kind, source) for name, kind in types.items()})


def fits(series: "pd.Series[Any]", kind: ColumnType) -> bool:
    """Returns whether every value of a column can be cast to a type."""
    try:
        _cast(series, kind)
    except _FAILURES:
        return False
    return True


def _column(series: "pd.Series[Any]", kind: ColumnType, source: str) -> pa.ChunkedArray | pa.Array:
    try:
        return _cast(series, kind)
    except _FAILURES:
        row = _first_bad(series, kind)
    value = series.iloc[row]
    raise SourceError(
        f"{_shown(value)} is not {_MEANING[kind]}, as the contract's type '{kind}' asks",
        remedy="correct the value at its source, or change the column's `type` in the contract",
        source=source,
        row=row + 1,
        column=str(series.name),
    )


def _shown(value: object) -> str:
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_bad(series: "pd.Series[Any]", kind: ColumnType) -> int:
    low, high = 0, len(series)  # all rows before `low` fit; one of those before `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(series.iloc[low:middle], kind)
            low = middle
        except _FAILURES:
            high = middle
    present = series.iloc[low:].notna().to_numpy()
    return low + int(present.argmax())  # a column of a wrong type fails from its first row on, even where that is null


def _cast(series: "pd.Series[Any]", kind: ColumnType) -> pa.ChunkedArray | pa.Array:
    array = _arrow(series, kind)
    if pa.types.is_dictionary(array.type):
        array = pc.cast(array, array.type.value_type)
    if pa.types.is_null(array.type):
        array = pc.cast(array, _TARGETS[kind])
    if kind is not ColumnType.CATEGORY and _is_text(array.type):
        array = pc.utf8_trim_whitespace(array)
    return pc.cast(_CASTS[kind](array), _TARGETS[kind])


def _arrow(series: "pd.Series[Any]", kind: ColumnType) -> pa.ChunkedArray | pa.Array:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError):
        if kind is not ColumnType.CATEGORY:
            raise
    texts = [None if missing else label_text(value) for value, missing in zip(series, series.isna(), strict=True)]
    return pa.array(texts, type=pa.large_string())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _number(array: Any) -> Any:
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.int8())
    numbers = pc.cast(array, pa.float64(), safe=False)
    if pc.any(pc.is_inf(numbers)).as_py():
        raise ValueError("infinite")
    return numbers


def _integer(array: Any) -> Any:
    if _is_text(array.type):
        try:
            return pc.cast(array, pa.int64())
        except pa.ArrowInvalid:
            array = pc.cast(array, pa.float64())  # "3.0", as pandas writes an integer column that had missing values
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return pc.cast(array, pa.int64())


def _boolean(array: Any) -> Any:
    if pa.types.is_boolean(array.type):
        return array
    if _is_text(array.type):
        array = pc.utf8_lower(array)
        words = pa.array(list(_TRUTHS), type=array.type)
        found = pc.index_in(array, value_set=words)
        truths = pc.take(pa.array(list(_TRUTHS.values())), found)
    else:
        numbers = _integer(array)
        truths = pc.if_else(
            pc.is_in(numbers, value_set=pa.array([0, 1])), pc.equal(numbers, 1), pa.scalar(None, pa.bool_())
        )
        array = numbers
    if truths.null_count > array.null_count:
        raise ValueError("neither true nor false")
    return truths


def _category(array: Any) -> Any:
    if pa.types.is_floating(array.type):
        array = _whole_or_same(array)
    return pc.cast(array, pa.large_string())


def _whole_or_same(array: Any) -> Any:
    try:
        return _integer(array)  # codes that a source keeps as 1.0 because some are missing
    except pa.ArrowInvalid:
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _timestamp(array: Any) -> Any:
    if _is_text(array.type):
        array = _parsed(array)
    elif not (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        raise TypeError(f"{array.type} is no time")
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        return pc.cast(pc.cast(array, pa.timestamp("us", tz="UTC"), safe=False), pa.timestamp("us"))
    return pc.cast(array, pa.timestamp("us"), safe=False)


def _parsed(array: Any) -> Any:
    for kind in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            return pc.cast(array, kind)
        except pa.ArrowInvalid:
            continue
    texts = array.to_pandas()  # other forms of ISO 8601, and columns that mix them
    return pa.array(pd.to_datetime(texts, format="ISO8601", utc=True), from_pandas=True)


_CASTS: dict[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMBER: _number,
    ColumnType.INTEGER: _integer,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.CATEGORY: _category,
    ColumnType.TIMESTAMP: _timestamp,
}
_TARGETS: dict[ColumnType, pa.DataType] = {
    ColumnType.NUMBER: pa.float64(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.CATEGORY: pa.large_string(),
    ColumnType.TIMESTAMP: pa.timestamp("us"),
}
