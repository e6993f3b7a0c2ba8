"""Quality metrics: the point estimate, and the same over many weightings of the rows at once.

The point estimates are scikit-learn's; only the expected calibration error is ours (Naeini, Cooper and Hauskrecht,
"Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; Guo et al., ICML 2017). The weighted forms
exist for speed: a bootstrap resample is a vector of counts, so that means are matrix products and rank metrics are
cumulative sums over rows that were sorted once. Tests hold each to scikit-learn's `sample_weight` within 1e-9.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.errors import DataError
from release_platform.domain.evidence import finite_or_none
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[Any]
Replicates = Callable[[Weights], Floats]

N_BINS = 15
UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Held-out rows, ready to be measured.

    Attributes:
        truth: Shape (n,): the index of the true class (int64; `UNKNOWN` for a label that the model does not have), or
            the true value (float64).
        predicted: Shape (n,): the index of the predicted class, or the predicted value.
        probabilities: Shape (n, k), float64; None for a regression.
        positive: Index of the positive class; None unless the task is binary.
    """

    truth: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: Floats | None
    positive: int | None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.truth)

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        numbers = (self.truth, self.predicted) if self.probabilities is None else (self.probabilities,)
        return all(bool(np.isfinite(of).all()) for of in numbers)

    @property
    def is_positive(self) -> npt.NDArray[np.bool_]:
        """Which rows are truly of the positive class. Shape (n,). An unknown label is not positive."""
        return np.asarray(self.truth == self.positive)

    @property
    def says_positive(self) -> npt.NDArray[np.bool_]:
        """Which rows are predicted to be of the positive class. Shape (n,)."""
        return np.asarray(self.predicted == self.positive)

    @property
    def scores(self) -> Floats:
        """The probability of the positive class. Shape (n,), 0 to 1."""
        return np.clip(self._known_probabilities[:, self.positive or 0], 0.0, 1.0)

    @property
    def of_truth(self) -> Floats:
        """The probability that was given to the true class. Shape (n,), 0 to 1; 0 where that class is unknown."""
        given = self._known_probabilities[np.arange(self.n_rows), self.truth]
        return np.where(self.truth == UNKNOWN, 0.0, np.clip(given, 0.0, 1.0))

    @property
    def confidence(self) -> Floats:
        """What calibration is judged by: the positive probability, or the largest one of several classes."""
        return self._known_probabilities.max(axis=1) if self.positive is None else self.scores

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """What `confidence` foretells: that the row is positive, or that the label is right."""
        return np.asarray(self.truth == self.predicted) if self.positive is None else self.is_positive

    @property
    def _known_probabilities(self) -> Floats:
        if self.probabilities is None:
            raise TypeError("a regression has no probabilities")
        return self.probabilities

    def take(self, index: npt.NDArray[Any]) -> "Rows":
        """Returns these rows only, by index or mask of shape (n,)."""
        given = self.probabilities
        return Rows(
            truth=self.truth[index],
            predicted=self.predicted[index],
            probabilities=None if given is None else given[index],
            positive=self.positive,
        )


def encode(
    task: Task,
    truth: npt.NDArray[Any],
    predictions: Predictions,
    classes: Sequence[object],
    positive_index: int | None,
) -> Rows:
    """Returns rows as the measures take them.

    A true label that the model does not have counts as wrong, and as not positive; log loss is undefined with one.

    Args:
        task: What is predicted.
        truth: Shape (n,): labels (object), or numbers.
        predictions: Of the same rows, in the same order.
        classes: The labels, in the order of the columns of the probabilities; empty for a regression.
        positive_index: Which of them is the positive one; None unless the task is binary.

    Raises:
        DataError: Truth and predictions have different lengths, or a predicted label is not among the classes.
    """
    if len(truth) != len(predictions.values):
        raise DataError(
            f"{len(truth):,} true values, but {len(predictions.values):,} predictions",
            remedy="predict exactly the held-out rows, in their order",
        )
    if task is Task.REGRESSION:
        return Rows(
            truth=np.asarray(truth, dtype=np.float64),
            predicted=np.asarray(predictions.values, dtype=np.float64),
            probabilities=None,
            positive=None,
        )
    predicted = _codes(predictions.values, classes)
    if (predicted == UNKNOWN).any():
        label = predictions.values[int(np.argmax(predicted == UNKNOWN))]
        raise DataError(f"the label '{label}' was predicted, but is no class of the model", remedy="train it again")
    return Rows(
        truth=_codes(truth, classes),
        predicted=predicted,
        probabilities=predictions.probabilities,
        positive=positive_index,
    )


def _codes(labels: npt.NDArray[Any], classes: Sequence[object]) -> Indices:
    place = {label: index for index, label in enumerate(classes)}
    return np.fromiter((place.get(label, UNKNOWN) for label in labels.tolist()), dtype=np.int64, count=len(labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How one metric is measured.

    Attributes:
        point: The metric of these rows; called only when `defined` says so.
        prepare: Sorts what needs sorting and returns the weighted form: weights of shape (b, n), 0 and up, to values
            of shape (b,), NaN where the metric is undefined under the weights.
        defined: Whether the metric exists for these rows (there is one at least, and all numbers are finite).
    """

    point: Callable[[Rows], float]
    prepare: Callable[[Rows], Replicates]
    defined: Callable[[Rows], bool] = lambda rows: True


def is_defined(metric: str, rows: Rows) -> bool:
    """Returns whether a metric has a value for these rows."""
    return rows.n_rows > 0 and rows.is_finite and MEASURES[metric].defined(rows)


def point(metric: str, rows: Rows) -> float | None:
    """Returns a metric of these rows by scikit-learn.

    Returns:
        The value; None where it is undefined: no rows, numbers that are not finite, one class only for rank metrics,
        nothing predicted positive for precision, no positives for recall, a constant target for R squared.
    """
    if not is_defined(metric, rows):
        return None
    from sklearn import config_context

    with config_context(assume_finite=True, skip_parameter_validation=True), np.errstate(all="ignore"):
        return finite_or_none(MEASURES[metric].point(rows))


def replicates(metric: str, rows: Rows) -> Replicates:
    """Returns the weighted form of a metric that is defined for these rows.

    Returns:
        A function of weights of shape (b, n), 0 and up (small unsigned integers are fastest), to values of shape (b,).
        A value is NaN where the metric is undefined under these weights.
    """
    weighted = MEASURES[metric].prepare(rows)

    def quietly(weights: Weights) -> Floats:
        with np.errstate(all="ignore"):
            return weighted(weights)

    return quietly


@cache
def _sklearn() -> Any:
    from sklearn import metrics  # takes half a second, which loading the definitions need not pay

    return metrics


def _ratio(over: Floats, under: Floats) -> Floats:
    ratio = np.full(np.shape(over), np.nan)
    np.divide(over, under, out=ratio, where=under > 0)
    return ratio


def _sums(*terms: npt.NDArray[Any]) -> Callable[[Weights], tuple[Floats, ...]]:
    columns = [np.ascontiguousarray(of, dtype=np.float64) for of in terms]

    def of(weights: Weights) -> tuple[Floats, ...]:
        counts = np.asarray(weights, dtype=np.float64)
        return tuple(counts @ column for column in columns)  # faster than one product with a narrow matrix

    return of


def _ratio_of_sums(over: npt.NDArray[Any], under: npt.NDArray[Any]) -> Replicates:
    sums = _sums(over, under)
    return lambda weights: _ratio(*sums(weights))


def _mean(terms: npt.NDArray[Any]) -> Replicates:
    return _ratio_of_sums(terms, np.ones(len(terms)))


def _cumulated(weights: Weights) -> npt.NDArray[Any]:
    """Returns the sums of the first 0, 1, 2, ... n weights, exact for integers. Shape (b, n + 1)."""
    b, n = weights.shape
    sums = np.zeros((b, n + 1), dtype=np.float64 if weights.dtype.kind == "f" else np.int64)
    np.cumsum(weights, axis=1, dtype=sums.dtype, out=sums[:, 1:])
    return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranking:
    """The rows of two classes in the order of their scores, with what ties need.

    Attributes:
        positives: Rows of the positives, by descending score.
        negatives: Rows of the negatives, by ascending score.
        below: For each positive, how many negatives have a lower score.
        not_above: For each positive, how many negatives have a lower or the same score.
        not_lower: For each positive, how many positives have its score or a higher one.
    """

    positives: Indices
    negatives: Indices
    below: Indices
    not_above: Indices
    not_lower: Indices


def _rank(rows: Rows) -> _Ranking:
    scores, is_positive = rows.scores, rows.is_positive
    order = np.argsort(scores, kind="stable")
    negatives = order[~is_positive[order]]
    positives = order[is_positive[order]][::-1]
    low, high = scores[negatives], scores[positives]
    return _Ranking(
        positives=positives,
        negatives=negatives,
        below=np.searchsorted(low, high, side="left"),
        not_above=np.searchsorted(low, high, side="right"),
        not_lower=np.searchsorted(-high, -high, side="right"),
    )


def _roc_auc(rows: Rows) -> Replicates:
    """Prepares the share of pairs of a positive and a negative in order, ties half (Hanley and McNeil 1982)."""
    rank = _rank(rows)
    tied = not np.array_equal(rank.below, rank.not_above)

    def of(weights: Weights) -> Floats:
        won = _cumulated(np.take(weights, rank.negatives, axis=1))
        mine = np.take(weights, rank.positives, axis=1).astype(np.float64)
        beaten = np.take(won, rank.below, axis=1).astype(np.float64)
        if tied:
            beaten = (beaten + np.take(won, rank.not_above, axis=1)) / 2
        return _ratio(np.einsum("ij,ij->i", mine, beaten), mine.sum(axis=1) * won[:, -1])

    return of


def _average_precision(rows: Rows) -> Replicates:
    """Prepares the mean precision at the score of each positive: precision, weighted by the recall gained."""
    rank = _rank(rows)

    def of(weights: Weights) -> Floats:
        won = _cumulated(np.take(weights, rank.negatives, axis=1))
        mine = np.take(weights, rank.positives, axis=1)
        cumulated = _cumulated(mine)
        found = np.take(cumulated, rank.not_lower, axis=1).astype(np.float64)
        called = found + (won[:, -1:] - np.take(won, rank.below, axis=1))
        precision = np.divide(found, called, out=found, where=called > 0)
        mean = _ratio(np.einsum("ij,ij->i", mine, precision), cumulated[:, -1].astype(np.float64))
        return np.where(won[:, -1] > 0, mean, np.nan)

    return of


def _log_loss(rows: Rows) -> Replicates:
    tiny = np.finfo(np.float64).eps  # scikit-learn's own bound
    return _mean(-np.log(np.clip(rows.of_truth, tiny, 1 - tiny)))


def _bins(rows: Rows) -> Indices:
    return np.minimum((rows.confidence * N_BINS).astype(np.int64), N_BINS - 1)


def expected_calibration_error(rows: Rows) -> float:
    """Returns the mean distance of confidence and hit rate over 15 bins of equal width, weighted by their rows."""
    gap = np.bincount(_bins(rows), weights=rows.confidence - rows.hits, minlength=N_BINS)
    return float(np.abs(gap).sum() / rows.n_rows)


def _calibration(rows: Rows) -> Replicates:
    bins = _bins(rows)
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins, minlength=N_BINS))
    gap = (rows.confidence - rows.hits)[order]

    def of(weights: Weights) -> Floats:
        taken = np.take(weights, order, axis=1).astype(np.float64)
        parts = zip([0, *ends[:-1]], ends, strict=True)
        distance = sum((np.abs(taken[:, a:b] @ gap[a:b]) for a, b in parts), start=np.zeros(len(taken)))
        return _ratio(distance, taken.sum(axis=1))

    return of


def _macro_f1(rows: Rows) -> Replicates:
    """Prepares the mean F1 of the classes that occur, as truth or as prediction, under the weights."""
    width = int(max(rows.truth.max(), rows.predicted.max())) + 2  # one more for `UNKNOWN`, which is -1
    cell = (rows.truth + 1) * width + rows.predicted + 1
    order = np.argsort(cell, kind="stable")
    cells, starts = np.unique(cell[order], return_index=True)
    true, said = np.divmod(cells, width)
    classes = np.unique(np.concatenate([true, said]))
    right = ((true == said)[:, None] & (said[:, None] == classes)).astype(np.float64)
    either = (true[:, None] == classes).astype(np.float64) + (said[:, None] == classes)

    def of(weights: Weights) -> Floats:
        taken = np.take(weights, order, axis=1)
        kind = np.float64 if taken.dtype.kind == "f" else np.int64
        sums = np.add.reduceat(taken, starts, axis=1, dtype=kind).astype(np.float64)
        f1 = _ratio(2 * (sums @ right), sums @ either)
        occurs = ~np.isnan(f1)
        return _ratio(np.where(occurs, f1, 0.0).sum(axis=1), occurs.sum(axis=1).astype(np.float64))

    return of


def _r2(rows: Rows) -> Replicates:
    centred = rows.truth - rows.truth.mean()
    sums = _sums((rows.truth - rows.predicted) ** 2, centred, centred**2, np.ones(rows.n_rows))

    def of(weights: Weights) -> Floats:
        residual, total, squares, n = sums(weights)
        spread = squares - _ratio(total**2, n)
        # A resample of one value only has no spread; what rounding leaves of it is no number to divide by.
        return 1 - _ratio(residual, np.where(spread > 1e-12 * squares, spread, 0.0))

    return of


def _rmse(rows: Rows) -> Replicates:
    mean = _mean((rows.truth - rows.predicted) ** 2)
    return lambda weights: np.sqrt(mean(weights))


def _both_classes(rows: Rows) -> bool:
    return bool(rows.is_positive.any() and not rows.is_positive.all())


MEASURES: Mapping[str, Measure] = {
    "roc_auc": Measure(
        point=lambda r: _sklearn().roc_auc_score(r.is_positive, r.scores), prepare=_roc_auc, defined=_both_classes
    ),
    "average_precision": Measure(
        point=lambda r: _sklearn().average_precision_score(r.is_positive, r.scores),
        prepare=_average_precision,
        defined=_both_classes,
    ),
    "log_loss": Measure(
        point=lambda r: _sklearn().log_loss(np.ones(r.n_rows), r.of_truth, labels=[0, 1]),
        prepare=_log_loss,
        defined=lambda r: not (r.truth == UNKNOWN).any(),
    ),
    "brier": Measure(
        point=lambda r: _sklearn().brier_score_loss(r.is_positive, r.scores, labels=[False, True], pos_label=True),
        prepare=lambda r: _mean((r.scores - r.is_positive) ** 2),
    ),
    "accuracy": Measure(
        point=lambda r: _sklearn().accuracy_score(r.truth, r.predicted), prepare=lambda r: _mean(r.truth == r.predicted)
    ),
    "precision": Measure(
        point=lambda r: _sklearn().precision_score(r.is_positive, r.says_positive, zero_division=0.0),
        prepare=lambda r: _ratio_of_sums(r.is_positive & r.says_positive, r.says_positive),
        defined=lambda r: bool(r.says_positive.any()),
    ),
    "recall": Measure(
        point=lambda r: _sklearn().recall_score(r.is_positive, r.says_positive, zero_division=0.0),
        prepare=lambda r: _ratio_of_sums(r.is_positive & r.says_positive, r.is_positive),
        defined=lambda r: bool(r.is_positive.any()),
    ),
    "f1": Measure(
        point=lambda r: _sklearn().f1_score(r.is_positive, r.says_positive, zero_division=0.0),
        prepare=lambda r: _ratio_of_sums(
            2.0 * (r.is_positive & r.says_positive), r.is_positive.astype(np.float64) + r.says_positive
        ),
        defined=lambda r: bool((r.is_positive | r.says_positive).any()),
    ),
    "macro_f1": Measure(
        point=lambda r: _sklearn().f1_score(r.truth, r.predicted, average="macro", zero_division=np.nan),
        prepare=_macro_f1,
    ),
    "expected_calibration_error": Measure(point=expected_calibration_error, prepare=_calibration),
    "mae": Measure(
        point=lambda r: _sklearn().mean_absolute_error(r.truth, r.predicted),
        prepare=lambda r: _mean(np.abs(r.truth - r.predicted)),
    ),
    "rmse": Measure(point=lambda r: _sklearn().root_mean_squared_error(r.truth, r.predicted), prepare=_rmse),
    "r2": Measure(
        point=lambda r: _sklearn().r2_score(r.truth, r.predicted),
        prepare=_r2,
        defined=lambda r: r.n_rows > 1 and bool(np.ptp(r.truth) > 0),
    ),
}
