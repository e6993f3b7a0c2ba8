"""What the judge is compared with: a test at a fixed horizon, the same test looked at all the time, and Kayenta's rule.

Kayenta (Netflix, Spinnaker) compares the values per minute of both arms by Mann-Whitney's test: the metric is bad when
the 98 % confidence interval of the shift (Hodges, Lehmann) lies wholly beyond a quarter of the estimated shift
(`NetflixACAJudge`: tolerance 0.25, confidence 0.98).
"""

from math import ceil, floor, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from release_platform.domain.sequential import Counts

TOLERANCE = 0.25
CONFIDENCE = 0.98
FIRST_LOOK = 5  # windows: with fewer, Kayenta's interval has no end


def z_scores(tables: Counts) -> npt.NDArray[np.float64]:
    """Returns the z-score of the difference of shares after each window, shape of `tables` without its last axis."""
    n_c, k_c, n_s, k_s = np.moveaxis(np.cumsum(tables, axis=-2), -1, 0).astype(float)
    n_c, n_s = np.maximum(n_c, 1.0), np.maximum(n_s, 1.0)
    pooled = (k_c + k_s) / (n_c + n_s)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n_c + 1 / n_s), 1e-300))
    return np.asarray((k_c / n_c - k_s / n_s) / spread)


def peeking(tables: Counts, level: float) -> npt.NDArray[np.bool_]:
    """Returns after which windows a test at a level, over all questions of a gate together, calls the candidate bad."""
    return np.asarray((z_scores(tables) > norm.isf(level / len(tables))).any(axis=0))


def fixed_horizon(share: float, worse: float, *, level: float, power: float, stable_for_each: float) -> int:
    """Returns how many requests of the candidate a one-sided z-test of two shares needs, decided once at the end."""
    spread_null = sqrt(share * (1 - share) * (1 + 1 / stable_for_each))
    spread = sqrt(worse * (1 - worse) + share * (1 - share) / stable_for_each)
    return ceil(((norm.isf(level) * spread_null + norm.ppf(power) * spread) / (worse - share)) ** 2)


def kayenta(tables: Counts) -> npt.NDArray[np.bool_]:
    """Returns after which windows Kayenta's rule calls the candidate bad, in any of a gate's questions."""
    n_c, k_c, n_s, k_s = np.moveaxis(tables, -1, 0).astype(float)
    candidate, stable = k_c / np.maximum(n_c, 1.0), k_s / np.maximum(n_s, 1.0)
    bad = [[_is_high(c[: t + 1], s[: t + 1]) for t in range(len(c))] for c, s in zip(candidate, stable, strict=True)]
    return np.asarray(np.any(bad, axis=0))


def _is_high(candidate: npt.NDArray[np.float64], stable: npt.NDArray[np.float64]) -> bool:
    n = len(candidate)
    if n < FIRST_LOOK:
        return False
    differences = np.subtract.outer(candidate, stable).ravel()
    rank = floor(n * n / 2 - norm.ppf((1 + CONFIDENCE) / 2) * sqrt(n * n * (2 * n + 1) / 12))
    if rank < 1:
        return False
    middle = n * n // 2
    ordered = np.partition(differences, (rank - 1, middle))
    return bool(ordered[rank - 1] > TOLERANCE * abs(ordered[middle]))
