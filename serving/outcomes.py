"""Outcomes: what became known later of a prediction, counted for the version that made it.

The last predictions are remembered as one line each in a few arrays: number, minute, arm, answer, and which outcomes
came. An outcome counts in the minute in which it arrives, with its age. Only routed requests have any, and of each only
the first row.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.metrics import Task
from release_platform.domain.windows import LABEL, number_bucket
from serving.tallies import Arm

MOST_NAMES = 64
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NONE = 0
_MOST_ARMS = 60_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """A prediction that an outcome may still be of.

    Attributes:
        place: Where it is kept.
        minute: When it was made, in minutes since 1970.
        answers: The arm that answered and what, and after it the shadow, if one was asked.
    """

    place: int
    minute: int
    answers: tuple[tuple[Arm, float], ...]


class Memory:
    """The last predictions of one process.

    Args:
        size: How many there are; a new one takes the place of the oldest.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers = np.zeros(size, dtype=np.int64)
        self._minutes = np.zeros(size, dtype=np.int32)
        self._arms = np.zeros((2, size), dtype=np.uint16)
        self._answers = np.zeros((2, size), dtype=np.float64)
        self._came = np.zeros(size, dtype=np.uint64)
        self._known: list[Arm] = []
        self._index: dict[Arm, int] = {}

    def keep(self, arm: Arm, minute: int, numbers: npt.NDArray[np.int64], answers: npt.NDArray[np.float64]) -> None:
        """Remembers predictions of a minute, by their numbers, which begin with 1 and are never used twice."""
        if not self._size or not len(numbers):
            return
        given = numbers[-self._size :]
        places = given % self._size
        self._numbers[places] = given
        self._minutes[places] = minute
        self._arms[0, places] = self._number_of(arm)
        self._arms[1, places] = _NONE
        self._answers[0, places] = answers[-self._size :]
        self._came[places] = 0

    def keep_shadow(self, arm: Arm, numbers: npt.NDArray[np.int64], answers: npt.NDArray[np.float64]) -> None:
        """Remembers what a shadow answered to requests, beside what their clients got."""
        if not self._size:
            return
        number_of_arm = self._number_of(arm)
        places = numbers % self._size
        known = (self._numbers[places] == numbers) & (numbers > 0)
        self._arms[1, places[known]] = number_of_arm
        self._answers[1, places[known]] = answers[known]

    def find(self, number: int) -> Remembered | None:
        """Returns a prediction, or None when it is forgotten or never was."""
        place = number % self._size if self._size else 0
        if number < 1 or not self._size or self._numbers[place] != number:
            return None
        arms = [int(self._arms[way, place]) for way in (0, 1)]
        answers = (
            (self._known[arm - 1], float(self._answers[way, place])) for way, arm in enumerate(arms) if arm != _NONE
        )
        return Remembered(place, int(self._minutes[place]), tuple(answers))

    def is_first(self, prediction: Remembered, name: int) -> bool:
        """Returns whether an outcome of this name, 0 to 63, comes for the first time, and remembers that it came."""
        bit = np.uint64(1 << name)
        if self._came[prediction.place] & bit:
            return False
        self._came[prediction.place] |= bit
        return True

    def _number_of(self, arm: Arm) -> int:
        number = self._index.get(arm)
        if number is None:
            if len(self._known) >= _MOST_ARMS:  # all is forgotten rather than anything mixed up
                self._numbers[:] = 0
                self._known.clear()
                self._index.clear()
            self._known.append(arm)
            number = self._index[arm] = len(self._known)
        return number


@dataclass(frozen=True, slots=True)
class Told:
    """What became of some outcomes.

    Attributes:
        counted: How many were counted.
        repeated: Ids of predictions of which an outcome of that name had come already; it was ignored.
        unknown: Ids that no process behind this port knows: never given, too old, or not routed.
        unanswered: Ids of predictions of a process that did not answer in time: tell them again.
        refused: For each that cannot be counted its `prediction_id`, the `outcome` and the `reason`.
    """

    counted: int = 0
    repeated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    refused: tuple[Mapping[str, str], ...] = field(default=())

    def and_(self, other: "Told") -> "Told":
        """Returns both together."""
        return Told(
            self.counted + other.counted,
            self.repeated + other.repeated,
            self.unknown + other.unknown,
            self.unanswered + other.unanswered,
            self.refused + other.refused,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Told":
        """Returns what `to_json` wrote."""
        lists = {name: tuple(value[name]) for name in ("repeated", "unknown", "unanswered", "refused")}
        return Told(counted=value["counted"], **lists)


def bucket_of(arm: Arm, answer: float, name: str, value: Any) -> int:
    """Returns the bucket that an outcome is counted in.

    Args:
        arm: What answered.
        answer: What it answered: a value, or the place of a label.
        name: The outcome's name; `label` is what would have been right.
        value: The outcome.

    Raises:
        ValueError: It is none; says why.
    """
    if name == LABEL and arm.task is not Task.REGRESSION:
        wanted = [place for place, label in enumerate(arm.classes) if label == value and type(label) is type(value)]
        if not wanted:
            raise ValueError("is none of the labels of the version that answered")
        return number_bucket(float(wanted[0] != int(answer)))
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("is no number")
    return number_bucket(abs(float(value) - answer) if name == LABEL else float(value))


def is_name(text: str) -> bool:
    """Returns whether an outcome may be called so."""
    return _NAME.fullmatch(text) is not None
