"""What a `defs.yaml` says of the data: where it comes from, what holds for it, what is predicted, what is held out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Any, ClassVar

from release_platform.domain.features import ColumnType
from release_platform.domain.spec_rules import STRICT


def label_text(label: object) -> str:
    """Returns the text of a label: `true` and `false` for booleans, what `str` gives for anything else."""
    return str(label).lower() if isinstance(label, bool) else str(label)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSource:
    """A query against a SQLAlchemy URL. `url` may be `env:NAME`, read when the data is."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    url: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """A data file shipped inside an installed package, found without importing the package."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    package: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where the raw data comes from: exactly one of these.

    Attributes:
        csv: Path, glob or `s3://` address of CSV files (`.gz`, `.bz2`, `.zip`, `.xz` are unpacked).
        parquet: Path, glob or `s3://` address of Parquet files.
        sql: A query against a database.
        package: A file inside an installed package.
        python: `module:function`; called without arguments, returns a pandas data frame.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    csv: str | None = None
    parquet: str | None = None
    sql: SqlSource | None = None
    package: PackageSource | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("csv", "parquet", "sql", "package", "python") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of csv, parquet, sql, package, python (found {given or 'none'})")
        if self.python is not None and self.python.count(":") != 1:
            raise ValueError(f"'{self.python}' is not `module:function`")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpec:
    """Partitions of the raw data by calendar month, in UTC, of one timestamp column.

    Attributes:
        column: The timestamp column.
        start: First month, `YYYY-MM`, included.
        end: Last month, `YYYY-MM`, included; None: open, each month is one as soon as it is over.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    column: str
    start: str
    end: str | None = None

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if value is not None and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", value):
                raise ValueError(f"'{value}' is not a month like 2013-01")
        if self.end is not None and self.start > self.end:
            raise ValueError(f"the first month {self.start} is after the last, {self.end}")

    @property
    def until(self) -> str | None:
        """The first month that is no partition any more, whatever the time; None where the end is open."""
        return None if self.end is None else _month_text(_month_number(self.end) + 1)

    def keys_at(self, now: datetime) -> tuple[str, ...]:
        """Returns the months from `start` to `end`, both included, that are over at a moment, in order."""
        present = now.astimezone(UTC)
        over = present.year * 12 + present.month - 1
        until = over if self.end is None else min(over, _month_number(self.end) + 1)
        return tuple(_month_text(month) for month in range(_month_number(self.start), until))


def _month_number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:]) - 1


def _month_text(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContract:
    """What holds for every value of a column. Bounds are inclusive; they and `allowed` do not concern missing values.

    Attributes:
        type: What the column holds.
        nullable: Whether values may be missing.
        maximum_missing: Largest share of missing values, 0 to 1, both included; None: any.
        minimum: Smallest value.
        maximum: Largest value.
        allowed: The only values (categories).
        unique: Whether no value may come twice.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    type: ColumnType
    nullable: bool = False
    maximum_missing: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int | bool, ...] | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if any(limit is not None and not isfinite(limit) for limit in (self.minimum, self.maximum)):
            raise ValueError("minimum and maximum are finite numbers")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.maximum_missing is not None:
            if not 0 <= self.maximum_missing <= 1:
                raise ValueError("maximum_missing is a share from 0 to 1")
            if not self.nullable:
                raise ValueError("maximum_missing needs `nullable: true`")
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and self.type not in {ColumnType.NUMBER, ColumnType.INTEGER}:
            raise ValueError(f"minimum and maximum are for numbers, not for a {self.type}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSpec:
    """What holds for the raw data. Columns that are not named here are dropped.

    Attributes:
        columns: The contract of each column, by name.
        minimum_rows: Fewest rows that make sense.
        unique_together: Columns whose values together identify a row; a random split goes by them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    columns: Mapping[str, ColumnContract]
    minimum_rows: int = 50
    unique_together: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a contract names at least one column")
        if self.minimum_rows < 1:
            raise ValueError("minimum_rows is at least 1")
        for name in self.unique_together:
            if name not in self.columns:
                raise ValueError(f"unique_together names '{name}', which is no column of the contract")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What is predicted. `positive` is the label that a binary model's probability is of."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    column: str
    positive: str | int | bool | None = None

    @property
    def positive_label(self) -> str | None:
        """The positive label as the text that classes are written in: `true` and `false` for booleans."""
        return None if self.positive is None else label_text(self.positive)


class SplitStrategy(StrEnum):
    """How held-out rows are chosen."""

    RANDOM = "random"
    TIME = "time"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """How the data is split into training and held-out rows.

    Attributes:
        strategy: `random` (stratified for classes), `time` (the latest rows of `column` are held out, and rows of one
            instant never fall on both sides) or `group` (rows with equal `column` stay together).
        column: The column for `time` and `group`.
        test_share: Share of held-out rows, above 0 and below 1.
        allow_duplicates: Whether exact copies of training rows may be among the held-out rows.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    strategy: SplitStrategy = SplitStrategy.RANDOM
    column: str | None = None
    test_share: float = 0.25
    allow_duplicates: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError("test_share is above 0 and below 1")
        if (self.column is None) != (self.strategy is SplitStrategy.RANDOM):
            raise ValueError(f"the '{self.strategy}' split {'takes no' if self.column else 'needs a'} column")
