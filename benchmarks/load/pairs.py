"""Two servers measured in turns: the ratios of the pairs, their spread, and what was promised of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from scipy.stats import binom

from benchmarks.load.figures import Aim
from benchmarks.load.wrk import Load

Figure = Literal["per_second", "p50_ms", "p99_ms"]
LEAST_ASKED = 0.99
"""The share of the requests that a shadow must have been asked for its cost to be judged."""
P99_TIMES = 1.05
"""The most that a mirrored shadow may make of the p99 latency."""
KEPT_THROUGHPUT = 0.95
"""The least that recording may leave of the throughput."""
NARROW = 0.1
"""How wide the interval of the median may be for a median close to what is promised to be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What was measured without a thing and, right before or after it, with the thing."""

    without: Load
    having: Load

    def ratio(self, figure: Figure) -> float | None:
        """Returns what it is with the thing, divided by what it is without; None where it is 0 without."""
        before = float(getattr(self.without, figure))
        return float(getattr(self.having, figure)) / before if before > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The ratios of some pairs.

    Attributes:
        middle: Their median.
        half: The quartiles: half of the ratios are between them. Of one ratio, that one twice.
        sure: Where the median of ever more pairs would be with a probability of 95 % or more, whatever the
            distribution of the ratios; None for fewer than six pairs, which cannot say it.
        n: How many there are.
    """

    middle: float
    half: tuple[float, float]
    sure: tuple[float, float] | None
    n: int

    def judged(self, promised: float) -> float | None:
        """Returns the median; None where it says nothing.

        That is where the pairs are too few for an interval of it, or the interval is wide and holds what is promised:
        something else was busy on the machine, or the turns were too short.
        """
        if self.sure is None:
            return None
        low, high = self.sure
        is_clear = not low <= promised <= high
        return self.middle if is_clear or high - low <= NARROW else None

    def __str__(self) -> str:
        sure = "too few pairs" if self.sure is None else "{:.3f} to {:.3f}".format(*self.sure)
        return f"{self.middle:>8.3f}    {self.half[0]:.3f} to {self.half[1]:.3f}    {sure:<16} {self.n:>6}"


def spread(ratios: Sequence[float]) -> Spread:
    """Returns how ratios, of which there is at least one, are spread.

    The interval of the median lies between two of the sorted ratios: how many are below the true median is binomial
    (David and Nagaraja, Order Statistics, 7.1).
    """
    found = sorted(ratios)
    low, _, high = quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    cut = int(binom.ppf(0.025, len(found), 0.5))
    sure = (found[cut - 1], found[-cut]) if cut > 0 else None
    return Spread(middle=median(found), half=(low, high), sure=sure, n=len(found))


def spread_of(pairs: Sequence[Pair], figure: Figure) -> Spread | None:
    """Returns the spread of a figure's ratios; None where no pair has one, or requests failed."""
    if any(pair.without.n_errors or pair.having.n_errors for pair in pairs):
        return None
    ratios = [ratio for pair in pairs if (ratio := pair.ratio(figure)) is not None]
    return spread(ratios) if ratios else None


def judged(pairs: Sequence[Pair], figure: Figure, promised: float) -> float | None:
    """Returns the median of a figure's ratios; None where it says nothing of what is promised, see `Spread`."""
    found = spread_of(pairs, figure)
    return None if found is None else found.judged(promised)


def shadow_promise(paced: Sequence[Pair], asked: float) -> Aim:
    """Returns what is promised of the latency beside a shadow; not judged where it was not asked nearly everything.

    Args:
        paced: Pairs at a load that leaves the machine time.
        asked: The share of the requests that the shadow was asked.
    """
    found = judged(paced, "p99_ms", P99_TIMES) if asked >= LEAST_ASKED else None
    what = "p99 at a moderate load: with a shadow at share 1.0 / without"
    return Aim(what=what, found=found, wanted=P99_TIMES, at_most=True)


def recording_promise(full: Sequence[Pair]) -> Aim:
    """Returns what is promised of the throughput while requests are recorded."""
    what = "requests/s: with 1 % of the requests recorded / without"
    return Aim(what=what, found=judged(full, "per_second", KEPT_THROUGHPUT), wanted=KEPT_THROUGHPUT)


def table(pairs: Sequence[Pair], without: str = "without", having: str = "with") -> str:
    """Returns the medians of both sides and the spread of the ratios as text, a line for each figure."""
    lines = [f"{'':14} {without:>10} {having:>10} {'ratio':>8}    half of them     its median (95 %)  pairs"]
    figures: tuple[tuple[str, Figure], ...] = (
        ("p50 ms", "p50_ms"),
        ("p99 ms", "p99_ms"),
        ("requests/s", "per_second"),
    )
    for name, figure in figures:
        before, after = (median(getattr(load, figure) for load in side) for side in sides(pairs))
        found = spread_of(pairs, figure)
        lines.append(f"  {name:<12} {before:>10,.2f} {after:>10,.2f} {'  not judged' if found is None else found}")
    n_errors = [sum(load.n_errors for load in side) for side in sides(pairs)]
    return "\n".join(
        [*lines, *([f"  ERRORS: {n_errors[0]} {without}, {n_errors[1]} {having}"] if any(n_errors) else [])]
    )


def sides(pairs: Sequence[Pair]) -> tuple[list[Load], list[Load]]:
    """Returns what was measured without, and what was measured with."""
    return [pair.without for pair in pairs], [pair.having for pair in pairs]
