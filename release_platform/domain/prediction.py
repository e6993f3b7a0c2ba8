"""Predictions of a model for some rows, and the answer of a package to be compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a model says of n rows.

    Attributes:
        values: Shape (n,): the regression values (float64), or the labels (object: text, int or bool).
        probabilities: Shape (n, k), float64, rows sum to 1, columns in the order of the package's classes; None for a
            regression.
    """

    values: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None = None

    def difference(self, other: "Predictions") -> float:
        """Returns the largest absolute difference of a number in the two, NaN if only one of them is not finite.

        For classes these are the probabilities; for a regression the values.
        """
        mine = self.values if self.probabilities is None else self.probabilities
        theirs = other.values if other.probabilities is None else other.probabilities
        if mine.shape != theirs.shape:
            return float("inf")
        return float(np.max(np.abs(mine - theirs), initial=0.0))

    def to_json(self) -> dict[str, Any]:
        """Returns the predictions as a JSON value."""
        answer: dict[str, Any] = {"predictions": self.values.tolist()}
        if self.probabilities is not None:
            answer["probabilities"] = self.probabilities.tolist()
        return answer
