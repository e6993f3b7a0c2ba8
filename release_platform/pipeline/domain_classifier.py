"""Whether a classifier tells recorded rows from training rows: what no column shows alone, all of them may together.

Half of the rows of each side are fitted on and the other half judged, so that nothing of what is judged was learned;
`domain.multivariate` says what that is worth. A classifier that learns from more rows finds more. So rows are judged
by as many as the model's own past windows have, by which its floor was learned. Which rows are drawn follows from the
model, its version and the day.

Fitting takes one thread: the work between two meetings of OpenMP's threads is so small here that beside other load
they wait for one another a hundred times as long as they work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import mannwhitneyu

from release_platform.domain.alarms import MINIMUM_WINDOWS, learned_floor
from release_platform.domain.features import MISSING, Column
from release_platform.domain.multivariate import ClassifierTest

SAMPLE = 10_000
"""Training rows that are kept for it, at most."""
MOST_ROWS = 2_000
"""Rows of each side by which a window is judged, at most; half of them are fitted on."""
MOST_WINDOWS = 30
"""Past windows from which the floor is learned, at most."""
LEAST_ROWS = 50
_MOST_CODES = 250
_BINS = 32

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainClassifier:
    """What new rows are told from.

    Attributes:
        sample: Training rows, features as columns: float64 or object.
        named: The model and its version.
        most_rows: Rows of each side by which a window is judged, at most.
    """

    sample: pd.DataFrame
    named: str
    most_rows: int = MOST_ROWS

    def test(self, now: Mapping[str, Column], *, window: str) -> ClassifierTest | None:
        """Returns how well rows can be told from the sample.

        Args:
            now: Recorded features, each of shape (n_rows,); those that are not in both are left out.
            window: Which rows these are; the choice of rows follows from it.

        Returns:
            What was found; None for fewer than `LEAST_ROWS` rows on a side, or no feature.
        """
        before = {str(name): self.sample[name].to_numpy() for name in self.sample.columns}
        return _test(before, now, most_rows=self.most_rows, named=f"{self.named} {window}")

    def apart(self, before: Mapping[str, Column], now: Mapping[str, Column], *, window: str) -> ClassifierTest | None:
        """Returns how well rows can be told from those of the day before, judged as `test` does.

        Args:
            before: Features of the day before, each of shape (n_before,).
            now: Those of the day, each of shape (n_rows,).
            window: Which rows these are; the choice of rows follows from it.

        Returns:
            What was found, as it would count against the sample; None for few rows, or no feature.
        """
        features = [str(name) for name in self.sample.columns]
        shown = {name: before[name] for name in features if name in before}
        found = _test(shown, now, most_rows=self.most_rows, named=f"{self.named} before {window}")
        return None if found is None else replace(found, n_reference=len(self.sample))


def learned(features: pd.DataFrame, windows: Sequence[Places], *, named: str) -> tuple[DomainClassifier, float]:
    """Returns the classifier of a version, and its floor: how far apart its own past windows are.

    Args:
        features: The training rows, features as columns.
        windows: The rows of each past window; of fewer than `MINIMUM_WINDOWS` no floor is learned.
        named: The model and its version.
    """
    chosen = np.sort(_generator(named).permutation(len(features))[:SAMPLE])
    sample = features.iloc[chosen]
    classifier = DomainClassifier(sample=sample.reset_index(drop=True), named=named)
    if len(windows) < MINIMUM_WINDOWS:
        return classifier, 0.0
    most = min(int(np.quantile([len(window) for window in windows], 0.25)), MOST_ROWS)
    history = []
    for number in np.unique(np.linspace(0, len(windows) - 1, MOST_WINDOWS).astype(int)).tolist():
        others = ~np.isin(chosen, windows[number])
        now, before = (
            {str(name): rows[name].to_numpy() for name in rows.columns}
            for rows in (features.iloc[windows[number]], sample[others])
        )
        history.append(_test(before, now, most_rows=most, named=f"{named} past {number}"))
    floor = learned_floor([one for one in history if one is not None])
    return DomainClassifier(sample=classifier.sample, named=named, most_rows=most), floor


def _test(
    before: Mapping[str, Column], now: Mapping[str, Column], *, most_rows: int, named: str
) -> ClassifierTest | None:
    shared = [name for name in before if name in now and _is_text(before[name]) == _is_text(now[name])]
    if not shared:
        return None
    sizes = len(before[shared[0]]), len(now[shared[0]])
    n = min(*sizes, most_rows) // 2
    if 2 * n < LEAST_ROWS:
        return None
    generator = _generator(named)
    one, other = (generator.choice(size, size=2 * n, replace=False) for size in sizes)
    fitted_on = [_both(before, now, name, one[:n], other[:n]) for name in shared]
    judged = [_both(before, now, name, one[n:], other[n:]) for name in shared]
    coded = [_coded(values, new) for values, new in zip(fitted_on, judged, strict=True)]
    there = [pair for pair in coded if not np.isnan(pair[0]).all()]
    if not there:
        return _compared(np.zeros(2 * n), n, sizes[0])
    seen, unseen = (np.column_stack(part) for part in zip(*there, strict=True))
    return _compared(_scores(seen, unseen, seed=int(generator.integers(2**31))), n, sizes[0])


def _scores(seen: Any, unseen: Any, *, seed: int) -> Any:
    """Returns how much like now each unseen row is, by a classifier of seen rows: half of before, then half of now."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    classifier = HistGradientBoostingClassifier(
        max_iter=20, learning_rate=0.2, max_leaf_nodes=15, max_bins=_BINS, early_stopping=False, random_state=seed
    )
    with threadpool_limits(limits=1, user_api="openmp"):
        return classifier.fit(seen, np.repeat([0, 1], len(seen) // 2)).predict_proba(unseen)[:, 1]


def _compared(scores: Any, n: int, n_reference: int) -> ClassifierTest:
    if np.ptp(scores) == 0:
        return ClassifierTest(auc=0.5, p_value=1.0, n_judged=n, n_reference=n_reference)
    found = mannwhitneyu(scores[n:], scores[:n], alternative="greater", method="asymptotic")
    return ClassifierTest(
        auc=float(found.statistic) / n**2, p_value=float(found.pvalue), n_judged=n, n_reference=n_reference
    )


def _generator(named: str) -> np.random.Generator:
    return np.random.default_rng(list(sha256(named.encode()).digest()))


def _is_text(column: Column) -> bool:
    return bool(column.dtype.kind == "O")


def _both(before: Mapping[str, Column], now: Mapping[str, Column], name: str, one: Any, other: Any) -> Column:
    return np.concatenate([before[name][one], now[name][other]])


def _coded(seen: Column, unseen: Column) -> tuple[Column, Column]:
    """Returns both as numbers; texts by how frequent they are in the seen ones, new ones last, missing ones as NaN."""
    if not _is_text(seen):
        return _finite(seen), _finite(unseen)
    names, counts = np.unique(seen.astype(str), return_counts=True)
    ordered = names[np.argsort(-counts, kind="stable")].tolist()
    ranks: dict[str, float] = {name: min(rank, _MOST_CODES) for rank, name in enumerate(ordered)} | {MISSING: np.nan}

    def code(column: Column) -> Column:
        return np.array([ranks.get(text, len(ranks)) for text in map(str, column)], dtype=np.float64)

    return code(seen), code(unseen)


def _finite(column: Column) -> Column:
    return np.where(np.isfinite(column), column, np.nan)
