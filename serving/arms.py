"""The arms that remembered predictions are of, each by a number that follows from what it is.

In a file it is a line of its own, which is only ever put at the end, with a checksum before it. A line that is lost, as
the last one of a killed process may be, takes the arm's predictions along and mixes up no other's: the same arm has the
same number again, and no other arm gets it.
"""

import logging
import os
import zlib
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from release_platform.domain.metrics import Task
from release_platform.domain.windows import Route
from serving.tallies import Arm

MOST_ARMS = 60_000
NO_ARM = 0
_MANY_LINES = 1_000
_LOG = logging.getLogger(__name__)


class Arms:
    """Arms and their numbers, 1 to 2**32 - 1.

    Args:
        path: The file that they are kept in; None for none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._by_number: dict[int, Arm] = {}
        self._numbers: dict[Arm, int] = {}
        self._must_break = False
        self._failed = False
        if path is not None:
            self._read(path)

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def is_full(self) -> bool:
        """Whether there are so many that those before should be forgotten."""
        return len(self) >= MOST_ARMS

    @property
    def are_many(self) -> bool:
        """Whether it is worth while to drop those that nothing is of."""
        return len(self) >= _MANY_LINES

    def has(self, arm: Arm) -> bool:
        """Returns whether an arm is among them."""
        return arm in self._numbers

    def find(self, number: int) -> Arm | None:
        """Returns the arm of a number; None where its line is lost."""
        return self._by_number.get(number)

    def number_of(self, arm: Arm) -> int:
        """Returns an arm's number; a new one is kept before."""
        number = self._numbers.get(arm)
        if number is None:
            line = _line_of(arm)
            number = self._free(line)
            self._append(number, line)
            self._numbers[arm], self._by_number[number] = number, arm
        return number

    def keep_only(self, numbers: set[int]) -> None:
        """Forgets all others.

        Raises:
            OSError: The file cannot be written; it is as it was.
        """
        kept = {number: arm for number, arm in self._by_number.items() if number in numbers}
        if self._path is not None:
            fresh = self._path.with_suffix(".fresh")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(_written(number, _line_of(arm)) for number, arm in kept.items())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        self._by_number, self._must_break = kept, False
        self._numbers = {arm: number for number, arm in kept.items()}

    def _free(self, line: bytes) -> int:
        """Returns the number of what is not known yet: that of its digest, or of the next one that nobody has."""
        for attempt in range(len(self) + 2):
            digest = blake2b(line, digest_size=4, salt=attempt.to_bytes(2, "big")).digest()
            number = int.from_bytes(digest, "big")
            if number != NO_ARM and number not in self._by_number:
                return number
        raise AssertionError("there are more numbers than arms")

    def _append(self, number: int, line: bytes) -> None:
        if self._path is None:
            return
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, (b"\n" if self._must_break else b"") + _written(number, line))
            finally:
                os.close(handle)
            self._must_break = False
        except OSError as error:
            self._must_break = True
            if not self._failed:
                _LOG.warning("%s cannot be written, so a restart forgets predictions: %s", self._path, error)
            self._failed = True

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        self._must_break = bool(lines[-1])
        n_bad = 0
        for line in lines:
            if not line:
                continue
            try:
                number, arm = _read_line(line)
            except (ValueError, KeyError, TypeError):
                n_bad += 1
                continue
            self._by_number[number], self._numbers[arm] = arm, number
        if n_bad:
            _LOG.warning("%s: %d line(s) are damaged; outcomes of their predictions are unknown", path, n_bad)


def _line_of(arm: Arm) -> bytes:
    return orjson.dumps(asdict(arm), option=orjson.OPT_SORT_KEYS)


def _written(number: int, line: bytes) -> bytes:
    body = b"%08x %s" % (number, line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read_line(line: bytes) -> tuple[int, Arm]:
    check, _, body = line.partition(b" ")
    if int(check, 16) != zlib.crc32(body):
        raise ValueError("it is not whole")
    number, _, written = body.partition(b" ")
    of: dict[str, Any] = orjson.loads(written)
    arm = Arm(of["model"], of["version"], Route(of["route"]), Task(of["task"]), tuple(of["classes"]))
    return int(number, 16), arm
