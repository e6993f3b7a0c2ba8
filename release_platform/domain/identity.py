"""Digests: of values, of files, and of a fitted model.

A digest is always written `sha256:<64 hex digits>`. Values are hashed over their canonical JSON (RFC 8785 in
spirit: sorted keys, no white space, no NaN).
"""

import hashlib
import json
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PREFIX = "sha256:"
MAXIMUM_FILES = 1_000
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,9}")


def canonical_json(value: object) -> bytes:
    """Returns the one UTF-8 encoding of a JSON value that digests are computed over.

    Raises:
        ValueError: The value holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of_bytes(data: bytes) -> str:
    """Returns the digest of these bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def digest_of(value: object) -> str:
    """Returns the digest of a JSON value."""
    return digest_of_bytes(canonical_json(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a version: its path relative to the package's root, its size and its digest."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The complete list of a version's files. Its digest is the version's digest `D(v)`."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        if len(self.files) > MAXIMUM_FILES:
            raise ValueError(f"a manifest lists {len(self.files):,} files, more than {MAXIMUM_FILES:,}")
        for entry in self.files:
            if not isinstance(entry.path, str) or not isinstance(entry.sha256, str):
                raise ValueError("a path or digest of a manifest is no text")
            if type(entry.size_bytes) is not int or entry.size_bytes < 0:
                raise ValueError(f"not a size in bytes: {entry.size_bytes!a:.40}")
        paths = [entry.path for entry in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a manifest lists each path once")
        if paths != sorted(paths):
            raise ValueError("a manifest lists its paths in order")
        if len({path.casefold() for path in paths}) != len(paths):
            raise ValueError("a manifest lists paths that differ in case only")
        for path in paths:
            if not _PLAIN_PATH.fullmatch(path) or any(set(part) == {"."} for part in path.split("/")):
                raise ValueError(f"not a plain relative path: {path[:100]!a}")

    @property
    def digest(self) -> str:
        """The digest over paths, sizes and digests of all files."""
        return digest_of(self.to_json())

    @property
    def size_bytes(self) -> int:
        """The sum of all file sizes."""
        return sum(entry.size_bytes for entry in self.files)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the manifest as a JSON value."""
        return [{"path": e.path, "sha256": e.sha256, "size_bytes": e.size_bytes} for e in self.files]

    @staticmethod
    def from_json(value: list[dict[str, Any]]) -> "Manifest":
        """Returns the manifest that `to_json` wrote.

        Raises:
            ValueError: It did not write this.
        """
        try:
            return Manifest(files=tuple(FileEntry(**entry) for entry in value))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error


def digest_of_model(model: object) -> str:
    """Returns the canonical digest of a fitted model: of its parameters and arrays, not of file bytes.

    Two fits that gave the same numbers have the same digest, in whatever order their dictionaries were filled and
    however they would be pickled. Objects are walked through `__getstate__`, so whatever an estimator keeps to predict
    is covered; arrays count with dtype, shape and values (structured arrays field by field, so padding does not).

    Raises:
        TypeError: The model holds something without a state of its own, such as an open file.
    """
    digest = hashlib.sha256()
    _walk(model, digest.update, ())
    return PREFIX + digest.hexdigest()


def _walk(value: Any, feed: Callable[[bytes], None], above: tuple[int, ...]) -> None:
    if value is None or isinstance(value, bool | int | str | bytes):
        feed(f"{type(value).__name__}:{value!r};".encode())
    elif isinstance(value, float):
        feed(b"float:" + _float_bytes(value))
    elif isinstance(value, np.ndarray):
        _walk_array(value, feed, above)
    elif isinstance(value, np.generic):
        _walk_array(np.asarray(value), feed, above)
    elif isinstance(value, np.dtype):
        feed(f"dtype:{value.str};".encode())
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        feed(f"name:{getattr(value, '__module__', '')}.{value.__name__};".encode())
    elif id(value) in above:
        feed(f"cycle:{len(above) - above.index(id(value))};".encode())
    elif isinstance(value, Mapping):
        feed(f"mapping:{len(value)};".encode())
        for key in sorted(value, key=repr):
            _walk(key, feed, (*above, id(value)))
            _walk(value[key], feed, (*above, id(value)))
    elif isinstance(value, set | frozenset):
        _walk(sorted(value, key=repr), feed, above)
    elif isinstance(value, list | tuple):
        feed(f"sequence:{len(value)};".encode())
        for item in value:
            _walk(item, feed, (*above, id(value)))
    else:
        feed(f"object:{type(value).__module__}.{type(value).__qualname__};".encode())
        _walk(_state(value), feed, (*above, id(value)))


def _walk_array(array: npt.NDArray[Any], feed: Callable[[bytes], None], above: tuple[int, ...]) -> None:
    feed(f"array:{array.dtype.str}:{array.shape};".encode())
    if array.dtype.names:
        for name in array.dtype.names:
            _walk_array(array[name], feed, above)
    elif array.dtype.hasobject:
        for item in array.ravel():
            _walk(item, feed, above)
    else:
        feed(np.ascontiguousarray(array).tobytes())


def _float_bytes(value: float) -> bytes:
    return np.float64(value).tobytes()


def _state(value: Any) -> Any:
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return reduced
    # (callable, arguments, state, list items, dict items): the callable of a plain object is only copyreg's.
    arguments = reduced[1][1:] if reduced[1] and reduced[1][0] is type(value) else reduced[1]
    state = reduced[2] if len(reduced) > 2 else None
    if isinstance(state, Mapping):  # the library's version is part of the environment, not of the model
        state = {key: item for key, item in state.items() if key != "_sklearn_version"}
    return [arguments, state]
