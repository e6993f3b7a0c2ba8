"""How far rows are away from a reference: in shares of rows, and in the measures that people know.

The distance that alarms judge is a share of rows, 0 to 1: for numbers that of Kolmogorov and Smirnov, for texts the
total variation. Missing counts as a value, the lowest of a column of numbers. Against a sketch the distance of numbers
is measured where the sketch is exact, less what it does not know; so it is at most the true one.

The others are for readers. PSI is over the reference's deciles, or the categories, and missing; a share counts as at
least 1e-4. Wasserstein's distance is in standard deviations of the reference. Jensen and Shannon's is the root of the
divergence to base 2, over the same parts as PSI. The p-value is the classical one of no difference at all: Kolmogorov
and Smirnov's limit, Pearson's chi-square with rare categories together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.special import kolmogorov
from scipy.stats import chi2_contingency, wasserstein_distance

from release_platform.domain.features import Column
from release_platform.domain.reference import Categories, Numbers, Summary, of_numbers, of_texts

Floats = npt.NDArray[np.float64]

RARE = 5
"""Categories of which fewer rows than this are expected in a window are judged together."""
_LEAST_SHARE = 1e-4
_ROUNDING = 1e-12
_DECILES = np.arange(1, 10) / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far the rows of a window are away from the reference in one column, as alarms judge it.

    Attributes:
        share: The share of rows, 0 to 1; see above.
        expected: How large it is on average without any drift, for texts; 0 for numbers, whose bound needs none.
        n_rows: Rows of the window.
        n_reference: Rows of the reference.
        missing: Share of missing values in the window.
        missing_before: The same in the reference.
        unseen: Share of rows with a category that the reference does not have; None where it does not keep them all,
            and for numbers.
    """

    share: float
    expected: float
    n_rows: int
    n_reference: int
    missing: float
    missing_before: float
    unseen: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The same as readers know it.

    Attributes:
        distance: What alarms judge.
        psi: Population stability index, 0 and up.
        jensen_shannon: 0 to 1.
        wasserstein: In standard deviations of the reference, for numbers; None for texts, and where either has no
            value or the reference is constant.
        p_value: Of no difference at all.
    """

    distance: Distance
    psi: float
    jensen_shannon: float
    wasserstein: float | None
    p_value: float


def distance(reference: Summary, column: Column) -> Distance:
    """Returns how far a window's column is away from its reference, as alarms judge it.

    Args:
        reference: The reference's summary, of at least one row.
        column: Shape (n_rows,), at least one row: float64 for numbers (NaN: missing), object for texts.

    Raises:
        ValueError: There are no rows, or the column is of another kind than the reference.
    """
    return _measured(reference, column)[0]


def difference(reference: Summary, column: Column) -> Difference:
    """Returns how far a window's column is away from its reference, in all measures. Takes and raises as `distance`."""
    judged, describe = _measured(reference, column)
    return describe(judged)


def _measured(reference: Summary, column: Column) -> tuple[Distance, Callable[[Distance], Difference]]:
    if len(column) == 0 or reference.n_rows == 0:
        raise ValueError("a window and its reference have at least one row")
    match reference:
        case Numbers():
            if column.dtype.kind == "O":
                raise ValueError("the reference is of numbers, the window of texts")
            present = np.sort(column[np.isfinite(column)])
            judged = _of_numbers(reference, present, len(column))
            return judged, partial(_described_numbers, reference, present)
        case Categories():
            if column.dtype.kind != "O":
                raise ValueError("the reference is of texts, the window of numbers")
            now = of_texts(column)
            return _of_texts(reference, now), partial(_described_texts, reference, now)
        case _:
            assert_never(reference)


def psi(before: Floats, now: Floats) -> float:
    """Returns the population stability index of two lists of shares."""
    one, other = np.maximum(before, _LEAST_SHARE), np.maximum(now, _LEAST_SHARE)
    return float(((other - one) * np.log(other / one)).sum())


def total_variation(before: Floats, now: Floats) -> float:
    """Returns half the sum of the differences of shares, 0 to 1."""
    return float(np.abs(before - now).sum() / 2)


def _of_numbers(reference: Numbers, present: Floats, n_rows: int) -> Distance:
    missing, before = (n_rows - len(present)) / n_rows, reference.missing / reference.n_rows
    return Distance(
        share=max(_beside_sketch(reference, present, n_rows), abs(missing - before)),
        expected=0.0,
        n_rows=n_rows,
        n_reference=reference.n_rows,
        missing=missing,
        missing_before=before,
    )


def _described_numbers(reference: Numbers, present: Floats, judged: Distance) -> Difference:
    n, m = judged.n_rows, judged.n_reference
    before, now = _deciles(reference, present, n)
    return Difference(
        distance=judged,
        psi=psi(before, now),
        jensen_shannon=_jensen_shannon(before, now),
        wasserstein=_wasserstein(reference, present),
        p_value=float(kolmogorov(judged.share * np.sqrt(n * m / (n + m)))),
    )


def _beside_sketch(reference: Numbers, present: Floats, n_rows: int) -> float:
    if not reference.values:
        return 0.0
    values, known = np.array(reference.values), reference.n_present / reference.n_rows
    missing = n_rows - len(present)
    at = (missing + np.searchsorted(present, values, side="right")) / n_rows
    below = (missing + np.searchsorted(present, values, side="left")) / n_rows
    reached = (reference.missing + np.cumsum(reference.counts)) / reference.n_rows
    before = np.concatenate(([reference.missing / reference.n_rows], reached[:-1]))
    furthest = (np.abs(at - reached).max() - reference.point_error * known, (below - before).max())
    found = max(float(furthest[0]), float(furthest[1]) - reference.rank_error * known)
    return found if found > _ROUNDING else 0.0


def _deciles(reference: Numbers, present: Floats, n_rows: int) -> tuple[Floats, Floats]:
    """Returns the shares of missing values and of each tenth of the reference, before and now."""
    if not reference.values:
        return np.array([1.0, 0.0]), np.array([1 - len(present) / n_rows, len(present) / n_rows])
    cuts = np.unique(reference.quantiles(_DECILES))
    ends = np.searchsorted(reference.values, cuts, side="right") - 1
    below = np.concatenate(([0], np.cumsum(reference.counts)[ends], [reference.n_present]))
    below_now = np.concatenate(([0], np.searchsorted(present, cuts, side="right"), [len(present)]))
    before = np.concatenate(([reference.missing], np.diff(below))) / reference.n_rows
    now = np.concatenate(([n_rows - len(present)], np.diff(below_now))) / n_rows
    return before, now


def _wasserstein(reference: Numbers, present: Floats) -> float | None:
    if not reference.values or len(present) == 0 or not reference.spread > 0:
        return None
    now = of_numbers(present)
    distance = wasserstein_distance(reference.centres, now.centres, reference.counts, now.counts)
    return float(distance / reference.spread)


def _of_texts(reference: Categories, now: Categories) -> Distance:
    n, m = now.n_rows, reference.n_rows
    judged = _together(_table(reference, now), n)
    before, after = judged[0] / m, judged[1] / n
    expected = float(np.sqrt(before * (1 - before) / n).sum() / 2)
    unseen = sum(count for name, count in now.counts.items() if name not in reference.counts)
    return Distance(
        share=total_variation(before, after),
        expected=expected,
        n_rows=n,
        n_reference=m,
        missing=now.missing / n,
        missing_before=reference.missing / m,
        unseen=None if reference.other else (unseen + now.other) / n,
    )


def _described_texts(reference: Categories, now: Categories, judged: Distance) -> Difference:
    n, m = judged.n_rows, judged.n_reference
    table = _table(reference, now)
    return Difference(
        distance=judged,
        psi=psi(table[0] / m, table[1] / n),
        jensen_shannon=_jensen_shannon(table[0] / m, table[1] / n),
        wasserstein=None,
        p_value=_chi_square(_together(table, n)),
    )


def _table(reference: Categories, now: Categories) -> Floats:
    """Returns rows of the reference and of the window by missing, other, and each category of the reference."""
    known: Mapping[str, int] = reference.counts
    rest = now.other + sum(count for name, count in now.counts.items() if name not in known)
    first = (reference.missing, reference.other, *known.values())
    second = (now.missing, rest, *(now.counts.get(name, 0) for name in known))
    return np.array([first, second], dtype=np.float64)


def _together(table: Floats, n_rows: int) -> Floats:
    rare = table[0] * n_rows < RARE * table[0].sum()
    return np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])


def _chi_square(table: Floats) -> float:
    there: npt.NDArray[Any] = table[:, table.sum(axis=0) > 0]
    return 1.0 if there.shape[1] < 2 else float(chi2_contingency(there, correction=False).pvalue)


def _jensen_shannon(before: Floats, now: Floats) -> float:
    found = float(jensenshannon(before, now, base=2))
    return found if np.isfinite(found) else 0.0  # a root of what is barely below 0
