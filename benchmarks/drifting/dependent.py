"""Stationary days whose rows are not independent: false alarms before and after the days teach, and what is then found.

A request carries many alike rows, or weekends are other days; nothing ever drifts. Each history begins without
a recorded day. The training data has no time, so it teaches nothing of days. After two months another version answers,
which was trained anew on as many days.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from benchmarks.drifting.streams import rows_of
from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.drift import Rows, watch, with_floors
from release_platform.domain.history import DayShape, learned_history
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import Reference, summarised
from release_platform.pipeline.domain_classifier import learned
from release_platform.pipeline.drift_reference import Known

N_COLUMNS = 10
MONTH, FIRST, PATIENCE = 30, 14, 30
"""Days of a month; days in which little is known yet; days within which a shift is to be found."""
_REFERENCE_DAYS, _BLOCKS = 63, 30
_NAMES = tuple(f"c{place}" for place in range(N_COLUMNS))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How a day's rows come.

    Attributes:
        said: In words.
        n_rows: Rows of a day.
        together: Rows of a request.
        alike: The standard deviation between requests, of 1 in all.
        weekend: By how many standard deviations Saturdays and Sundays are higher.
    """

    said: str
    n_rows: int = 2000
    together: int = 1
    alike: float = 0.0
    weekend: float = 0.0

    def day(self, rng: np.random.Generator, number: int) -> Floats:
        """Returns the rows of a numbered day, shape (n_rows, N_COLUMNS)."""
        requests = rng.normal(size=(self.n_rows // self.together, 1, N_COLUMNS)) * self.alike
        within = rng.normal(size=(self.n_rows // self.together, self.together, N_COLUMNS))
        rows: Floats = (requests + within * np.sqrt(1 - self.alike**2)).reshape(-1, N_COLUMNS)
        return rows + (self.weekend if number % 7 >= 5 else 0.0)


TRAFFIC = (
    Traffic(said="independent rows"),
    Traffic(said="100 rows a request, 0.3 apart", together=100, alike=0.3),
    Traffic(said="100 rows a request, 0.5 apart", together=100, alike=0.5),
    Traffic(said="weekends 0.3 higher", weekend=0.3),
    Traffic(said="weekends 0.6 higher", weekend=0.6),
)
SHIFTS = (0.2, 0.5, 1.0)
SLOPE = 0.02
"""Standard deviations by which a slow drift grows each day."""


def dependent(traffic: Traffic, *, histories: int, seed: int) -> dict[str, Any]:
    """Returns alarms of both months, and of the next version's first days, and the delays of shifts.

    Args:
        traffic: How rows come.
        histories: How many there are. The domain classifier looks at the first quarter of them, of which no
            shifts are made. The same quarter is looked at once more without learning, and without the classifier.
        seed: Of all that is drawn.
    """
    quarter = -(-histories // 4)
    iid = [_history(traffic, [seed, number], learns=False)[0][:MONTH] for number in range(quarter)]
    found: list[list[bool]] = []
    by_shift: dict[str, list[float]] = {name: [] for name in _MOVED}
    for number in range(histories):
        alarms, named = _history(traffic, [seed, number], classifies=number < quarter)
        found.append(alarms)
        for name, day in named.items():
            by_shift[name].append(day)
    every = np.array(found)
    later = int(every[:, MONTH : 2 * MONTH].sum())
    return {
        "said": traffic.said,
        "histories": histories,
        "independent": float(np.array(iid).sum(axis=1).mean()),
        "first": float(every[:, :FIRST].sum(axis=1).mean()),
        "rest": float(every[:, FIRST:MONTH].sum(axis=1).mean()),
        "second_month": later / histories,
        "next_version": float(every[:, 2 * MONTH :].sum(axis=1).mean()),
        "at_most": float(chi2.isf(0.05, 2 * later + 2)) / 2 / histories,
        "delays": {name: _ends(days) for name, days in by_shift.items()},
    }


def _history(
    traffic: Traffic, seed: list[int], *, learns: bool = True, classifies: bool = False
) -> tuple[list[bool], dict[str, float]]:
    """Returns on which of the days of two months, and the next version's first ones, something alarmed.

    And when each shift was named that comes after the first month.
    """
    days = _Days.begun(traffic, seed, learns=learns, classifies=classifies)
    alarms = [bool(days.next(0.0)) for _ in range(MONTH)]
    if not learns:
        return alarms, {}
    kept = {name: deepcopy(days) for name in _MOVED} if not classifies else {}
    alarms += [bool(days.next(0.0)) for _ in range(MONTH)]
    days.release_another()
    alarms += [bool(days.next(0.0)) for _ in range(FIRST)]
    return alarms, {name: _first_named(of, _MOVED[name]) for name, of in kept.items()}


def _first_named(days: "_Days", moved: Callable[[int], float]) -> float:
    return next((n for n in range(1, PATIENCE + 1) if "c0" in days.next(moved(n))), inf)


def _step(by: float) -> Callable[[int], float]:
    return lambda _: by


_MOVED = {f"{by:g}": _step(by) for by in SHIFTS} | {f"{SLOPE:g} a day": lambda number: SLOPE * number}


@dataclass(slots=True, kw_only=True)
class _Days:
    """A model's days, one after the other."""

    traffic: Traffic
    rng: np.random.Generator
    known: Known
    detector: Detector
    learns: bool
    classifies: bool
    shapes: list[DayShape]
    before: Rows | None = None
    number: int = 0

    @staticmethod
    def begun(traffic: Traffic, seed: list[int], *, learns: bool, classifies: bool) -> "_Days":
        rng = np.random.default_rng(seed)
        known = _known(traffic, rng, "1", classifies=classifies)
        detector = Detector.of(known.reference.watched, Budget(per_month=1.0))
        return _Days(
            traffic=traffic,
            rng=rng,
            known=known,
            detector=detector,
            learns=learns,
            classifies=classifies,
            shapes=[],
        )

    def release_another(self) -> None:
        """Lets another version answer from now on."""
        self.known = _known(self.traffic, self.rng, "2", classifies=self.classifies)
        self.detector = Detector.of(self.known.reference.watched, self.detector.budget)
        self.before = None

    def next(self, shift: float) -> tuple[str, ...]:
        """Returns what alarms on the next day, whose first column is higher."""
        values = self.traffic.day(self.rng, self.number)
        values[:, 0] += shift
        rows = rows_of(dict(zip(_NAMES, values.T, strict=True)), self.number)
        classifier, window, together, apart = self.known.classifier, str(self.number), None, None
        if self.classifies:
            together = classifier.test(rows.columns, window=window)
            apart = classifier.apart(self.before.columns, rows.columns, window=window) if self.before else None
        reference = self.known.reference
        self.detector, shown = watch(
            reference,
            self.detector,
            rows,
            together=together,
            apart=apart,
            history=learned_history(self.shapes if self.learns else [], reference.every, reference.floors),
        )
        assert shown.shape is not None
        self.shapes.append(shown.shape)
        self.before, self.number = rows, self.number + 1
        return shown.alarm.columns if shown.alarm else ()


def _known(traffic: Traffic, rng: np.random.Generator, version: str, *, classifies: bool) -> Known:
    rows = rng.permutation(np.concatenate([traffic.day(rng, number) for number in range(_REFERENCE_DAYS)]))
    every = dict(zip(_NAMES, rows.T, strict=True))
    columns = {name: summarised(values) for name, values in every.items()}
    blocks = tuple(np.array_split(np.arange(len(rows)), _BLOCKS))
    classifier, together = learned(pd.DataFrame(every), blocks if classifies else (), named=f"m {version}")
    past: list[Mapping[str, Floats]] = [{name: values[block] for name, values in every.items()} for block in blocks]
    floors = with_floors(columns, past) | {DOMAIN_CLASSIFIER: together}
    reference = Reference(model="m", version=version, columns=columns, outputs={}, floors=floors, n_windows=_BLOCKS)
    return Known(reference=reference, classifier=classifier, calibration=None)


def _ends(days: list[float]) -> dict[str, float | None]:
    found = np.sort(days)
    middle, late = (float(found[int(np.ceil(share * len(found))) - 1]) for share in (0.5, 0.9))
    return {
        "found": float(np.isfinite(found).mean()),
        "median": middle if np.isfinite(middle) else None,
        "late": late if np.isfinite(late) else None,
    }
