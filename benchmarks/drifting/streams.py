"""Days of rows: stationary, with columns that hang together, or with a shift of which everything is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.domain.drift import Rows, with_floors
from release_platform.domain.features import Column
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import Reference, summarised
from release_platform.pipeline.domain_classifier import learned
from release_platform.pipeline.drift_reference import Known

Columns = dict[str, Column]
REFERENCE_DAYS = 60
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_NAMES = np.array([f"category {i}" for i in range(12)], dtype=object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A change of the columns: what it is in words, and what it does to a day's columns."""

    said: str
    apply: Callable[[Columns, np.random.Generator], Columns]


def day(rng: np.random.Generator, n_columns: int, n_rows: int) -> Columns:
    """Returns a day: normal columns with a common factor, lognormal ones, counts, a tenth missing, categories."""
    shared = rng.normal(size=n_rows)
    return {f"c{place}": _KINDS[place % len(_KINDS)](rng, shared) for place in range(n_columns)}


def rows_of(columns: Mapping[str, Column], number: int) -> Rows:
    """Returns the rows of a numbered day."""
    begins = BEGIN + timedelta(days=number)
    return Rows(begins=begins, ends=begins + timedelta(days=1), columns=columns)


def known(rng: np.random.Generator, n_columns: int, n_rows: int) -> Known:
    """Returns what `REFERENCE_DAYS` stationary days teach: their reference, with floors, and the domain classifier."""
    days = [day(rng, n_columns, n_rows) for _ in range(REFERENCE_DAYS)]
    every = {name: np.concatenate([one[name] for one in days]) for name in days[0]}
    columns = {name: summarised(values) for name, values in every.items()}
    windows = tuple(np.split(np.arange(REFERENCE_DAYS * n_rows), REFERENCE_DAYS))
    classifier, together = learned(pd.DataFrame(every), windows, named="m 1")
    floors = with_floors(columns, days) | {DOMAIN_CLASSIFIER: together}
    reference = Reference(model="m", version="1", columns=columns, outputs={}, floors=floors, n_windows=len(days))
    return Known(reference=reference, classifier=classifier, calibration=None)


def moved(column: str, by: float) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns a shift of a column of numbers, in units of a standard deviation of 1."""
    return lambda columns, _: columns | {column: columns[column] + by}


def turned(column: str) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns the other sign of a column that is as often below 0 as above: alone it shows nothing."""
    return lambda columns, _: columns | {column: -columns[column]}


def spread(column: str, by: float) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns a wider spread around 0."""
    return lambda columns, _: columns | {column: columns[column] * by}


def lost(column: str, share: float) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns missing values for a share of the rows."""

    def apply(columns: Columns, rng: np.random.Generator) -> Columns:
        values = columns[column]
        return columns | {column: np.where(rng.random(len(values)) < share, np.nan, values)}

    return apply


def replaced(column: str, share: float, by: str) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns another category for a share of the rows."""

    def apply(columns: Columns, rng: np.random.Generator) -> Columns:
        values = columns[column]
        return columns | {column: np.where(rng.random(len(values)) < share, by, values).astype(object)}

    return apply


def moved_all(by: float) -> Callable[[Columns, np.random.Generator], Columns]:
    """Returns a shift of every normal column."""
    return lambda columns, _: (
        columns
        | {name: values + by for place, (name, values) in enumerate(columns.items()) if place % len(_KINDS) == 0}
    )


def _gappy(rng: np.random.Generator, shared: npt.NDArray[np.float64]) -> Column:
    values = 0.5 * shared + rng.normal(size=len(shared))
    values[rng.random(len(shared)) < 0.1] = np.nan
    return values


def _category(rng: np.random.Generator, shared: npt.NDArray[np.float64]) -> Column:
    found: npt.NDArray[Any] = _NAMES[np.minimum(rng.geometric(0.25, size=len(shared)), len(_NAMES)) - 1]
    return found


_KINDS: tuple[Callable[[np.random.Generator, npt.NDArray[np.float64]], Column], ...] = (
    lambda rng, shared: 0.6 * shared + 0.8 * rng.normal(size=len(shared)),
    lambda rng, shared: np.exp(rng.normal(size=len(shared))),
    lambda rng, shared: rng.poisson(3, size=len(shared)).astype(np.float64),
    _gappy,
    _category,
)
