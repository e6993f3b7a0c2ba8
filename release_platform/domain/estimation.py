"""How good a classifier probably is while no label has come: confidence-based performance estimation.

A calibrated probability says how often the label is what was said. So of each row the chance that its answer is right
is known before the label is, and so is the expected count of true and false positives, and with them accuracy,
precision, recall, Brier score, log loss and the area under the ROC curve of these rows. The method is NannyML's CBPE
(https://nannyml.readthedocs.io, "Confidence-based Performance Estimation"), here with the interval in which the real
value lies because labels are drawn, and because the calibration itself was learned from no more rows than were held
out: it is learned again from labels that are drawn anew (a parametric bootstrap, Efron and Tibshirani 1993, chapter 6).

It holds as long as probabilities stay calibrated: it sees that rows became harder, never that the world changed what a
label means. Hence each estimate is held against the real value as soon as labels come (`Tracked`): an error of many
intervals says that it does not hold any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from release_platform.domain.json_form import exactly

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]
_Ranked = tuple[Floats, npt.NDArray[np.intp]]

THRESHOLD = 0.5
DRAWS = 200
DRAWN_ROWS = 20_000
LEAST_ROWS = 30
"""Of fewer rows nothing is estimated, and no calibration is learned."""
_COVERED = (0.025, 0.975)
_BINS = 50
_TINY = 1e-12


class Quality(StrEnum):
    """What can be estimated; of a model of several classes the accuracy only."""

    ACCURACY = "accuracy"
    PRECISION = "precision"
    RECALL = "recall"
    ROC_AUC = "roc_auc"
    BRIER = "brier"
    LOG_LOSS = "log_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a probability came to, on rows whose labels are known: straight lines between points.

    Attributes:
        said: Probabilities, ascending.
        came: The share that came true at each, not falling.
        rows: Of how many rows each is known, 1 and up; empty for a calibration that is not in doubt.
    """

    said: tuple[float, ...]
    came: tuple[float, ...]
    rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.said) != len(self.came) or not self.said or len(self.rows) not in (0, len(self.said)):
            raise ValueError("a calibration has points")
        if (np.diff(self.said) <= 0).any() or (np.diff(self.came) < 0).any():
            raise ValueError("a calibration ascends")

    def apply(self, probabilities: Floats) -> Floats:
        """Returns calibrated probabilities; NaN stays NaN."""
        return np.interp(probabilities, self.said, self.came)

    def drawn(self, generator: np.random.Generator) -> "Calibration":
        """Returns what other held-out rows might as well have shown; itself where it is not in doubt.

        Rows of points at which the same share came were put together by the regression. Each of them counts as half a
        row of either outcome more, so that a share of 0 or 1 is in doubt too.
        """
        if not self.rows:
            return self
        rows, came = np.array(self.rows), np.array(self.came)
        _, together = np.unique(came, return_inverse=True)
        n = np.bincount(together, weights=rows)[together]
        shares = generator.binomial(rows, (n * came + 0.5) / (n + 1)) / rows
        rising = np.clip(isotonic_regression(shares, weights=rows).x, 0.0, 1.0)
        return Calibration(said=self.said, came=tuple(np.maximum.accumulate(rising).tolist()), rows=self.rows)

    def to_json(self) -> dict[str, Any]:
        """Returns the calibration as a JSON value."""
        return {"said": list(self.said), "came": list(self.came), "rows": list(self.rows)}

    @staticmethod
    def from_json(value: object) -> "Calibration":
        """Returns the calibration that `to_json` wrote; raises ValueError when it is none."""
        of = exactly(value, "calibration", said=list, came=list, rows=list)
        return Calibration(
            said=tuple(map(float, of["said"])), came=tuple(map(float, of["came"])), rows=tuple(of["rows"])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quality, estimated or real.

    Attributes:
        value: The value; None where it is undefined, as precision without a positive answer.
        lower: In 19 of 20 cases the real value is at least this; None as `value`, and for a real value.
        upper: In 19 of 20 cases it is at most this.
    """

    value: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """An estimate beside what came.

    Attributes:
        estimate: What was expected.
        real: What came; None where it is undefined.
    """

    estimate: Estimate
    real: float | None

    @property
    def error(self) -> float | None:
        """Estimate minus what came."""
        return None if self.real is None or self.estimate.value is None else self.estimate.value - self.real

    @property
    def held(self) -> bool | None:
        """Whether what came lies in the interval; None where either is undefined."""
        if self.real is None or self.estimate.lower is None or self.estimate.upper is None:
            return None
        return self.estimate.lower <= self.real <= self.estimate.upper


def calibrated(probabilities: Floats, came_true: Truths) -> Calibration | None:
    """Returns how probabilities are to be read, by isotonic regression over about `_BINS` groups of equal size.

    Args:
        probabilities: Of rows that were not trained on, shape (n_rows,), 0 to 1.
        came_true: Whether each came true, shape (n_rows,).

    Returns:
        The calibration; None for fewer than `LEAST_ROWS` rows.
    """
    if len(probabilities) < LEAST_ROWS:
        return None
    order = np.argsort(probabilities, kind="stable")
    groups = np.array_split(order, min(_BINS, len(order) // (LEAST_ROWS // 3)))
    said = np.array([probabilities[rows].mean() for rows in groups])
    came = np.array([came_true[rows].mean() for rows in groups])
    weights = np.array([len(rows) for rows in groups], dtype=np.float64)
    rising = np.clip(isotonic_regression(came, weights=weights).x, 0.0, 1.0)
    places, kept, groups_of = np.unique(said, return_index=True, return_inverse=True)
    return Calibration(
        said=tuple(places.tolist()),
        came=tuple(np.maximum.accumulate(rising[kept]).tolist()),
        rows=tuple(np.bincount(groups_of, weights=weights).astype(int).tolist()),
    )


def estimate_binary(
    scores: Floats, calibration: Calibration, *, threshold: float = THRESHOLD, seed: int = 0
) -> dict[Quality, Estimate]:
    """Returns the expected quality of a binary classifier's rows, with the interval that labels and calibration leave.

    Args:
        scores: The probability of the positive class that the model said, shape (n_rows,), finite.
        calibration: How it is to be read.
        threshold: From where on the answer is positive.
        seed: Of what is drawn for the intervals.

    Returns:
        Each quality; none for fewer than `LEAST_ROWS` rows.
    """
    if len(scores) < LEAST_ROWS:
        return {}
    expected = _measured(scores, _ranked(scores), calibration.apply(scores), threshold)
    off = _intervals(scores, calibration, threshold, np.random.default_rng(seed))
    return {quality: _estimate(expected[quality], off[quality]) for quality in Quality}


def estimate_accuracy(said: Floats, calibration: Calibration, *, seed: int = 0) -> Estimate:
    """Returns the expected accuracy of answers that are right with these chances; None for few rows.

    Args:
        said: The probability of each answer, shape (n_rows,), 0 to 1.
        calibration: How it is to be read.
        seed: Of what is drawn for the interval.
    """
    if len(said) < LEAST_ROWS:
        return Estimate(value=None)
    generator, chances = np.random.default_rng(seed), calibration.apply(said)
    some = np.sort(said)[:: -(-len(said) // DRAWN_ROWS)]
    means = [float(calibration.drawn(generator).apply(some).mean()) for _ in range(DRAWS)]
    by_labels = float((chances * (1 - chances)).sum()) / len(chances) ** 2
    value, off = float(chances.mean()), 1.96 * float(np.sqrt(by_labels + np.var(means)))
    return Estimate(value=value, lower=max(value - off, 0.0), upper=min(value + off, 1.0))


def real_quality(scores: Floats, labels: Truths, *, threshold: float = THRESHOLD) -> dict[Quality, float | None]:
    """Returns the real quality of a binary classifier's rows, each of shape (n_rows,); None where it is undefined."""
    if len(scores) == 0:
        return dict.fromkeys(Quality)
    found = _measured(scores, _ranked(scores), labels.astype(np.float64), threshold)
    return {quality: None if np.isnan(value) else value for quality, value in found.items()}


def tracked(estimates: Mapping[Quality, Estimate], real: Mapping[Quality, float | None]) -> dict[Quality, Tracked]:
    """Returns each estimate beside what came."""
    return {quality: Tracked(estimate=one, real=real.get(quality)) for quality, one in estimates.items()}


def _intervals(
    scores: Floats, calibration: Calibration, threshold: float, generator: np.random.Generator
) -> dict[Quality, tuple[float, float]]:
    """Returns how far below and above its expectation each quality of drawn labels lies; NaN where it is undefined.

    Of more than `DRAWN_ROWS` rows that many are drawn, evenly by their score; what labels add there shrinks as the root
    of the rows grows, what the calibration adds does not.
    """
    some = np.sort(scores)[:: -(-len(scores) // DRAWN_ROWS)]
    ranked = _ranked(some)
    middle = _measured(some, ranked, calibration.apply(some), threshold)
    shrunk = float(np.sqrt(len(some) / len(scores)))
    drawn: dict[Quality, list[float]] = {quality: [] for quality in Quality}
    for _ in range(DRAWS):
        chances = calibration.drawn(generator).apply(some)
        expected = _measured(some, ranked, chances, threshold)
        came = _measured(some, ranked, (generator.random(len(some)) < chances).astype(np.float64), threshold)
        for quality, values in drawn.items():
            by_labels = (came[quality] - expected[quality]) * shrunk
            values.append(by_labels + expected[quality] - middle[quality])
    found = {}
    for quality, values in drawn.items():
        there = np.array(values)[~np.isnan(values)]
        ends = np.quantile(there, _COVERED) if len(there) else np.full(2, np.nan)
        found[quality] = (float(ends[0]), float(ends[1]))
    return found


def _estimate(value: float, off: tuple[float, float]) -> Estimate:
    if np.isnan(value) or np.isnan(off).any():
        return Estimate(value=None)
    return Estimate(value=value, lower=value + min(off[0], 0.0), upper=value + max(off[1], 0.0))


def _measured(scores: Floats, ranked: _Ranked, positive: Floats, threshold: float) -> dict[Quality, float]:
    """Returns each quality where a row is positive with this weight: labels as 0 and 1, or their chances."""
    answered = scores >= threshold
    n, n_positive, n_answered = len(scores), float(positive.sum()), int(answered.sum())
    right = float(positive[answered].sum())
    said = np.clip(scores, _TINY, 1 - _TINY)
    return {
        Quality.ACCURACY: (right + (n - n_answered) - (n_positive - right)) / n,
        Quality.PRECISION: right / n_answered if n_answered else float("nan"),
        Quality.RECALL: right / n_positive if n_positive > 0 else float("nan"),
        Quality.ROC_AUC: _area(ranked, positive),
        Quality.BRIER: float((positive * (1 - scores) ** 2 + (1 - positive) * scores**2).mean()),
        Quality.LOG_LOSS: float(-(positive * np.log(said) + (1 - positive) * np.log1p(-said)).mean()),
    }


def _ranked(scores: Floats) -> _Ranked:
    _, places = np.unique(scores, return_inverse=True)
    return rankdata(scores), places


def _area(ranked: _Ranked, positive: Floats) -> float:
    """Returns Mann and Whitney's area, ties as a half; with chances, pairs of a row and itself are taken out."""
    ranks, places = ranked
    n, n_positive = len(ranks), float(positive.sum())
    own = float((positive * (1 - positive)).sum())
    pairs = n_positive * (n - n_positive) - own
    if pairs <= 0:
        return float("nan")
    weights = np.bincount(places, weights=positive)
    before = np.cumsum(weights) - weights
    among_positives = float(weights @ (before + weights / 2))
    return (float(positive @ (ranks - 0.5)) - among_positives - own / 2) / pairs
