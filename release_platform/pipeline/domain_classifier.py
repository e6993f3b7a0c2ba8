"""Whether a classifier tells recorded rows from training rows: what no column shows alone, all of them may together.

Rabanser, Günnemann, Lipton, Failing Loudly, NeurIPS 2019. Each third of the rows is judged by a classifier that was
fitted on the other two. The p-value of a third is Hoeffding's bound of a two-sample U-statistic, `exp(-2 n x**2)` with
the smaller side's `n`, and three of them that lean on each other make one as 3/2 of the middle one (Rüger 1978).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata  # type: ignore[import-untyped]

from release_platform.domain.features import MISSING, Column

FOLDS = 3
MOST_ROWS = 5_000
LEAST_ROWS = 60
_MOST_CODES = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How well the rows can be told apart.

    Attributes:
        auc: Area under the ROC curve on rows that the classifier did not see, averaged; 0.5 for not at all.
        p_value: Of an area of at most `0.5 + smallest`.
        n_rows: Rows of each side, at most `MOST_ROWS`.
    """

    auc: float
    p_value: float
    n_rows: int


def tell_apart(before: pd.DataFrame, now: Mapping[str, Column], *, smallest: float, seed: int = 0) -> Telling | None:
    """Returns how well recorded rows can be told from training rows.

    Args:
        before: Training rows, features as columns: float64 or object.
        now: Recorded features, each of shape (n_rows,); those that are not in both are left out.
        smallest: How far above 0.5 the area may be without mattering.
        seed: Of the choice of rows, the folds and the classifier.

    Returns:
        What was found; None for fewer than `LEAST_ROWS` rows on a side, or no feature.
    """
    shared = [
        name for name in before.columns if name in now and (now[name].dtype.kind == "O") == _is_text(before, name)
    ]
    n_now = len(next(iter(now.values()))) if now else 0
    n = min(len(before), n_now, MOST_ROWS)
    if not shared or n < LEAST_ROWS:
        return None
    generator = np.random.default_rng(seed)
    one, other = (np.sort(generator.permutation(size)[:n]) for size in (len(before), n_now))
    rows = [_codes(before[name].to_numpy()[one], now[name][other]) for name in shared]
    return _judged(np.column_stack(rows), n, smallest, seed)


def _judged(matrix: Column, n: int, smallest: float, seed: int) -> Telling:
    from sklearn.ensemble import HistGradientBoostingClassifier

    side = np.repeat([0, 1], n)
    fold = np.concatenate([np.random.default_rng([seed, place]).permutation(np.arange(n) % FOLDS) for place in (0, 1)])
    areas, values = [], []
    for held in range(FOLDS):
        fitted = HistGradientBoostingClassifier(
            max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=seed
        ).fit(matrix[fold != held], side[fold != held])
        scores, truth = fitted.predict_proba(matrix[fold == held])[:, 1], side[fold == held]
        n_now, n_before = int(truth.sum()), int((1 - truth).sum())
        ranks = rankdata(scores)[truth == 1].sum()
        area = float((ranks - n_now * (n_now + 1) / 2) / (n_now * n_before))
        areas.append(area)
        values.append(float(np.exp(-2 * min(n_now, n_before) * max(area - 0.5 - smallest, 0.0) ** 2)))
    return Telling(auc=float(np.mean(areas)), p_value=min(1.0, FOLDS / 2 * sorted(values)[1]), n_rows=n)


def _is_text(frame: pd.DataFrame, name: str) -> bool:
    return bool(frame[name].dtype.kind == "O")


def _codes(before: Column, now: Column) -> Column:
    """Returns both as numbers; texts by how frequent they are, missing ones as NaN."""
    both = np.concatenate([before, now])
    if both.dtype.kind != "O":
        return both
    names, places, counts = np.unique(both.astype(str), return_inverse=True, return_counts=True)
    rank = np.empty(len(names))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    rank = np.minimum(rank, _MOST_CODES)
    rank[names == MISSING] = np.nan
    found: Column = rank[places]
    return found
