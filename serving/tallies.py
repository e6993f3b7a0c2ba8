"""Counts of one minute while they grow, and the buckets that they are counted in, many at once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import OCTAVES, PER_OCTAVE, Route, Window, WindowKey

MOST_PUT_DOWN = 200
"""Most requests that wait to be counted: an answer waits for at most so many, half a millisecond where that is slow."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What answers on a route, as far as its answers must be understood when the version is gone.

    Attributes:
        model: The model's name.
        version: The version.
        route: The route.
        task: What kind of answers it gives.
        classes: The labels of a classifier, in order.
    """

    model: str
    version: str
    route: Route
    task: Task
    classes: tuple[Any, ...]


@dataclass(slots=True)
class Tally:
    """What one arm did in one minute, so far; see `Window`."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)
    predictions: Counter[int] = field(default_factory=Counter)
    outcomes: dict[str, dict[int, Counter[int]]] = field(default_factory=dict)
    pairs: Counter[str] = field(default_factory=Counter)
    flips: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, buckets: Mapping[str, npt.NDArray[np.int64]], errors: Iterable[str]) -> None:
        """Counts requests: the buckets of their `latency` and `predictions`, and the kinds of their errors."""
        self.requests += len(buckets["latency"])
        _add(self.latency, buckets["latency"])
        _add(self.predictions, buckets["predictions"])
        self.errors.update(errors)

    def outcome(self, name: str, age: int, bucket: int) -> None:
        """Counts an outcome that came now, of a prediction some minutes ago."""
        self.outcomes.setdefault(name, {}).setdefault(age, Counter())[bucket] += 1

    def pair(self, slices: Iterable[str], flip: str | None) -> None:
        """Counts a request that both versions answered, in each of its slices: what became what, None for the same."""
        for name in slices:
            self.pairs[name] += 1
            if flip is not None:
                self.flips.setdefault(name, Counter())[flip] += 1

    def as_window(self, arm: Arm, minute: int) -> Window:
        """Returns the counts as they are now."""
        return Window(
            key=WindowKey(model=arm.model, version=arm.version, route=arm.route, minute=minute),
            requests=self.requests,
            errors=dict(self.errors),
            latency=dict(self.latency),
            predictions=dict(self.predictions),
            outcomes={
                name: {age: dict(counts) for age, counts in by_age.items()} for name, by_age in self.outcomes.items()
            },
            pairs=dict(self.pairs),
            flips={name: dict(counts) for name, counts in self.flips.items()},
        )


def _add(counts: Counter[int], buckets: npt.NDArray[np.int64]) -> None:
    found, n = np.unique(buckets, return_counts=True)
    for bucket, count in zip(found.tolist(), n.tolist(), strict=True):
        counts[bucket] += count


def said(task: Task, predictions: Predictions) -> str | float:
    """Returns the answer to the first row as it is compared with another version's: a label is a text.

    Args:
        task: The task of either version; the other's answer may be of another kind.
        predictions: What one of them answered.
    """
    value = predictions.values.item(0)
    return float(value) if task is Task.REGRESSION and not isinstance(value, str) else str(value)


def number_buckets(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the `number_bucket` of each number; none is NaN."""
    sizes = np.minimum(np.abs(values), 2.0**OCTAVES)
    sound = np.maximum(sizes, 2.0**-OCTAVES)
    buckets = 1 + np.floor(PER_OCTAVE * (np.log2(sound) + OCTAVES)).astype(np.int64)
    return np.where(sizes < 2.0**-OCTAVES, 0, np.where(values > 0, buckets, -buckets))


def share_buckets(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the `share_bucket` of each probability; one that rounding put beyond an end belongs to that end."""
    return np.clip((values * 100).astype(np.int64), 0, 99)


def first_answer(predictions: Predictions) -> tuple[float, float]:
    """Returns what was answered to the first row, and the number that a window counts.

    What was answered is the value of a regression, or the place of the label among the classes; what is counted is that
    too, but of two classes the probability of the second.
    """
    probabilities = predictions.probabilities
    if probabilities is None:
        value = float(predictions.values.item(0))
        return value, value
    if probabilities.shape[1] == 2:
        second = probabilities.item(1)
        return float(second > probabilities.item(0)), second
    place = float(probabilities[0].argmax())
    return place, place


def prediction_buckets(arm: Arm, counted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the bucket of each prediction, by what `first_answer` says is counted."""
    if arm.task is Task.REGRESSION:
        return number_buckets(counted)
    return share_buckets(counted) if len(arm.classes) == 2 else counted.astype(np.int64)
