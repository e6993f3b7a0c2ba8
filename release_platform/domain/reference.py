"""What the columns of a version's training data looked like, in summaries that add up and are kept as JSON.

Numbers are kept as a sketch: sorted values with how many rows lie at each and below it down to the one before. Up to
`POINTS` different values are kept exactly. Of more, about evenly spaced quantiles are kept: how many rows lie at or
below a kept value stays exact, and between two of them at most about a `POINTS`-th of the rows is not placed. Which are
kept follows from the data alone. Sketches merge; what is then not exact any more, they say.

Missing and not finite numbers are missing. They are a value of their own, below all others, so that one comparison sees
both what the values are and how many there are.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import MISSING, Column
from release_platform.domain.json_form import exactly
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER

FORMAT = 1
LABEL = "label"
"""The column of what would have been right."""
REAL_LOSS = "real log loss"
"""The column of how little of the probability went to what was right, of a binary model: its negative logarithm."""
REFUSED_CALLS = "refused calls"
"""How alarms name calls that were refused, among columns."""
REAL_ERROR = "real error"
"""The column of how wrong answers were: 1 or 0 of a class, the absolute difference of a number."""
POINTS = 1000
CATEGORIES = 1000

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A column of numbers.

    Attributes:
        values: The kept values, ascending; empty where nothing is present.
        counts: Rows at each value and below it, down to the one before; 1 and up.
        missing: Rows without a finite value.
        point_error: Share of the present rows by which the count at or below a kept value may be wrong; 0 unless
            sketches that are not exact were merged.
        rank_error: The same at any other value.
    """

    values: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    point_error: float = 0.0
    rank_error: float = 0.0

    def __post_init__(self) -> None:
        if len(self.values) != len(self.counts) or self.missing < 0 or min(self.counts, default=1) < 1:
            raise ValueError("each value has a count of 1 and up, and missing rows are counted from 0")
        if not np.isfinite(self.values).all() or (np.diff(self.values) <= 0).any():
            raise ValueError("values are finite and ascend")
        if not 0 <= self.point_error <= self.rank_error <= 1:
            raise ValueError("errors are shares, and no smaller between the points than at them")

    @property
    def n_present(self) -> int:
        """Rows with a value."""
        return sum(self.counts)

    @property
    def n_rows(self) -> int:
        """All rows."""
        return self.n_present + self.missing

    @property
    def centres(self) -> Floats:
        """Where the rows of each count lie: at the value, or, where values are not all kept, halfway from the last."""
        values = np.array(self.values, dtype=np.float64)
        if self.rank_error == 0 or len(values) < 2:
            return values
        return np.concatenate((values[:1], (values[1:] + values[:-1]) / 2))

    @property
    def mean(self) -> float:
        """Mean of the kept values by their rows; NaN where nothing is present."""
        return float(self.centres @ np.array(self.counts)) / self.n_present if self.counts else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation of the kept values by their rows; NaN where nothing is present."""
        if not self.counts:
            return float("nan")
        weights = np.array(self.counts) / self.n_present
        return float(np.sqrt(weights @ (self.centres - self.mean) ** 2))

    def merge(self, other: "Numbers") -> "Numbers":
        """Returns the column of all rows of both."""
        n = self.n_present + other.n_present
        error = 0.0 if n == 0 else (self.n_present * self.rank_error + other.n_present * other.rank_error) / n
        values, places = np.unique(np.array([*self.values, *other.values], dtype=np.float64), return_inverse=True)
        counts = np.bincount(places, weights=[*self.counts, *other.counts], minlength=len(values)).astype(np.int64)
        return _thinned(values, counts, missing=self.missing + other.missing, point_error=error)

    def quantiles(self, shares: Floats) -> Floats:
        """Returns the kept values that at least these shares of the present rows are at or below; NaN without any."""
        if not self.counts:
            return np.full(len(shares), np.nan)
        reached = np.cumsum(self.counts) / self.n_present
        found = np.searchsorted(reached, np.minimum(shares, 1.0) - 1e-12)
        return np.array(self.values)[np.minimum(found, len(self.values) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """A column of texts.

    Attributes:
        counts: Rows by category, at most `CATEGORIES` of them, the most frequent first.
        other: Rows of categories that are not kept.
        missing: Rows without a category.
    """

    counts: Mapping[str, int]
    other: int = 0
    missing: int = 0

    def __post_init__(self) -> None:
        if self.other < 0 or self.missing < 0 or min(self.counts.values(), default=1) < 1:
            raise ValueError("counts are 1 and up; other and missing rows are counted from 0")

    @property
    def n_rows(self) -> int:
        """All rows."""
        return sum(self.counts.values()) + self.other + self.missing

    def merge(self, other: "Categories") -> "Categories":
        """Returns the column of all rows of both; what one of them does not keep stays not kept."""
        both = Counter(self.counts) + Counter(other.counts)
        return _bounded(both, other=self.other + other.other, missing=self.missing + other.missing)


Summary = Numbers | Categories


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a version saw and said before it was released.

    Attributes:
        model: The model's name.
        version: The version.
        columns: Each feature's training rows.
        outputs: What the version says of its held-out rows: `prediction`, and `score` where it has one.
        labels: What would have been right: `label` of the training rows, and `real error` on the held-out ones; of a
            binary model `real log loss` on them too.
        floors: By column, and for the domain classifier, how far a window without drift is allowed to be away; see
            `alarms.learned_floor`.
        n_windows: Windows of the training data from which the floors were learned; 0 for none.
    """

    model: str
    version: str
    columns: Mapping[str, Summary]
    outputs: Mapping[str, Summary]
    floors: Mapping[str, float]
    labels: Mapping[str, Summary] = field(default_factory=dict)
    n_windows: int = 0

    @property
    def every(self) -> dict[str, Summary]:
        """Columns, outputs and labels, by name."""
        return {**self.columns, **self.outputs, **self.labels}

    @property
    def watched(self) -> list[str]:
        """The names of what alarms watch: each column, output and label, all features together, and refused calls."""
        return [*self.every, DOMAIN_CLASSIFIER, REFUSED_CALLS]

    def to_json(self) -> dict[str, Any]:
        """Returns the reference as a JSON value."""
        return {
            "format": FORMAT,
            "model": self.model,
            "version": self.version,
            "columns": {name: summary_json(one) for name, one in self.columns.items()},
            "outputs": {name: summary_json(one) for name, one in self.outputs.items()},
            "labels": {name: summary_json(one) for name, one in self.labels.items()},
            "floors": dict(self.floors),
            "n_windows": self.n_windows,
        }

    @staticmethod
    def from_json(value: object) -> "Reference":
        """Returns the reference that `to_json` wrote.

        Raises:
            ValueError: It is none, or of another format.
        """
        of = exactly(value, "reference", **_FIELDS)
        if of["format"] != FORMAT:
            raise ValueError(f"a reference of format {of['format']} cannot be read, only of format {FORMAT}")
        return Reference(
            model=of["model"],
            version=of["version"],
            columns={name: summary_from(one) for name, one in of["columns"].items()},
            outputs={name: summary_from(one) for name, one in of["outputs"].items()},
            labels={name: summary_from(one) for name, one in of["labels"].items()},
            floors={name: float(floor) for name, floor in of["floors"].items()},
            n_windows=of["n_windows"],
        )


def summarised(column: Column) -> Summary:
    """Returns the summary of a column as a feature plan takes it: float64 (NaN: missing) or object (`MISSING`)."""
    return of_texts(column) if column.dtype.kind == "O" else of_numbers(np.asarray(column, dtype=np.float64))


def of_numbers(column: Floats) -> Numbers:
    """Returns the summary of numbers, shape (n_rows,)."""
    present = column[np.isfinite(column)]
    values, counts = np.unique(present, return_counts=True)
    return _thinned(values, counts, missing=len(column) - len(present))


def of_texts(column: Column) -> Categories:
    """Returns the summary of texts, shape (n_rows,), object; `MISSING` where there is none."""
    counted = Counter(map(str, column.tolist()))
    missing = counted.pop(MISSING, 0)
    return _bounded(counted, other=0, missing=missing)


def merged(one: Summary, other: Summary) -> Summary:
    """Returns the summary of all rows of both.

    Raises:
        ValueError: One is of numbers and one of texts.
    """
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return one.merge(other)
    if isinstance(one, Categories) and isinstance(other, Categories):
        return one.merge(other)
    raise ValueError("numbers and texts do not add up")


def summary_json(summary: Summary) -> dict[str, Any]:
    """Returns a summary as a JSON value."""
    match summary:
        case Numbers():
            return {name: _plain(getattr(summary, name)) for name in _NUMBERS}
        case Categories():
            return {"counts": dict(summary.counts), "other": summary.other, "missing": summary.missing}
        case _:
            assert_never(summary)


def summary_from(value: object) -> Summary:
    """Returns the summary that `summary_json` wrote; raises ValueError when it is none."""
    if isinstance(value, dict) and "values" in value:
        of = exactly(value, "summary of numbers", **_NUMBERS)
        return Numbers(**{**of, "values": tuple(map(float, of["values"])), "counts": tuple(of["counts"])})
    return Categories(**exactly(value, "summary of texts", counts=dict, other=int, missing=int))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _thinned(values: Floats, counts: Counts, *, missing: int, point_error: float = 0.0) -> Numbers:
    error = 0.0
    if len(values) > POINTS:
        reached = np.cumsum(counts)
        wanted = np.ceil(reached[-1] * np.arange(1, POINTS) / (POINTS - 1))
        ends = np.unique([0, *np.searchsorted(reached, wanted)])
        grouped = np.diff(reached[ends], prepend=0)
        error = float((grouped - counts[ends]).max() / reached[-1])
        values, counts = values[ends], grouped
    return Numbers(
        values=tuple(values.tolist()),
        counts=tuple(counts.tolist()),
        missing=missing,
        point_error=point_error,
        rank_error=min(point_error + error, 1.0),
    )


def _bounded(counted: Counter[str], *, other: int, missing: int) -> Categories:
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    other += sum(count for _, count in ordered[CATEGORIES:])
    return Categories(counts=dict(ordered[:CATEGORIES]), other=other, missing=missing)


_NUMBERS: dict[str, Any] = {
    "values": list,
    "counts": list,
    "missing": int,
    "point_error": (float, int),
    "rank_error": (float, int),
}
_FIELDS: dict[str, type] = {
    "format": int,
    "model": str,
    "version": str,
    "columns": dict,
    "outputs": dict,
    "labels": dict,
    "floors": dict,
    "n_windows": int,
}
