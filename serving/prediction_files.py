"""Files of remembered predictions, so that outcomes which are told after a restart still count.

```
cache_dir/outcomes/<origin>.ring   a header, the names of outcomes, and the ring, mapped into memory
cache_dir/outcomes/<origin>.arms   the arms that they are of
```
The origin is what prediction ids begin with. Who holds the lock of a ring goes on with it, or answers for it: the lock
ends with its process, however that ends. A process that starts takes over the file that was used last and that nobody
holds, or begins a new one. Its numbers go on beyond all that may have been given before, which the header says and is
on the disk before the first is given. What cannot be read is put aside. Nothing here is needed to answer a prediction:
without a disk the last predictions are remembered in memory.
"""

import fcntl
import logging
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from serving.arms import Arms
from serving.outcomes import Memory
from serving.ring import MOST_NAMES, NAMES, ROW, SHADOW, STATE, Ring

FORMAT = 1
MOST_LEFT = 8
"""How many files that nobody goes on with are kept at most: those that were used last."""
GENERATION = 2**40
"""How many numbers are set aside for one process."""
RING, ARMS, FRESH, ASIDE = ".ring", ".arms", ".fresh", ".aside"

_MAGIC = b"RELPREDS"
_HEADER = struct.Struct("<8sIIQq16s")
_CHECK = struct.Struct("<I")
_STATE_AT, _NAMES_AT, _ROWS_AT = 512, 4096, 8192
_PAGE = 4096
_MOST_NUMBER = 2**63 - 2 * GENERATION
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    origin: str
    size: int
    reserved: int

    def to_bytes(self) -> bytes:
        packed = _HEADER.pack(_MAGIC, FORMAT, 0, self.size, self.reserved, self.origin.encode())
        return packed + _CHECK.pack(zlib.crc32(packed))

    @staticmethod
    def from_bytes(written: bytes) -> "_Header":
        packed, check = written[: _HEADER.size], written[_HEADER.size : _HEADER.size + _CHECK.size]
        if len(check) < _CHECK.size or packed[:8] != _MAGIC:
            raise ValueError("it is no file of predictions")
        _, version, _, size, reserved, origin = _HEADER.unpack(packed)
        if version != FORMAT:
            raise ValueError(f"it is of format {version}; this server knows {FORMAT}")
        if _CHECK.unpack(check)[0] != zlib.crc32(packed):
            raise ValueError("its header is damaged")
        return _Header(origin=origin.decode(), size=size, reserved=reserved)


@dataclass(slots=True, kw_only=True)
class KeptPredictions:
    """A file that this process holds.

    Attributes:
        origin: What the ids of its predictions begin with.
        first: The first number that this process may give.
        memory: What is in it.
    """

    origin: str
    first: int
    memory: Memory
    _handle: int = field(repr=False)
    _sync: Callable[[], None] = field(repr=False)

    def close(self) -> None:
        """Lets others have it; what is in it must not be used any more."""
        if self._handle >= 0:
            with suppress(OSError, ValueError):
                self._sync()
            _release(self._handle)
            self._handle = -1


class PredictionFiles:
    """The files in one folder. Several processes and servers may share it.

    Args:
        folder: The folder; it is made when it is needed.
        size: How many predictions a file of this server has.
        share: The share of the requests that this server samples, 0 to 1.
    """

    def __init__(self, folder: Path, size: int, *, share: float = 0.0) -> None:
        self._folder = folder
        self._size = size
        self._share = share

    def take_over(self) -> KeptPredictions | None:
        """Returns a file to go on with, an old one or a new one, and removes those that are too many.

        Returns:
            None where nothing is to be remembered, or no file can be kept, which is logged.
        """
        if not self._size:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            own = self._adopt() or self._begin()
        except OSError as error:
            _LOG.warning(
                "%s cannot hold the predictions, so a restart forgets them, and outcomes told later are unknown: %s",
                self._folder,
                error,
            )
            return None
        try:
            self._prune()
        except OSError as error:
            _LOG.warning("%s: old files of predictions cannot be removed: %s", self._folder, error)
        return own

    def borrow(self, origin: str) -> KeptPredictions | None:
        """Returns a file that no living process goes on with, to be closed soon; None where there is none.

        Raises:
            BlockingIOError: Somebody holds it.
        """
        path = self._folder / f"{origin}{RING}"
        try:
            if not path.is_file():
                return None
            handle = _lock(path)
            if handle is None:
                raise BlockingIOError(f"{path} is held by another process")
            header = self._read(handle, path)
            return None if header is None else self._open(handle, path, header, first=0)
        except BlockingIOError:
            raise
        except OSError as error:
            _LOG.warning("%s cannot be read: %s", path, error)
            return None

    def _adopt(self) -> KeptPredictions | None:
        for path in sorted(self._folder.glob(f"*{RING}"), key=_used, reverse=True):
            handle = _lock(path)
            header = None if handle is None else self._read(handle, path)
            if handle is None or header is None:
                continue
            try:
                if header.size == self._size and header.reserved < _MOST_NUMBER:
                    found = self._go_on(handle, path, header)
                    if found is not None:
                        return found
            except BaseException:
                _release(handle)
                raise
            _release(handle)
        return None

    def _go_on(self, handle: int, path: Path, header: _Header) -> KeptPredictions | None:
        mapped = mmap.mmap(handle, 0)
        ring = _ring_of(mapped, header.size)
        if all(ring.names.tolist()):  # who told what cannot be counted must not do so for ever
            return None
        state, last = ring.state[0], int(ring.state["last"][0])
        first = header.reserved
        if 0 < last < first:  # the place after the last one is the oldest's
            first += (last + 1 - first) % header.size
        is_full = last - int(state["first"]) >= header.size
        before = state["share"] if is_full else max(float(state["share"]), float(state["share_before"]))
        ring.state["share_before"], ring.state["share"], ring.state["first"] = before, self._share, first
        _reserve(mapped, _Header(origin=header.origin, size=header.size, reserved=first + GENERATION))
        arms = Arms(path.with_suffix(ARMS))
        if arms.are_many:
            arms.keep_only(set(np.unique(ring.rows["arm"]).tolist()) | set(np.unique(ring.shadows["arm"]).tolist()))
        _LOG.info("%s: %s predictions are remembered from before", path, f"{int(state['remembered']):,}")
        return KeptPredictions(
            origin=header.origin, first=first, memory=Memory(ring, arms), _handle=handle, _sync=ring.sync
        )

    def _begin(self) -> KeptPredictions:
        origin = token_hex(8)
        fresh = self._folder / f"{origin}{FRESH}"
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(handle, 0, n_bytes_of(self._size))  # a full disk must be known now, not in the mapping
            header = _Header(origin=origin, size=self._size, reserved=GENERATION)
            mapped = mmap.mmap(handle, 0)
            ring = _ring_of(mapped, self._size)
            ring.state["share"], ring.state["first"] = self._share, 1
            _reserve(mapped, header)
            path = self._folder / f"{origin}{RING}"
            fresh.rename(path)
        except BaseException:
            _release(handle)
            fresh.unlink(missing_ok=True)
            raise
        arms = Arms(path.with_suffix(ARMS))
        return KeptPredictions(origin=origin, first=1, memory=Memory(ring, arms), _handle=handle, _sync=ring.sync)

    def _open(self, handle: int, path: Path, header: _Header, *, first: int) -> KeptPredictions:
        ring = _ring_of(mmap.mmap(handle, 0), header.size)
        memory = Memory(ring, Arms(path.with_suffix(ARMS)))
        return KeptPredictions(origin=header.origin, first=first, memory=memory, _handle=handle, _sync=lambda: None)

    def _read(self, handle: int, path: Path) -> _Header | None:
        """Returns the header of a file whose lock is held; None for one that is put aside and closed."""
        try:
            header = _Header.from_bytes(os.pread(handle, _HEADER.size + _CHECK.size, 0))
            if header.origin != path.stem:
                raise ValueError(f"it is of {header.origin!r}")
            if (n_bytes := os.fstat(handle).st_size) != n_bytes_of(header.size):
                raise ValueError(f"it has {n_bytes:,} bytes instead of {n_bytes_of(header.size):,}")
            return header
        except ValueError as error:
            aside = path.with_suffix(RING + ASIDE)
            _LOG.warning("%s is put aside as %s: %s; outcomes of its predictions are unknown", path, aside, error)
            path.rename(aside)
            with suppress(FileNotFoundError):
                path.with_suffix(ARMS).rename(path.with_suffix(ARMS + ASIDE))
            _release(handle)
            return None

    def _prune(self) -> None:
        """Removes what nobody goes on with, except the files that were used last, and what was never finished."""
        left = sorted(self._folder.glob(f"*{RING}"), key=_used, reverse=True)
        n_left = 0
        for path in left:
            with _locked(path) as is_mine:
                n_left += is_mine
                if is_mine and n_left > MOST_LEFT:
                    path.unlink(missing_ok=True)
                    path.with_suffix(ARMS).unlink(missing_ok=True)
        for path in self._folder.glob(f"*{FRESH}"):
            with _locked(path) as is_mine:
                if is_mine:
                    path.unlink(missing_ok=True)
        for path in sorted(self._folder.glob(f"*{RING}{ASIDE}"), key=_used, reverse=True)[MOST_LEFT:]:
            path.unlink(missing_ok=True)
            path.with_name(path.name.replace(RING, ARMS)).unlink(missing_ok=True)


def n_bytes_of(size: int) -> int:
    """Returns how large the file of so many predictions is."""
    return _shadows_at(size) + size * SHADOW.itemsize


def _shadows_at(size: int) -> int:
    return -(-(_ROWS_AT + size * ROW.itemsize) // _PAGE) * _PAGE


def _ring_of(mapped: mmap.mmap, size: int) -> Ring:
    def part(n: int, kind: "np.dtype[Any]", at: int) -> "np.ndarray[Any, Any]":
        return np.ndarray(n, kind, buffer=mapped, offset=at)

    return Ring(
        rows=part(size, ROW, _ROWS_AT),
        shadows=part(size, SHADOW, _shadows_at(size)),
        names=part(MOST_NAMES, NAMES, _NAMES_AT),
        state=part(1, STATE, _STATE_AT),
        sync=lambda: mapped.flush(0, _ROWS_AT),
    )


def _reserve(mapped: mmap.mmap, header: _Header) -> None:
    """Writes a header; what was returned from is on the disk."""
    written = header.to_bytes()
    mapped[: len(written)] = written
    mapped.flush(0, _ROWS_AT)


def _lock(path: Path) -> int | None:
    """Returns the handle of a file whose lock this process now holds; None where another holds it, or it is gone."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # it is gone, or of somebody else
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == path.stat().st_ino:  # else it was removed before it was locked
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _release(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_UN)  # a mapping of it has it open, too
    os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds the lock of a file meanwhile; yields whether it does."""
    handle = _lock(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _used(path: Path) -> float:
    """Returns when a file was used last, by the minute in it where one is, else by the file system."""
    try:
        minutes: list[int] = np.fromfile(path, STATE, 1, offset=_STATE_AT)["minute"].tolist()
        return max([path.stat().st_mtime, *(60.0 * minute for minute in minutes)])
    except OSError:
        return 0.0
