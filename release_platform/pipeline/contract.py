"""Brings raw data to the contract's types, then holds it to the contract's rules with pandera."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from release_platform.adapters.snapshot_store import to_frame
from release_platform.domain.data_spec import ColumnContract, ContractSpec, label_text
from release_platform.domain.errors import ContractError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.casting import cast_columns
from release_platform.pipeline.files import require_columns

SHOWN_ROWS = 3


def conform(frame: pd.DataFrame, contract: ContractSpec, *, source: str) -> pd.DataFrame:
    """Returns the contract's columns in its order and in the snapshot dtypes, indexed from 0.

    Args:
        frame: Raw data, at least the contract's columns.
        contract: What they shall be.
        source: Where the data came from, for messages.

    Raises:
        SourceError: A column is missing, or a value does not fit its column's type; names row, column and value.
    """
    require_columns(source, contract.columns, (str(column) for column in frame.columns))
    types = {name: column.type for name, column in contract.columns.items()}
    return to_frame(cast_columns(frame, types, source=source))


def check(frame: pd.DataFrame, contract: ContractSpec, *, source: str) -> None:
    """Holds data to its contract, all rules at once.

    Args:
        frame: Data as `conform` returns it, or rows of it: row numbers in messages are its index plus 1.
        contract: The rules.
        source: Where the data came from, for messages.

    Raises:
        ContractError: A rule is broken; each violation names the column, the rule, how many rows break it and the
            first few of them.
    """
    import pandera.pandas as pandera

    try:
        _schema(contract).validate(frame, lazy=True, inplace=True)
    except pandera.errors.SchemaErrors as errors:
        violations = [_violation(error, frame, contract) for error in errors.schema_errors]
        raise ContractError(source, violations) from None


def _schema(contract: ContractSpec) -> Any:
    import pandera.pandas as pandera

    fewest = contract.minimum_rows
    return pandera.DataFrameSchema(
        {name: _column(column) for name, column in contract.columns.items()},
        checks=pandera.Check(lambda frame: len(frame) >= fewest, name="minimum_rows", ignore_na=False),
        unique=list(contract.unique_together) or None,
    )


def _column(contract: ColumnContract) -> Any:
    import pandera.pandas as pandera

    return pandera.Column(
        nullable=contract.nullable,
        unique=contract.unique,
        checks=[pandera.Check(rule, name=said, ignore_na=False) for said, rule in _rules(contract)],
    )


def _rules(contract: ColumnContract) -> Iterator[tuple[str, Callable[["pd.Series[Any]"], Any]]]:
    """Yields each rule in words, with a function from a column to where (or whether) it holds; missing values hold."""
    if (minimum := contract.minimum) is not None:
        yield f"minimum {minimum:g}", lambda values: ~_true(values < minimum)
    if (maximum := contract.maximum) is not None:
        yield f"maximum {maximum:g}", lambda values: ~_true(values > maximum)
    if contract.allowed is not None:
        allowed = _allowed(contract)
        yield f"allowed {', '.join(map(str, allowed))}", lambda values: values.isin(allowed) | values.isna()
    if (share := contract.maximum_missing) is not None:
        yield f"maximum_missing {share:g}", lambda values: bool(values.isna().mean() <= share)
    yield _ALL_MISSING, lambda values: values.empty or not values.isna().all()


_ALL_MISSING = "not all missing"


def _true(comparison: "pd.Series[Any]") -> "pd.Series[Any]":
    return comparison.fillna(False).astype(bool)


def _allowed(contract: ColumnContract) -> list[Any]:
    assert contract.allowed is not None
    if contract.type is ColumnType.CATEGORY:
        return [label_text(value) for value in contract.allowed]
    return list(contract.allowed)


def _violation(error: Any, frame: pd.DataFrame, contract: ContractSpec) -> str:
    """Returns one sentence about one broken rule."""
    reason, rule = error.reason_code.name, getattr(error.check, "name", None)
    if rule == "minimum_rows":
        return f"minimum_rows {contract.minimum_rows:,}: there are {len(frame):,} rows"
    if reason == "DUPLICATES":
        keys = list(contract.unique_together)
        return _rows(f"unique_together {', '.join(keys)}", frame[keys], frame.duplicated(keys, keep=False))
    name = str(error.column_name or error.schema.name)
    values = frame[name]
    if rule is not None and rule.startswith((_ALL_MISSING, "maximum_missing")):
        return f"column '{name}', {rule}: {_missing(values)}"
    if reason == "SERIES_CONTAINS_NULLS":
        return _rows(f"column '{name}', not nullable", values, values.isna())
    if reason == "SERIES_CONTAINS_DUPLICATES":
        return _rows(f"column '{name}', unique", values, values.duplicated(keep=False))
    return _rows(f"column '{name}', {rule}", values, ~error.check_output)


def _missing(values: "pd.Series[Any]") -> str:
    count = int(values.isna().sum())
    return f"{count:,} of {len(values):,} values are missing"


def _rows(said: str, values: "pd.Series[Any] | pd.DataFrame", broken: "pd.Series[Any]") -> str:
    rows = values[broken.astype(bool)]
    first = rows.head(SHOWN_ROWS)
    shown = [f"row {index + 1} ({_shown(first.loc[index])})" for index in first.index]
    more = ", ..." if len(rows) > len(shown) else ""
    return f"{said}: {len(rows):,} row(s): {', '.join(shown)}{more}"


def _shown(value: Any) -> str:
    if isinstance(value, pd.Series):
        return ", ".join(_shown(part) for part in value)
    if pd.isna(value):
        return "missing"
    return f"{value!r:.40}" if isinstance(value, str) else f"{value}"
