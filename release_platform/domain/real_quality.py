"""Whether answers are wrong more often, or by more, than they were on the held-out rows, as labels that came show."""

from dataclasses import dataclass, replace
from math import exp, sqrt

import numpy as np
import numpy.typing as npt

from release_platform.domain.reference import REAL_ERROR, REAL_LOSS, Numbers, Reference

QUALITY_MARGIN = 0.05
"""By which share of the rows answers may be wrong more often, where the model's YAML says nothing."""
LEAST_ROWS = 30
_Z = 1.959964  # 19 of 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RealQuality:
    """The accuracy that labels show, beside that of the held-out rows.

    Attributes:
        n_rows: Rows whose labels came, 1 and up.
        accuracy: The share of them that was answered right.
        n_before: Held-out rows, 1 and up.
        before: The share of them that was answered right.
        margin: By how much it may fall.
    """

    n_rows: int
    accuracy: float
    n_before: int
    before: float
    margin: float

    @property
    def fell_by(self) -> tuple[float, float]:
        """By how much it fell, in 19 of 20 cases: from, to.

        Newcombe's interval of the difference of two independent shares, from Wilson's of each (Statist. Med. 1998,
        17: 873-890, method 10).
        """
        low, high = _wilson(self.accuracy, self.n_rows)
        low_before, high_before = _wilson(self.before, self.n_before)
        fell = self.before - self.accuracy
        least = sqrt((self.before - low_before) ** 2 + (high - self.accuracy) ** 2)
        most = sqrt((high_before - self.before) ** 2 + (self.accuracy - low) ** 2)
        return fell - least, fell + most

    @property
    def fell(self) -> bool:
        """Whether it fell by more than the margin: the whole interval is beyond it, of `LEAST_ROWS` rows or more."""
        return self.n_rows >= LEAST_ROWS and self.fell_by[0] > self.margin

    @property
    def said(self) -> str:
        """It in a sentence."""
        least, most = (f"{100 * end:.1f}" for end in self.fell_by)
        told = (
            f"of {self.n_rows:,} rows whose labels came {self.accuracy:.1%} were answered right, of held-out rows "
            f"{self.before:.1%}"
        )
        verdict = "more" if self.fell else "not shown to be more"
        return f"{told}: it fell by {least} to {most} points, {verdict} than {100 * self.margin:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealErrors:
    """The mean absolute error that labels of a regression show, beside that of the held-out rows.

    Attributes:
        n_rows: Rows whose labels came, 2 and up.
        error: Their mean absolute error.
        spread: The standard deviation of their absolute errors.
        n_before: Held-out rows, 2 and up.
        before: Their mean absolute error, above 0.
        spread_before: The standard deviation of their absolute errors.
        margin: By which share of it the error may grow.
    """

    n_rows: int
    error: float
    spread: float
    n_before: int
    before: float
    spread_before: float
    margin: float

    @property
    def grew_by(self) -> tuple[float, float]:
        """By which share it grew, in 19 of 20 cases: from, to.

        The interval of a ratio of two independent means, by the delta method on its logarithm (Lehmann, Elements of
        Large-Sample Theory, 1999, chapter 2.5).
        """
        if self.error <= 0:
            return -1.0, -1.0
        now, before = self.spread / self.error, self.spread_before / self.before
        off, ratio = _Z * sqrt(now**2 / self.n_rows + before**2 / self.n_before), self.error / self.before
        return ratio * exp(-off) - 1, ratio * exp(off) - 1

    @property
    def fell(self) -> bool:
        """Whether the error grew by more than the margin: the whole interval is beyond it, of `LEAST_ROWS` or more."""
        return self.n_rows >= LEAST_ROWS and self.grew_by[0] > self.margin

    @property
    def said(self) -> str:
        """It in a sentence."""
        least, most = (f"{100 * end:+.1f}" for end in self.grew_by)
        verdict = "more" if self.fell else "not shown to be more"
        return (
            f"{self.n_rows:,} rows whose labels came have a mean absolute error of {self.error:.4g}, held-out rows "
            f"{self.before:.4g}: it changed by {least} to {most} %, {verdict} than {100 * self.margin:+g} %"
        )


def find_errors(reference: Reference, errors: npt.NDArray[np.float64], margin: float) -> RealErrors | None:
    """Returns the error of a regression beside that of the held-out rows; None where the reference has none, or of few.

    Args:
        reference: Of a regression.
        errors: The absolute error of each row whose label came; shape (n_rows,); those that are not finite are left.
        margin: By which share the error may grow.
    """
    held_out, errors = reference.labels.get(REAL_ERROR), errors[np.isfinite(errors)]
    if not isinstance(held_out, Numbers) or held_out.n_present < 2 or not held_out.mean > 0 or len(errors) < 2:
        return None
    return RealErrors(
        n_rows=len(errors),
        error=float(errors.mean()),
        spread=float(errors.std(ddof=1)),
        n_before=held_out.n_present,
        before=held_out.mean,
        spread_before=held_out.spread,
        margin=margin,
    )


def find_quality(reference: Reference, errors: npt.NDArray[np.float64], margin: float) -> RealQuality | None:
    """Returns the accuracy beside that of the held-out rows; None where the reference has none, or no label came.

    Args:
        reference: Of a classifier.
        errors: Of each row whose label came, 1 for wrong and 0 for right; shape (n_rows,).
        margin: By how much the accuracy may fall.
    """
    held_out = reference.labels.get(REAL_ERROR)
    if not isinstance(held_out, Numbers) or held_out.n_rows == 0 or len(errors) == 0:
        return None
    return RealQuality(
        n_rows=len(errors),
        accuracy=1 - float(errors.mean()),
        n_before=held_out.n_rows,
        before=1 - held_out.mean,
        margin=margin,
    )


def with_margin(reference: Reference, margin: float) -> Reference:
    """Returns a reference whose answers may be worse by a share of the rows before that is evidence."""
    floors = {name: max(margin, reference.floors.get(name, 0.0)) for name in (REAL_ERROR, REAL_LOSS)}
    return replace(reference, floors={**reference.floors, **floors})


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    off = _Z / (1 + _Z**2 / n) * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(middle - off, 0.0), min(middle + off, 1.0)
