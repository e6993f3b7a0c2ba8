"""The bootstrap: how sure a metric is, and whether a candidate is better than Production on the same rows.

A resample of n rows with replacement is a vector of counts, so a metric's weighted form gives the replicate without
copying a row (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: chapter 13 for percentile intervals).

- Up to `EXACT_ROWS` rows the counts are multinomial, which is Efron's bootstrap.
- Above, each row's count is an independent Poisson(1): the Poisson bootstrap (Hanley and MacGibbon, "Creating
  non-parametric bootstrap samples using Poisson frequencies", 2006; Chamandy et al., "Estimating uncertainty for
  massive data streams", 2012). Only the size of a resample varies, by 1/sqrt(n); every metric is a mean or a ratio,
  which that does not move. It is far faster.

How many resamples: the outermost quantile in use is 0.5 %, of which 1,000 resamples hold five beyond it and 200 hold
one, so 1,000 where that is cheap and never under 200. A gate at the usual confidence of 95 % reads the 5 % quantile,
whose own probability is then known to within 0.7 points (1,000) or 1.0 (500), one standard deviation.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import exp, factorial

import numpy as np
import numpy.typing as npt

from release_platform.domain.evidence import QUANTILES

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

EXACT_ROWS = 10_000
MAXIMUM_RESAMPLES = 1_000
MINIMUM_RESAMPLES = 200
COUNTS_TO_DRAW = 40_000_000
BLOCK_COUNTS = 1_000_000
DEFINED_SHARE = 0.9


def n_resamples(n_rows: int) -> int:
    """Returns how many resamples are drawn of so many rows: 1,000 up to 40,000 rows, then fewer, never under 200."""
    return min(max(COUNTS_TO_DRAW // max(n_rows, 1), MINIMUM_RESAMPLES), MAXIMUM_RESAMPLES)


def blocks(n_rows: int, resamples: int, seed: int) -> Iterator[Weights]:
    """Yields the counts of all resamples, a block of resamples at a time, so that memory stays bounded.

    Args:
        n_rows: Rows to resample, 1 and up.
        resamples: How many resamples there are in all.
        seed: Equal seeds give equal counts.

    Yields:
        Counts of shape (b, n_rows), unsigned integers; the b of all blocks sum to `resamples`.
    """
    rng = np.random.default_rng(seed)
    draw = _multinomial if n_rows <= EXACT_ROWS else _poisson
    size = max(1, BLOCK_COUNTS // n_rows)
    for start in range(0, resamples, size):
        yield draw(rng, min(size, resamples - start), n_rows)


def resample(
    forms: Mapping[str, Callable[[Weights], Floats]], n_rows: int, *, resamples: int, seed: int
) -> dict[str, Floats]:
    """Returns the replicates of each metric, all from the same resamples.

    Args:
        forms: Weighted forms by name, see `measures.replicates`.
        n_rows: Rows to resample, 1 and up.
        resamples: How many resamples are drawn.
        seed: Equal seeds give equal replicates.

    Returns:
        Shape (resamples,) by name; NaN where a metric is undefined in a resample.
    """
    if not forms:
        return {}
    parts: dict[str, list[Floats]] = {name: [] for name in forms}
    for weights in blocks(n_rows, resamples, seed):
        for name, form in forms.items():
            parts[name].append(form(weights))
    return {name: np.concatenate(of) for name, of in parts.items()}


def interval(replicates: Floats) -> tuple[float, float] | None:
    """Returns the 95 % percentile interval of replicates, or None when under 90 % of them are defined."""
    ends = quantiles(replicates, (0.025, 0.975))
    return None if ends is None else (ends[0], ends[1])


def quantiles(replicates: Floats, at: tuple[float, ...] = QUANTILES) -> tuple[float, ...] | None:
    """Returns quantiles of replicates, ascending, or None when under 90 % of the replicates are defined.

    Resamples in which a metric is undefined (say, without a positive) are left out; where they are many, what is left
    is no sample of the metric any more.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) == 0 or len(defined) < DEFINED_SHARE * len(replicates):
        return None
    return tuple(np.quantile(defined, at).tolist())


def _multinomial(rng: np.random.Generator, n_resamples: int, n_rows: int) -> npt.NDArray[np.uint16]:
    drawn = rng.integers(0, n_rows, size=(n_resamples, n_rows))
    drawn += np.arange(n_resamples)[:, None] * n_rows
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_rows)
    return counts.reshape(n_resamples, n_rows).astype(np.uint16)  # a count is at most EXACT_ROWS


def _poisson(rng: np.random.Generator, n_resamples: int, n_rows: int) -> npt.NDArray[np.uint8]:
    return np.take(_poisson_table(), rng.integers(0, 2**16, size=(n_resamples, n_rows), dtype=np.uint16))


@cache
def _poisson_table() -> npt.NDArray[np.uint8]:
    """Poisson(1) by inversion: as many of the 65,536 entries are k as its probability asks for, to within 2^-17."""
    cumulated = np.cumsum([exp(-1) / factorial(k) for k in range(12)])
    edges = np.round(cumulated * 2**16).astype(np.int64)
    return np.searchsorted(edges, np.arange(2**16), side="right").astype(np.uint8)
