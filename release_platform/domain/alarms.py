"""Alarms of drift that keep a promised budget of false ones, however many columns are watched and for however long.

Three steps, for each column and window:

1. *A p-value against "no further away than always".* Let a window's rows be independent, of a distribution that is at
   most a floor away from the reference. The distance of the rows that came is larger by at most what chance adds, and
   that is bounded for any distribution and number of rows: `P(more than x) <= 2 exp(-2 n x**2)` for numbers
   (Dvoretzky, Kiefer, Wolfowitz; Massart 1990), `exp(-2 n x**2)` above the average for texts (McDiarmid 1989), and
   Chernoff's for the shares of missing and of unseen values, which sees them sooner. That of a classifier over all
   columns is one more such measure, and counts as one more column; `multivariate` has its bound. The floor is the
   smallest difference that matters, or what the model's own history shows if more (`learned_floor`), and how far the
   reference itself may be off.
2. *An e-value*: a number that is 1 on average, or less, if the p-value holds: `(1 - p + p ln p) / (p ln(p)**2)` (Vovk
   and Wang, E-values: calibration, combination and applications, Ann. Statist. 2021).
3. *Evidence over time*: `M <- (M + 1) e`, Shiryaev's and Roberts' sum, an e-detector (Shin, Ramdas, Rinaldo,
   E-detectors: a nonparametric framework for sequential change detection, New Engl. J. Stat. Data Sci. 2024). The `k`
   columns of `K` with most evidence alarm when each has at least `K c / k` (the step-up rule of Wang and Ramdas, False
   discovery rate control with e-values, JRSS B 2022), and begin again from 0. `c` is windows per month by the budget.

Promised: without drift, alarms come in at most `budget` windows a month on average, however columns hang together. For
without drift `E[M'] <= M + 1`, so the average of all `M` grows by at most 1 each window. When `k` columns alarm they
take at least `k (K c / k) / K = c` from that average, and what is taken is at most what came: `c` times the alarms in
`T` windows is at most `T` on average. Nothing is assumed of how columns go together, and windows may lean on each other
as long as each, given the past, is no further away than the floor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from release_platform.domain.distances import Distance
from release_platform.domain.json_form import exactly
from release_platform.domain.multivariate import ClassifierTest

Evidence = Distance | ClassifierTest
"""What alarms judge of a window: a column of it, or all of them together."""
SMALLEST = 0.02
"""The smallest share of rows that matters: less is no drift, however many rows show it."""
DAYS = 30.0
"""Days of a month, as budgets count it."""
MINIMUM_WINDOWS = 10
"""Of fewer windows no floor is learned."""
_DOUBT = 0.05
_STEPS = 40
_MOST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What was promised to whoever is woken.

    Attributes:
        per_month: False alarms in 30 days, on average, at most; above 0.
        windows_per_month: Windows in 30 days; 1 and up.
        smallest: The smallest share of rows that matters, 0 to 1.
    """

    per_month: float = 1.0
    windows_per_month: float = DAYS
    smallest: float = SMALLEST

    def __post_init__(self) -> None:
        if not 0 < self.per_month < inf or not 1 <= self.windows_per_month < inf or not 0 <= self.smallest < 1:
            raise ValueError("a budget is above 0, with a window a month or more, and the smallest difference below 1")

    @property
    def threshold(self) -> float:
        """The evidence `c` that one column among one needs, as it is: not a logarithm."""
        return self.windows_per_month / self.per_month


def reference_error(found: Distance) -> float:
    """Returns how far the reference is off at most, in 19 of 20 columns, because its rows are finite too."""
    m = found.n_reference
    if found.expected == 0:
        return sqrt(log(2 / _DOUBT) / (2 * m))
    return found.expected * sqrt(found.n_rows / m) + sqrt(log(1 / _DOUBT) / (2 * m))


def log_p(found: Distance, floor: float) -> float:
    """Returns the logarithm of the p-value of "no further away than the floor", 0 at most.

    Args:
        found: What a window shows.
        floor: How far away its distribution may be.
    """
    beyond = found.share - found.expected - floor - reference_error(found)
    if beyond <= 0:
        return 0.0
    return min(0.0, (log(2) if found.expected == 0 else 0.0) - 2 * found.n_rows * beyond**2)


def log_p_of_share(now: float, before: float, floor: float, *, n_rows: int, n_reference: int) -> float:
    """Returns the same for a share of rows: `2 exp(-n KL)`, Chernoff's bound, sharp where shares are small.

    Args:
        now: The share in the window.
        before: The share in the reference.
        floor: By how much the window's true share may differ.
        n_rows: Rows of the window.
        n_reference: Rows of the reference.
    """
    off = sqrt(2 * before * (1 - before) * log(2 / _DOUBT) / n_reference) + log(2 / _DOUBT) / n_reference
    nearest = min(max(now, before - floor - off), before + floor + off)
    if nearest == now:
        return 0.0
    if not 0 < nearest < 1:
        return -inf
    apart = float(rel_entr(now, nearest) + rel_entr(1 - now, 1 - nearest))
    return min(0.0, log(2) - n_rows * apart)


def log_p_of_area(found: ClassifierTest, floor: float) -> float:
    """Returns the same for the area under a domain classifier's ROC curve, of "at most `0.5 + floor`".

    Args:
        found: What a window shows.
        floor: Which share of the rows may have moved.
    """
    beyond = found.auc - 0.5 - floor - sqrt(log(1 / _DOUBT) / (2 * found.n_reference))
    return -2 * found.n_judged * max(beyond, 0.0) ** 2


def log_evidence(found: Evidence, floor: float) -> float:
    """Returns the logarithm of an e-value; of a column the average of those of its values, missing and unseen ones.

    A distribution within the floor has each of these shares within the floor, so one floor serves all.

    Args:
        found: What a window shows.
        floor: How far away its distribution may be.
    """
    if isinstance(found, ClassifierTest):
        return log_e(log_p_of_area(found, floor))
    n, m = found.n_rows, found.n_reference
    each = [log_e(log_p(found, floor))]
    each.append(log_e(log_p_of_share(found.missing, found.missing_before, floor, n_rows=n, n_reference=m)))
    if found.unseen is not None:
        each.append(log_e(log_p_of_share(found.unseen, 0.0, floor, n_rows=n, n_reference=m)))
    return float(np.logaddexp.reduce(each)) - log(len(each))


def log_e(log_of_p: float) -> float:
    """Returns the logarithm of the e-value of a p-value; `log(1 / 2)` at p = 1.

    Args:
        log_of_p: The p-value's logarithm, 0 at most.
    """
    if log_of_p > -1e-4:
        return log(0.5)
    log_of_p = max(log_of_p, -_MOST)
    p = np.exp(log_of_p)
    return float(np.log1p(p * (log_of_p - 1)) - log_of_p - 2 * log(-log_of_p))


def learned_floor(history: Sequence[Evidence]) -> float:
    """Returns how far windows without drift are away, as the model's own history shows: 0 if chance explains all of it.

    It is the smallest floor at which the e-values of the past windows are 1 on average, or less: the promise, held to
    what is known. What chance adds is not in it, so it goes with windows of any number of rows. 0 for a history of
    fewer than `MINIMUM_WINDOWS`.

    Args:
        history: What each past window shows of a column, or of all of them, held against the reference without it.
    """
    if len(history) < MINIMUM_WINDOWS or _gained(history, 0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _gained(history, middle) > 0 else (low, middle)
    return high


def _gained(history: Sequence[Evidence], floor: float) -> float:
    each = np.array([log_evidence(found, floor) for found in history])
    return float(np.logaddexp.reduce(each) - np.log(len(each)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Columns that drifted.

    Attributes:
        columns: Their names, those with most evidence first.
    """

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """The evidence so far.

    Attributes:
        budget: What was promised.
        evidence: For each watched column the logarithm of its evidence; minus infinity at the start.
        n_windows: Windows seen.
    """

    budget: Budget
    evidence: Mapping[str, float]
    n_windows: int = 0

    @staticmethod
    def of(columns: Sequence[str], budget: Budget) -> "Detector":
        """Returns a detector that has seen nothing."""
        return Detector(budget=budget, evidence=dict.fromkeys(columns, -inf))

    def share(self, name: str) -> float:
        """Returns a column's evidence as a share of what it alone would need to alarm; 1 and more alarms."""
        needed = log(len(self.evidence) * self.budget.threshold)
        return float(np.exp(min(self.evidence[name] - needed, 700.0)))

    def look(self, found: Mapping[str, Evidence], floors: Mapping[str, float]) -> "tuple[Detector, Alarm | None]":
        """Returns the detector after one more window, and the alarm that it raises.

        Args:
            found: What the window shows, by name; what is watched and is not in it keeps its evidence.
            floors: The learned floors by name, 0 where there is none.
        """
        grown = dict(self.evidence)
        for name in self.evidence.keys() & found.keys():
            step = log_evidence(found[name], max(self.budget.smallest, floors.get(name, 0.0)))
            grown[name] = float(np.logaddexp(self.evidence[name], 0.0)) + step
        alarming = _stepped_up(grown, log(self.budget.threshold))
        after = {name: -inf if name in alarming else value for name, value in grown.items()}
        seen = replace(self, evidence=after, n_windows=self.n_windows + 1)
        return seen, Alarm(columns=alarming) if alarming else None

    def to_json(self) -> dict[str, object]:
        """Returns what was seen as a JSON value; the budget is not in it."""
        plain = {name: None if isinf(value) else value for name, value in self.evidence.items()}
        return {"evidence": plain, "n_windows": self.n_windows}

    @staticmethod
    def from_json(value: object, columns: Sequence[str], budget: Budget) -> "Detector":
        """Returns the detector that `to_json` wrote, over these columns; a new one has seen nothing."""
        of = exactly(value, "detector", evidence=dict, n_windows=int)
        kept = {name: -inf if (known := of["evidence"].get(name)) is None else float(known) for name in columns}
        return Detector(budget=budget, evidence=kept, n_windows=of["n_windows"])


def _stepped_up(evidence: Mapping[str, float], threshold: float) -> tuple[str, ...]:
    ordered = sorted(evidence, key=lambda name: (-evidence[name], name))
    needed = threshold + log(len(ordered)) - np.log(np.arange(1, len(ordered) + 1)) if ordered else np.empty(0)
    reached: npt.NDArray[np.intp] = np.flatnonzero(np.array([evidence[name] for name in ordered]) >= needed)
    return tuple(ordered[: reached[-1] + 1]) if len(reached) else ()
