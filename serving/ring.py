"""The ring that predictions are remembered in: one row each, in memory or in a mapped file that outlives the process.

A row is of 32 bytes and what a shadow answered of 16, so neither ever lies in two sectors of a disk. A row's number is
taken away first and put back last: who is killed in between leaves a row that is of no prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_NAMES = 64
LONGEST_NAME = 64

ROW = np.dtype([("number", "<i8"), ("answer", "<f8"), ("came", "<u8"), ("minute", "<i4"), ("arm", "<u4")])
SHADOW = np.dtype([("answer", "<f8"), ("arm", "<u4"), ("tag", "<u4")])
STATE = np.dtype(
    [
        ("last", "<i8"),
        ("minute", "<i8"),
        ("remembered", "<i8"),
        ("first", "<i8"),
        ("share", "<f8"),
        ("share_before", "<f8"),
    ]
)
NAMES = np.dtype(f"S{LONGEST_NAME}")

BYTES_OF_ONE = ROW.itemsize + SHADOW.itemsize
"""Bytes of a prediction."""

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: multiples of it are spread evenly
_ALL = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """The arrays of a memory; all may be views of a file.

    Attributes:
        rows: Of each place the prediction that is there, of type `ROW`; its number is 0 where there is none.
        shadows: What a shadow answered to it, of type `SHADOW`; it holds where its tag is the number's.
        names: What outcomes are called, each at the place of its bit in `came`.
        state: One of type `STATE`. `last` is the largest number that was put in, `minute` the last minute, `remembered`
            how many places are in use. Numbers from `first` on were given with `share` in the sample of requests, and
            those before, as far as they are remembered, with at most `share_before`.
        sync: Returns when names and state are on the disk, if they are in a file.
    """

    rows: npt.NDArray[Any]
    shadows: npt.NDArray[Any]
    names: npt.NDArray[np.bytes_]
    state: npt.NDArray[Any]
    sync: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        """How many predictions it holds."""
        return len(self.rows)

    def share_of(self, number: int) -> float:
        """Returns the share of the requests that was sampled when a number was given, or more."""
        state = self.state[0]
        return float(state["share"] if number >= state["first"] else state["share_before"])


def ring_in_memory(size: int, *, share: float = 0.0) -> Ring:
    """Returns an empty ring that goes with the process, which samples a share of the requests."""
    state = np.zeros(1, STATE)
    state["share"] = share
    return Ring(
        rows=np.zeros(size, ROW), shadows=np.zeros(size, SHADOW), names=np.zeros(MOST_NAMES, NAMES), state=state
    )


def tags_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Returns what of each number stands beside a shadow's answer."""
    return ((numbers.astype(np.uint64) * np.uint64(_GOLDEN)) >> np.uint64(32)).astype(np.uint32)


def tag_of(number: int) -> int:
    """Returns the same of one number."""
    return (number * _GOLDEN % _ALL) >> 32


def below_of(share: float) -> int:
    """Returns below which place the predictions of a sample of this share are."""
    return int(share * _ALL)


def sample_place(number: int) -> int:
    """Returns the place of a number, by which alone it is decided whether its prediction is in a sample."""
    return number * _GOLDEN % _ALL
