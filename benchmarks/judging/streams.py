"""Seeded windows of a candidate and a stable version under the same traffic.

Traffic comes at random, and what is behind both versions has better and worse times: errors and latency of both rise
and fall together. Only the difference between the arms is the candidate's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import logit, ndtr

from release_platform.domain.windows import (
    EVERY_SLICE,
    LABEL,
    NOT_FINITE,
    Route,
    Window,
    WindowKey,
    number_bucket,
    number_of,
)

START_MINUTE = 29_000_000
START = datetime.fromtimestamp(START_MINUTE * 60, UTC)
WRONG = number_bucket(1.0)
BOUGHT = "bought"
_LATENCIES = range(number_bucket(1.0), number_bucket(4000.0))
_SPREAD = 0.5

Pair = tuple[Window, Window]
_Key = TypeVar("_Key", str, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How a version behaves.

    Attributes:
        errors: Share of requests that fail, on average.
        not_finite: Share of requests whose answer is NaN.
        slower: Factor on the latency, whose median is 20 ms.
        wrong: Share of wrong labels.
        shift: Shift of the predictions' log-odds, whose standard deviation is 1.2.
        bought: Share of requests that end in a purchase.
        differing: Share of shadow pairs that differ from the stable version's.
    """

    errors: float = 0.01
    not_finite: float = 0.0
    slower: float = 1.0
    wrong: float = 0.1
    shift: float = 0.0
    bought: float = 0.2
    differing: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How many requests come in a minute, the candidate's share of them, and for how many minutes."""

    per_minute: int = 600
    weight: float = 0.25
    minutes: int = 60


def stream(
    seed: int,
    candidate: Version,
    *,
    stable: Version | None = None,
    traffic: Traffic | None = None,
    shadow: bool = False,
) -> list[Pair]:
    """Returns the windows of the candidate and of the stable version, minute by minute."""
    random, traffic = np.random.default_rng(seed), traffic or Traffic()
    n = random.poisson(traffic.per_minute, traffic.minutes)
    n_c = random.binomial(n, traffic.weight)
    phase = random.uniform(0, 2 * np.pi)
    wave = 1 + 0.5 * np.sin(phase + np.arange(traffic.minutes) / 8)
    route = Route.SHADOW if shadow else Route.CANARY
    arms = (
        _windows(random, candidate, n_c, wave, "2", route),
        _windows(random, stable or Version(), n if shadow else n - n_c, wave, "1", Route.STABLE),
    )
    return list(zip(*arms, strict=True))


def without(window: Window, family: str) -> Window:
    """Returns a window that lacks one kind of measurement."""
    return Window(key=window.key, **{n: getattr(window, n) for n in _FAMILIES if n != family})


_FAMILIES = ("requests", "errors", "latency", "predictions", "outcomes", "pairs", "flips")


def _windows(
    random: np.random.Generator, version: Version, n: npt.NDArray[np.int64], wave: npt.NDArray[np.float64],
    name: str, route: Route,
) -> list[Window]:  # fmt: skip
    failed = random.binomial(n, np.minimum(version.errors * wave, 1.0))
    not_finite = random.binomial(n - failed, version.not_finite)
    answered = n - failed - not_finite
    latency = random.multinomial(n, _latency_shares(version.slower, np.sqrt(wave)))
    predictions = random.multinomial(answered, _prediction_shares(version.shift))
    labelled = random.binomial(answered, 0.5)
    wrong, bought = random.binomial(labelled, version.wrong), random.binomial(answered, version.bought)
    differing = random.binomial(answered, version.differing)
    labels, sales = np.stack([labelled - wrong, wrong], 1), np.stack([answered - bought, bought], 1)
    columns = (n, np.stack([failed, not_finite], 1), latency, predictions, labels, sales, answered, differing)
    minutes = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Window(
            key=WindowKey(model="churn", version=name, route=route, minute=START_MINUTE + t),
            requests=requests,
            errors=counted(("model_failed", NOT_FINITE), errors),
            latency=counted(_LATENCIES, times),
            predictions=counted(range(100), predicted),
            outcomes={
                outcome: {0: counts}
                for outcome, counts in ((LABEL, counted((0, WRONG), right)), (BOUGHT, counted((0, WRONG), sold)))
                if counts
            },
            pairs=counted((EVERY_SLICE,), (both,)) if route is Route.SHADOW else {},
            flips=_flips(differ) if route is Route.SHADOW else {},
        )
        for t, (requests, errors, times, predicted, right, sold, both, differ) in enumerate(minutes)
    ]


def _flips(n: int) -> dict[str, dict[str, int]]:
    return {EVERY_SLICE: {"no -> yes": n}} if n else {}


def counted(keys: Sequence[_Key], counts: Sequence[int]) -> dict[_Key, int]:
    """Returns counts by key; what did not happen is left out."""
    return {key: count for key, count in zip(keys, counts, strict=True) if count}


def _latency_shares(slower: float, wave: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the share of each latency bucket in each minute, shape (minutes, buckets)."""
    ends = np.array([number_of(bucket) for bucket in _LATENCIES[1:]])
    below = ndtr((np.log(ends) - np.log(20.0 * slower * wave)[:, None]) / _SPREAD)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


@cache
def _prediction_shares(shift: float) -> npt.NDArray[np.float64]:
    below = ndtr((logit(np.arange(1, 100) / 100) + 1.0 - shift) / 1.2)
    return np.diff(below, prepend=0.0, append=1.0)
