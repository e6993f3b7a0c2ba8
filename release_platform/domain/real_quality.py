"""Whether answers are wrong more often than they were on the held-out rows, as the labels that came show."""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import numpy.typing as npt

from release_platform.domain.reference import REAL_ERROR, Numbers, Reference

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
    """Returns a reference whose answers may be wrong more often by a share of the rows before that is evidence."""
    return replace(
        reference, floors={**reference.floors, REAL_ERROR: max(margin, reference.floors.get(REAL_ERROR, 0.0))}
    )


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    off = _Z / (1 + _Z**2 / n) * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(middle - off, 0.0), min(middle + off, 1.0)
