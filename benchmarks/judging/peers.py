"""What the judge is compared with: a test at a fixed horizon, the same test looked at all the time, and Kayenta's rule.

Kayenta (Netflix, Spinnaker) compares the values per minute of both arms by Mann-Whitney's test: the metric is bad when
the 98 % confidence interval of the shift (Hodges, Lehmann) lies wholly beyond a quarter of the estimated shift
(`NetflixACAJudge`: tolerance 0.25, confidence 0.98).
"""

from math import floor, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from release_platform.domain.sequential import Counts

TOLERANCE = 0.25
CONFIDENCE = 0.98
_Z = float(norm.ppf((1 + CONFIDENCE) / 2))
FIRST_LOOK = 5  # windows: with fewer, Kayenta's interval has no end


def z_scores(tables: Counts, margin: float) -> npt.NDArray[np.float64]:
    """Returns the z-score of the difference of shares beyond a margin after each window, shape (questions, windows)."""
    n_c, k_c, n_s, k_s = np.moveaxis(np.cumsum(tables, axis=-2), -1, 0).astype(float)
    n_c, n_s = np.maximum(n_c, 1.0), np.maximum(n_s, 1.0)
    c, s = (k_c + 0.5) / (n_c + 1), (k_s + 0.5) / (n_s + 1)
    spread = np.sqrt(c * (1 - c) / n_c + s * (1 - s) / n_s)
    return np.asarray((k_c / n_c - k_s / n_s - margin) / spread)


def calls(tables: Counts, margin: float, level: float) -> npt.NDArray[np.bool_]:
    """Returns after which windows a one-sided z-test calls the candidate worse by more than a margin.

    At each window it is a test at this level, over all questions of a gate together. Whoever looks once, at a window
    that was fixed before, is right about the level; whoever looks at all of them is not.
    """
    return np.asarray((z_scores(tables, margin) > norm.isf(level / len(tables))).any(axis=0))


def kayenta(tables: Counts) -> npt.NDArray[np.bool_]:
    """Returns after which windows Kayenta's rule calls the candidate bad, in any of a gate's questions.

    It has no margin: any difference that is sure enough is bad.
    """
    n_c, k_c, n_s, k_s = np.moveaxis(tables, -1, 0).astype(float)
    candidate, stable = k_c / np.maximum(n_c, 1.0), k_s / np.maximum(n_s, 1.0)
    bad = [[_is_high(c[: t + 1], s[: t + 1]) for t in range(len(c))] for c, s in zip(candidate, stable, strict=True)]
    return np.asarray(np.any(bad, axis=0))


def _is_high(candidate: npt.NDArray[np.float64], stable: npt.NDArray[np.float64]) -> bool:
    n = len(candidate)
    if n < FIRST_LOOK:
        return False
    differences = np.subtract.outer(candidate, stable).ravel()
    rank = floor(n * n / 2 - _Z * sqrt(n * n * (2 * n + 1) / 12))
    if rank < 1:
        return False
    middle = n * n // 2
    ordered = np.partition(differences, (rank - 1, middle))
    return bool(ordered[rank - 1] > TOLERANCE * abs(ordered[middle]))
