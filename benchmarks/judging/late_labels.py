"""Labels that come late, and the later the better or the worse: fraud is reported soon, and its absence is known last.

A tenth of the labels comes after a minute, the rest after an hour. Before the stage only the stable version answered,
so its windows hold labels of earlier predictions too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.judging.streams import START_MINUTE, WRONG, Pair, Traffic, counted
from release_platform.domain.windows import LABEL, Route, Window, WindowKey

SOON, LATE = 1, 60
"""Minutes until a label comes."""
_SOON_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """How often a version is wrong where the label comes soon, and where it comes late."""

    soon: float = 0.4
    late: float = 0.02


ALIKE = Labelled()
WORSE = Labelled(soon=0.5, late=0.12)


def late_stream(seed: int, candidate: Labelled, *, traffic: Traffic | None = None) -> list[Pair]:
    """Returns the windows of the candidate and of the stable version, minute by minute."""
    random, traffic = np.random.default_rng([seed, 2]), traffic or Traffic(minutes=120)
    n = random.poisson(traffic.per_minute, traffic.minutes + LATE)
    n_c = random.binomial(n, traffic.weight)
    n_c[:LATE] = 0
    arms = (
        _windows(random, candidate, n_c, "2", Route.CANARY),
        _windows(random, ALIKE, n - n_c, "1", Route.STABLE),
    )
    return list(zip(*arms, strict=True))


def _windows(
    random: np.random.Generator, version: Labelled, n: npt.NDArray[np.int64], name: str, route: Route
) -> list[Window]:
    soon = random.binomial(n, _SOON_SHARE)
    late = n - soon
    wrong_soon, wrong_late = random.binomial(soon, version.soon), random.binomial(late, version.late)
    by_age = {
        age: np.stack([of - k, k], 1).tolist() for age, of, k in ((SOON, soon, wrong_soon), (LATE, late, wrong_late))
    }
    windows = []
    for minute in range(LATE, len(n)):
        told = {age: counts for age, labels in by_age.items() if (counts := counted((0, WRONG), labels[minute - age]))}
        key = WindowKey(model="churn", version=name, route=route, minute=START_MINUTE + minute - LATE)
        windows.append(Window(key=key, requests=int(n[minute]), outcomes={LABEL: told} if told else {}))
    return windows
