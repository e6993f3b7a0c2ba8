"""Looks at the columns of a table: what each holds, and whether a model can learn from it."""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from release_platform.domain.data_spec import ColumnContract, ContractSpec, label_text
from release_platform.domain.features import ColumnType
from release_platform.pipeline.casting import fits
from release_platform.pipeline.contract import conform

_ID_NAME = re.compile(r"(?:^|[_\W])(?:id|uuid|guid|key|nr|no|number|index)$|Id$|ID$", re.ASCII)
_LEADING_ZERO = r"^[+-]?0\d"
_FREE_TEXT_LENGTH = 50
_MANY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """What one column holds.

    Attributes:
        name: The column's name.
        type: What its values are.
        missing: Share of missing values, 0 to 1.
        n_unique: Number of different values, missing ones not counted.
        non_negative: Whether it holds numbers, and none below 0.
        left_out: Why a model should not be given it; empty where it may.
    """

    name: str
    type: ColumnType
    missing: float
    n_unique: int
    non_negative: bool
    left_out: str


def infer_types(raw: pd.DataFrame) -> dict[str, ColumnType]:
    """Returns the narrowest type that every value of each column fits; text such as `007` stays text."""
    return {str(name): _infer(raw[name]) for name in raw.columns}


def typed(raw: pd.DataFrame, types: dict[str, ColumnType], *, source: str) -> pd.DataFrame:
    """Returns a table in the snapshot dtypes of these types."""
    columns = {name: ColumnContract(type=kind, nullable=True) for name, kind in types.items()}
    return conform(raw, ContractSpec(columns=columns), source=source)


def look_at(values: "pd.Series[Any]", kind: ColumnType, target: "pd.Series[Any] | None") -> ColumnProfile:
    """Returns the profile of a column in its snapshot dtype.

    Args:
        values: The column.
        kind: Its type.
        target: The target's column where it holds classes, to notice a column that merely repeats it.
    """
    numeric = kind in {ColumnType.NUMBER, ColumnType.INTEGER}
    n_unique = int(values.nunique())
    return ColumnProfile(
        name=str(values.name),
        type=kind,
        missing=float(values.isna().mean()),
        n_unique=n_unique,
        non_negative=numeric and bool((values.dropna() >= 0).all()),
        left_out=_left_out(values, kind, n_unique) or _repeats(values, target, n_unique),
    )


def labels_of(values: "pd.Series[Any]") -> dict[str, int]:
    """Returns the text of each class with its number of rows, the most frequent first."""
    return {label_text(label): int(count) for label, count in values.value_counts().items()}


def _infer(series: "pd.Series[Any]") -> ColumnType:
    kind = (
        pa.array(series, from_pandas=True).type
        if not isinstance(series.dtype, pd.ArrowDtype)
        else series.dtype.pyarrow_dtype
    )
    if pa.types.is_boolean(kind):
        return ColumnType.BOOLEAN
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return ColumnType.TIMESTAMP
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not numeric and _is_code(series):
        return ColumnType.CATEGORY
    order = (
        (ColumnType.INTEGER, ColumnType.NUMBER)
        if numeric
        else (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIMESTAMP)
    )
    return next((candidate for candidate in order if fits(series, candidate)), _text_type(series))


def _is_code(series: "pd.Series[Any]") -> bool:
    texts = series.dropna().astype(str)
    return texts.empty or bool(texts.str.contains(_LEADING_ZERO, regex=True).any())


def _text_type(series: "pd.Series[Any]") -> ColumnType:
    words = set(series.dropna().astype(str).str.lower().unique())
    return ColumnType.BOOLEAN if words and words <= {"true", "false"} else ColumnType.CATEGORY


def _left_out(values: "pd.Series[Any]", kind: ColumnType, n_unique: int) -> str:
    n_present = int(values.notna().sum())
    if n_present == 0:
        return "has no value in any row"
    if n_unique == 1:
        return "is constant"
    if kind is ColumnType.CATEGORY:
        texts = values.dropna()
        if float(texts.str.len().mean()) > _FREE_TEXT_LENGTH:
            return "looks like free text"
        if n_unique > _MANY * n_present:
            return f"has {n_unique:,} different values in {n_present:,} rows: looks like an identifier"
    if kind is ColumnType.INTEGER and n_unique == n_present:
        consecutive = int(values.max()) - int(values.min()) + 1 == n_present
        if consecutive or _ID_NAME.search(str(values.name)):
            return "is different in every row: looks like an identifier"
    return ""


def _repeats(values: "pd.Series[Any]", target: "pd.Series[Any] | None", n_unique: int) -> str:
    """Says so where each value of a column stands for one class, and each class for one value."""
    if target is None or n_unique != int(target.nunique()):
        return ""
    pairs = pd.DataFrame({"column": pd.factorize(values)[0], "target": pd.factorize(target)[0]}).drop_duplicates()
    return f"repeats the target '{target.name}': the model would be told the answer" if len(pairs) == n_unique else ""
