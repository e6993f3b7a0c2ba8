"""What a model's own recorded days teach its alarms: how much one day differs from the next anyway.

Alarms count rows as if they were drawn one by one. Often they are not: a client sends a hundred alike rows at once, or
weekends are other days. Then the shares of a day scatter more than its number of rows lets expect. By how many times
the variance is larger is the *design effect* of survey sampling (Kish, Survey Sampling, 1965), and a test that divides
its number of rows by it is right again (Rao and Scott, On chi-squared tests for multiway contingency tables, Ann.
Statist. 1984). Nobody tells what the clusters are. So the effect is taken from days, as samples that repeat each other
(random groups; Wolter, Introduction to Variance Estimation, 2nd ed. 2007, chapter 2), and from their *differences*, of
a day and the one before or the one a week before (successive differences; von Neumann 1941; Wolter, chapter 8). The
larger quarter of the differences is left out, since a few days may be broken.

Why differences: a shift that lasts makes one of them large, the one on which it began, and a slow one makes none of
them large. What is measured is never how far days are from the reference. So drift cannot teach itself away, found or
not; and days that alarmed count for nothing besides, in what they alarmed about.

Of a week that is not alike, each weekday has a floor of its own: how far it lies from the seven days around it, in most
of the weeks. That, too, stays the same when all days move.

How days come is a matter of who asks, not of the version that answers. So a new version learns from the days of those
before it, of which each day is held against days of the same version only: shares are of that version's reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from release_platform.domain.alarms import Evidence, learned_floor
from release_platform.domain.distances import Distance
from release_platform.domain.features import MISSING, Column
from release_platform.domain.json_form import exactly
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER, ClassifierTest
from release_platform.domain.reference import REFUSED_CALLS, Categories, Numbers, Summary

MINIMUM_DAYS = 10
"""Of fewer recorded days nothing is learned: rows are taken to be independent."""
HISTORY_DAYS = 56
"""Days that are looked back at: eight weeks."""
LEAST_ROWS = 30
"""A day with fewer rows in a column teaches nothing of it."""
MOST_APART = 3
"""Days that lie further apart than this do not follow one another."""
SETTLED_DAYS = 28
"""From so many days on, those that alarm are left out: before, the week may not be known well enough to say so."""
_LAGS = (1, 7)
_LEFT_OUT = 0.25
_APART_LEFT_OUT = 0.125
_DOUBT = 0.05
_DRAWS = 4000
_CATEGORIES = 12
_DECILES = np.arange(1, 10) / 10
_EXPECTED = 5
_DIGITS = 6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayShape:
    """What is kept of a recorded day to learn from.

    Attributes:
        version: The version that answered.
        day: The day.
        n_rows: By column, how many rows it had.
        shares: By column, the shares of rows at the points of its reference; see `shape_of`.
        apart: How well a classifier told the day from the one before; None where nobody looked.
        left_out: What alarmed on a day when something was known; it teaches nothing.
    """

    version: str
    day: date
    n_rows: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    apart: ClassifierTest | None = None
    left_out: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value, without the version."""
        apart = None if self.apart is None else [getattr(self.apart, name) for name in _APART]
        shares = {name: [self.n_rows[name], *of] for name, of in self.shares.items()}
        return {"day": self.day.isoformat(), "shares": shares, "apart": apart, "left_out": sorted(self.left_out)}

    @staticmethod
    def from_json(value: object, version: str) -> "DayShape":
        """Returns what `to_json` wrote of a day of a version; raises ValueError when it is none."""
        of = exactly(value, "shape of a day", day=str, shares=dict, apart=(list, type(None)), left_out=list)
        return DayShape(
            version=version,
            day=date.fromisoformat(of["day"]),
            n_rows={name: int(one[0]) for name, one in of["shares"].items()},
            shares={name: tuple(map(float, one[1:])) for name, one in of["shares"].items()},
            apart=None if of["apart"] is None else ClassifierTest(**dict(zip(_APART, of["apart"], strict=True))),
            left_out=frozenset(of["left_out"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was learned.

    Attributes:
        n_days: Days it was learned from; 0 for nothing: then rows are taken to be independent.
        effects: By column, how many times the variance of independent rows its shares have; 1 where it is not there.
        usual_rows: By column with an effect, the rows of a usual day: more tell no more.
        weekdays: By column of a week that is not alike, the floor of each weekday, Monday first.
        together: The floor of the domain classifier.
    """

    n_days: int = 0
    effects: Mapping[str, float] = field(default_factory=dict)
    usual_rows: Mapping[str, int] = field(default_factory=dict)
    weekdays: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    together: float = 0.0

    def judged(self, found: Mapping[str, Evidence]) -> dict[str, Evidence]:
        """Returns what a day shows, with as many rows as it is worth."""
        return {
            name: self._worth(one, name) if isinstance(one, Distance) and name in self.effects else one
            for name, one in found.items()
        }

    @property
    def is_settled(self) -> bool:
        """Whether a day that alarms teaches nothing."""
        return self.n_days >= SETTLED_DAYS

    def floors(self, known: Mapping[str, float], day: date, *, smallest: float) -> dict[str, float]:
        """Returns the floors of a day: those that are known, or higher ones that were learned.

        Args:
            known: What the training data's own windows taught.
            day: The day.
            smallest: How far all days together may be away from the reference; a weekday may lie beyond that.
        """
        found = dict(known)
        for name, each in self.weekdays.items():
            learned = each[day.weekday()]
            found[name] = max(found.get(name, 0.0), learned + smallest if learned else 0.0)
        found[DOMAIN_CLASSIFIER] = max(found.get(DOMAIN_CLASSIFIER, 0.0), self.together)
        return found

    def _worth(self, found: Distance, name: str) -> Distance:
        effect = self.effects[name]
        n = max(int(min(found.n_rows, self.usual_rows[name]) / effect), 1)
        expected = found.expected * (found.n_rows / n) ** 0.5
        return replace(found, n_rows=n, n_reference=max(int(found.n_reference / effect), 1), expected=expected)


def shape_of(summary: Summary, column: Column) -> tuple[float, ...]:
    """Returns the shares of a day's column by which days are compared with one another.

    Of numbers: missing, then at or below each decile of the reference (missing counts as below). Of texts: missing,
    each of the reference's most frequent categories, and all others.

    Args:
        summary: The reference's summary.
        column: Shape (n_rows,), at least one row, of the kind of the summary.
    """
    if isinstance(summary, Numbers):
        present = np.sort(column[np.isfinite(column)])
        missing, cuts = len(column) - len(present), np.unique(summary.quantiles(_DECILES))
        counts = missing + np.concatenate(([0], np.searchsorted(present, cuts, side="right")))
    else:
        counts = _counted(summary, column)
    return tuple(np.round(counts / len(column), _DIGITS).tolist())


def learned_history(days: Sequence[DayShape], summaries: Mapping[str, Summary], floors: Mapping[str, float]) -> History:
    """Returns what recorded days teach; nothing from fewer than `MINIMUM_DAYS`.

    Args:
        days: The days of a model, of whatever versions, in order; the last `HISTORY_DAYS` are looked at.
        summaries: The reference's summaries, by column.
        floors: What the training data's own windows taught, by column: what these explain is not counted again.
    """
    days = days[-HISTORY_DAYS:]
    if len(days) < MINIMUM_DAYS:
        return History()
    effects, usual, weekdays = {}, {}, {}
    for name in (*summaries, REFUSED_CALLS):
        of = _Column.of(days, name)
        if len(of.days) < MINIMUM_DAYS:
            continue
        floor = floors.get(name, 0.0)
        effect = of.effect(floor)
        if effect > 1:
            effects[name], usual[name] = effect, int(np.median(of.n_rows))
        each = of.weekday_floors(effect, is_text=isinstance(summaries.get(name), Categories))
        if any(each):
            weekdays[name] = each
    apart = [one.apart for one in days if one.apart is not None and DOMAIN_CLASSIFIER not in one.left_out]
    kept = sorted(apart, key=lambda one: one.auc)[: len(apart) - ceil(len(apart) * _APART_LEFT_OUT)]
    together = learned_floor(kept) if len(kept) < len(apart) else 0.0
    return History(n_days=len(days), effects=effects, usual_rows=usual, weekdays=weekdays, together=together)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column over the days: versions, days as ordinals and rows, each of shape (n,); shares, shape (n, points)."""

    versions: npt.NDArray[np.str_]
    days: npt.NDArray[np.int64]
    n_rows: Floats
    shares: Floats

    @staticmethod
    def of(days: Sequence[DayShape], name: str) -> "_Column":
        there = [one for one in days if name not in one.left_out and one.n_rows.get(name, 0) >= LEAST_ROWS]
        n_points = len(there[-1].shares[name]) if there else 0
        there = [one for one in there if len(one.shares[name]) == n_points]
        return _Column(
            versions=np.array([one.version for one in there], dtype=np.str_),
            days=np.array([one.day.toordinal() for one in there], dtype=np.int64),
            n_rows=np.array([one.n_rows[name] for one in there], dtype=np.float64),
            shares=np.array([one.shares[name] for one in there], dtype=np.float64).reshape(len(there), n_points),
        )

    @property
    def variance(self) -> Floats:
        """Of one independent row at each point; 0 at points where too few rows are expected, or nearly all."""
        middle = self.shares.mean(axis=0)
        rare = np.minimum(middle, 1 - middle) * np.median(self.n_rows) < _EXPECTED
        return np.where(rare, 0.0, middle * (1 - middle))

    def effect(self, floor: float) -> float:
        """Returns the design effect: at most this in 19 of 20 cases; 1 where independent rows explain all."""
        known = self.variance > 0
        if not known.any():
            return 1.0
        found = []
        for lag in _LAGS:
            first, second = self._pairs(lag)
            if len(first) < MINIMUM_DAYS - 1:
                continue
            off = np.maximum(np.abs(self.shares[first] - self.shares[second])[:, known] - floor, 0.0)
            rows = 1 / self.n_rows[first] + 1 / self.n_rows[second]
            ratio = float(_trimmed(off**2 / (self.variance[known] * rows[:, None])).max())
            drawn = _drawn(len(first), lag)
            chance = float(np.quantile(drawn, 1 - _DOUBT / int(known.sum())))
            found.append(1.0 if ratio <= chance else max(ratio / float(np.quantile(drawn, _DOUBT)), 1.0))
        return min(found, default=1.0)

    def weekday_floors(self, effect: float, *, is_text: bool) -> tuple[float, ...]:
        """Returns how far each weekday lies from the seven days around it; 0 where chance explains it, or few weeks."""
        off, whole = self._beside_week()
        known = self.variance > 0
        if not known.any():
            return (0.0,) * 7
        error = np.sqrt(effect * self.variance / np.median(self.n_rows))
        found = []
        for weekday in range(7):
            mine = off[whole & ((self.days - 1) % 7 == weekday)][:, known]
            if len(mine) < 2:
                return (0.0,) * 7
            middle, noise = _lower_median(mine), error[known] / len(mine) ** 0.5
            most = float(norm.isf(_DOUBT / (14 * known.sum())))
            if not (np.abs(middle) > most * noise).any():
                found.append(0.0)
            elif is_text:
                found.append(float(np.abs(middle).sum() / 2))
            else:
                found.append(float((np.abs(middle) + norm.isf(_DOUBT) * noise).max()))
        return tuple(found)

    def _pairs(self, lag: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        if lag == 1:
            first = np.flatnonzero(np.diff(self.days) <= MOST_APART)
            second = first + 1
        else:
            after = np.searchsorted(self.days, self.days + lag)
            there = after < len(self.days)
            there[there] = self.days[after[there]] == self.days[there] + lag
            first, second = np.flatnonzero(there), after[there]
        same = self.versions[first] == self.versions[second]
        return first[same], second[same]

    def _beside_week(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Returns each day's shares less those of its version's seven days around it, and whether all are there."""
        off, whole = np.zeros_like(self.shares), np.zeros(len(self.days), dtype=np.bool_)
        for version in np.unique(self.versions):
            (mine,) = np.nonzero(self.versions == version)
            days = self.days[mine]
            for place in mine:
                begins = max(min(self.days[place] - 3, days[-1] - 6), days[0])
                around = mine[(days >= begins) & (days < begins + 7)]
                whole[place] = len(around) == 7
                off[place] = self.shares[place] - self.shares[around].mean(axis=0)
        return off, whole


def _counted(summary: Categories, column: Column) -> Floats:
    names = [MISSING, *list(summary.counts)[:_CATEGORIES]]
    found = [int((column == name).sum()) for name in names]
    return np.array([*found, len(column) - sum(found)], dtype=np.float64)


def _trimmed(squares: Floats) -> Floats:
    """Returns the mean of each column's smaller values."""
    kept = len(squares) - ceil(len(squares) * _LEFT_OUT)
    found: Floats = np.sort(squares, axis=0)[:kept].mean(axis=0)
    return found


def _lower_median(several: Floats) -> Floats:
    """Returns the median of each column; of an even number the one of the two in the middle that is nearer to 0."""
    ordered = np.sort(several, axis=0)
    one, other = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return np.where(one * other <= 0, 0.0, np.where(np.abs(one) < np.abs(other), one, other))


@cache
def _drawn(n_pairs: int, lag: int) -> Floats:
    """Returns what `_trimmed` comes to for normal days without any effect, over and over."""
    days = np.random.default_rng([n_pairs, lag]).normal(size=(n_pairs + lag, _DRAWS))
    return _trimmed((days[lag:] - days[:-lag]) ** 2 / 2)


_APART = ("auc", "p_value", "n_judged", "n_reference")
