"""Outcomes: what became known later of a prediction, counted for the version that made it.

The last predictions are remembered as one row each of a `Ring`: number, minute, arm, answer, and which outcomes came.
An outcome counts in the minute in which it arrives, with its age. Only routed requests have any, and of each only the
first row.
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
from serving.arms import NO_ARM, Arms
from serving.ring import LONGEST_NAME, Ring, ring_in_memory, tag_of, tags_of
from serving.tallies import Arm

_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}}")


@dataclass(frozen=True, slots=True)
class Remembered:
    """A prediction that an outcome may still be of.

    Attributes:
        place: Where it is kept.
        minute: When it was made, in minutes since 1970.
        answers: The arm that answered and what, and after it the shadow, if one was asked.
        share: The share of the requests that was sampled when it was made, or more.
    """

    place: int
    minute: int
    answers: tuple[tuple[Arm, float], ...]
    share: float = 0.0


class Memory:
    """The last predictions of one process.

    Args:
        ring: Where they are; a new one takes the place of the oldest.
        arms: The arms that they are of.
    """

    def __init__(self, ring: Ring, arms: Arms) -> None:
        self._ring = ring
        self._size = ring.size
        self._numbers, self._minutes = ring.rows["number"], ring.rows["minute"]
        self._arm_of, self._answers, self._came = ring.rows["arm"], ring.rows["answer"], ring.rows["came"]
        self._last, self._minute, self._n = (ring.state[name] for name in ("last", "minute", "remembered"))
        self._arms = arms
        self._names = {name.decode(errors="replace"): bit for bit, name in enumerate(ring.names.tolist()) if name}

    @property
    def size(self) -> int:
        """How many predictions it remembers at most."""
        return self._size

    @property
    def n_remembered(self) -> int:
        """How many it remembers."""
        return max(0, min(int(self._n[0]), self._size))

    def keep(self, arm: Arm, minute: int, numbers: npt.NDArray[np.int64], answers: npt.NDArray[np.float64]) -> None:
        """Remembers predictions of a minute, by their numbers, which begin with 1 and are never used twice."""
        if not self._size or not len(numbers):
            return
        given = numbers[-self._size :]
        places = given % self._size
        number_of_arm = self._number_of(arm)
        if self._n[0] < self._size:
            self._n[0] += len(given) - np.count_nonzero(self._numbers[places])
        self._numbers[places] = 0
        self._minutes[places] = minute
        self._arm_of[places] = number_of_arm
        self._answers[places] = answers[-self._size :]
        self._came[places] = 0
        self._numbers[places] = given
        self._last[0], self._minute[0] = max(self._last[0], given.max()), minute

    def keep_shadow(self, arm: Arm, numbers: npt.NDArray[np.int64], answers: npt.NDArray[np.float64]) -> None:
        """Remembers what a shadow answered to requests, beside what their clients got."""
        if not self._size:
            return
        number_of_arm = self._number_of(arm)
        places = numbers % self._size
        known = (self._numbers[places] == numbers) & (numbers > 0)
        shadows, places = self._ring.shadows, places[known]
        shadows["arm"][places] = NO_ARM
        shadows["answer"][places] = answers[known]
        shadows["tag"][places] = tags_of(numbers[known])
        shadows["arm"][places] = number_of_arm

    def find(self, number: int) -> Remembered | None:
        """Returns a prediction, or None when it is forgotten or never was."""
        place = number % self._size if self._size else 0
        if number < 1 or not self._size or self._numbers[place] != number:
            return None
        arm = self._arms.find(int(self._arm_of[place]))
        if arm is None:  # its line was lost
            return None
        answers = [(arm, float(self._answers[place]))]
        shadow = self._ring.shadows[place]
        if shadow["arm"] != NO_ARM and shadow["tag"] == tag_of(number):
            found = self._arms.find(int(shadow["arm"]))
            answers += [] if found is None else [(found, float(shadow["answer"]))]
        return Remembered(place, int(self._minutes[place]), tuple(answers), self._ring.share_of(number))

    def bit_of(self, name: str) -> int | None:
        """Returns the place of an outcome's name among all, 0 to 63; None for one too many."""
        bit = self._names.get(name)
        if bit is None:
            bit = next((place for place, known in enumerate(self._ring.names.tolist()) if not known), None)
            if bit is not None:
                self._ring.names[bit] = name.encode()
                self._ring.sync()
                self._names[name] = bit
        return bit

    def is_first(self, prediction: Remembered, bit: int) -> bool:
        """Returns whether an outcome of a name comes for the first time, and remembers that it came."""
        came = np.uint64(1 << bit)
        if self._came[prediction.place] & came:
            return False
        self._came[prediction.place] |= came
        return True

    def _number_of(self, arm: Arm) -> int:
        if self._arms.is_full and not self._arms.has(arm):  # all is forgotten rather than anything mixed up
            self._numbers[:] = 0
            self._n[0] = 0
            self._arms.keep_only(set())
        return self._arms.number_of(arm)


def memory_of(size: int, *, share: float = 0.0) -> Memory:
    """Returns a memory of so many predictions that goes with the process, which samples a share of the requests."""
    return Memory(ring_in_memory(size, share=share), Arms())


@dataclass(frozen=True, slots=True)
class Told:
    """What became of some outcomes.

    Attributes:
        counted: How many were counted.
        repeated: Ids of predictions of which an outcome of that name had come already; it was ignored.
        unknown: Ids that no process behind this port knows: never given, too old, or not routed.
        held: Ids of predictions that another server may know: their outcomes are kept, and carried there.
        unanswered: Ids of predictions of a process that did not answer in time: tell them again.
        refused: For each that cannot be counted its `prediction_id`, the `outcome` and the `reason`.
    """

    counted: int = 0
    repeated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    refused: tuple[Mapping[str, str], ...] = field(default=())

    def and_(self, other: "Told") -> "Told":
        """Returns both together."""
        return Told(
            self.counted + other.counted,
            self.repeated + other.repeated,
            self.unknown + other.unknown,
            self.held + other.held,
            self.unanswered + other.unanswered,
            self.refused + other.refused,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Told":
        """Returns what `to_json` wrote."""
        lists = {name: tuple(value[name]) for name in ("repeated", "unknown", "held", "unanswered", "refused")}
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
