"""How many connections each of several workers has open, in memory that all of them share."""

import mmap
import os

_BYTES = 4
_SLACK = 8
_ABSENT = 0  # as in a new file; else the number of open connections, and one


class Shares:
    """A place for each worker, in which it says how many connections it has open.

    A worker that is not there, as it starts, stops or is dead, has no share, and nobody waits for it.

    Args:
        file: An open file of `Shares.n_bytes`, which all of them inherit.
    """

    def __init__(self, file: int) -> None:
        self._open = memoryview(mmap.mmap(file, os.fstat(file).st_size)).cast("I")

    @staticmethod
    def n_bytes(n_workers: int) -> int:
        """Returns the length of the file."""
        return n_workers * _BYTES

    def tell(self, place: int, n_open: int) -> None:
        """Says how many connections the worker at a place has open."""
        self._open[place] = n_open + 1

    def leave(self, place: int) -> None:
        """Says that no worker is at a place."""
        self._open[place] = _ABSENT

    def is_ahead(self, place: int) -> bool:
        """Returns whether the worker at a place has more open than one beside it, by over an eighth of the mean."""
        there = [told - 1 for told in self._open if told != _ABSENT]
        return self._open[place] - 1 > min(there, default=0) + sum(there) // (_SLACK * max(1, len(there)))
