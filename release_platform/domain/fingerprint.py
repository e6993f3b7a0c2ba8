"""The fingerprint of a dataset: a digest of its full content, by column and by block of rows.

It separates what a sampled or value-only digest does not: any row, any dtype, the order of rows and columns, a missing
value from an empty text, -0.0 from 0.0, time zones and the order of categories. All NaNs are one value: missing.

A column arrives as a `ColumnValues`: plain NumPy memory plus a mask, so that this module needs no data frame library.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.identity import PREFIX, digest_of

BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnValues:
    """One column in memory.

    Attributes:
        name: The column's name.
        dtype: The full name of its type, e.g. `float64`, `datetime64[ns, UTC]`, `category[a,b]`.
        values: Shape (n_rows,): numbers, booleans or datetimes; or, for text, the UTF-8 bytes of all rows in one
            `uint8` array, with `lengths` beside it.
        missing: Shape (n_rows,), bool: where a value is missing; what `values` holds there does not count.
        lengths: Shape (n_rows,), int64: the byte length of each text; None for anything but text.
        source: The type that the source gave the column before it was cast; empty where the source has no types.
    """

    name: str
    dtype: str
    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64] | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFingerprint:
    """The digest of one column, and of each block of `BLOCK_ROWS` rows of it."""

    name: str
    dtype: str
    n_missing: int
    digest: str
    blocks: tuple[str, ...]
    source: str = ""

    @property
    def parts(self) -> list[object]:
        """What the digest of the dataset covers of this column."""
        parts: list[object] = [self.name, self.dtype, self.n_missing, self.digest]
        return [*parts, self.source] if self.source else parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The digest of a whole dataset: of its row count and its columns, in their order."""

    n_rows: int
    columns: tuple[ColumnFingerprint, ...]

    @property
    def digest(self) -> str:
        """The digest over everything below."""
        return digest_of([self.n_rows, [column.parts for column in self.columns]])

    def to_json(self) -> dict[str, Any]:
        """Returns the fingerprint as a JSON value."""
        return {
            "digest": self.digest,
            "n_rows": self.n_rows,
            "columns": [
                {
                    "name": c.name,
                    "dtype": c.dtype,
                    "n_missing": c.n_missing,
                    "digest": c.digest,
                    "blocks": list(c.blocks),
                    "source": c.source,
                }
                for c in self.columns
            ],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Fingerprint":
        """Returns the fingerprint that `to_json` wrote."""
        return Fingerprint(
            n_rows=int(value["n_rows"]),
            columns=tuple(
                ColumnFingerprint(
                    name=c["name"],
                    dtype=c["dtype"],
                    n_missing=int(c["n_missing"]),
                    digest=c["digest"],
                    blocks=tuple(c["blocks"]),
                    source=c.get("source", ""),
                )
                for c in value["columns"]
            ),
        )


def fingerprint(columns: Iterable[ColumnValues], *, n_rows: int) -> Fingerprint:
    """Returns the fingerprint of these columns, each of `n_rows` rows.

    Raises:
        ValueError: A column has another number of rows.
    """
    return Fingerprint(n_rows=n_rows, columns=tuple(_column(column, n_rows) for column in columns))


def combined(parts: Mapping[str, str]) -> str:
    """Returns the one digest of a dataset held in partitions, from each partition's key and digest."""
    return digest_of(sorted(parts.items()))


def differences(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Returns one sentence for each difference, empty when both are the same data."""
    found = list(column_differences(before, after))
    if before.n_rows != after.n_rows:
        found.append(f"{after.n_rows:,} rows instead of {before.n_rows:,}")
    for was, now in _common(before, after):
        if was.dtype == now.dtype and was.digest != now.digest:
            found.append(f"column '{was.name}' differs{_where(was.blocks, now.blocks, after.n_rows)}")
    if not found and [c.name for c in before.columns] != [c.name for c in after.columns]:
        found.append("the columns are in another order")
    return tuple(found)


def column_differences(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Returns one sentence for each column that is gone or new, or of another type here or at its source."""
    old, new = ({c.name for c in side.columns} for side in (before, after))
    found = [f"column '{c.name}' is gone" for c in before.columns if c.name not in new]
    found += [f"column '{c.name}' is new" for c in after.columns if c.name not in old]
    for was, now in _common(before, after):
        if was.dtype != now.dtype:
            found.append(f"column '{was.name}' is {now.dtype} instead of {was.dtype}")
        if was.source and now.source and was.source != now.source:
            found.append(f"column '{was.name}' came from its source as {now.source} instead of {was.source}")
    typed = [any(column.source for column in side.columns) for side in (before, after)]
    if typed[0] != typed[1]:
        found.append(f"the source gave its columns {'types' if typed[1] else 'no types'}, unlike before")
    return tuple(found)


def _common(before: Fingerprint, after: Fingerprint) -> list[tuple[ColumnFingerprint, ColumnFingerprint]]:
    new = {c.name: c for c in after.columns}
    return [(c, new[c.name]) for c in before.columns if c.name in new]


def _where(was: Sequence[str], now: Sequence[str], n_rows: int) -> str:
    changed = [i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b]
    if not changed:
        return " after its common rows"
    first = changed[0] * BLOCK_ROWS
    last = min(first + BLOCK_ROWS, n_rows)
    return f" in {len(changed)} block(s) of rows, the first at rows {first + 1:,} to {last:,}"


def _column(column: ColumnValues, n_rows: int) -> ColumnFingerprint:
    if len(column.missing) != n_rows:
        raise ValueError(f"column {column.name!r} has {len(column.missing)} rows, not {n_rows}")
    ends = None if column.lengths is None else np.concatenate([[0], np.cumsum(column.lengths)])
    blocks = []
    for start in range(0, n_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, n_rows)
        missing = column.missing[start:stop]
        digest = hashlib.sha256(np.packbits(missing).tobytes())
        if ends is None or column.lengths is None:
            digest.update(_plain(column.values[start:stop], missing))
        else:
            digest.update(np.ascontiguousarray(column.lengths[start:stop]).tobytes())
            digest.update(column.values[ends[start] : ends[stop]].tobytes())
        blocks.append(PREFIX + digest.hexdigest())
    return ColumnFingerprint(
        name=column.name,
        dtype=column.dtype,
        n_missing=int(column.missing.sum()),
        digest=digest_of(blocks),
        blocks=tuple(blocks),
        source=column.source,
    )


def _plain(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> bytes:
    if missing.any():
        values = values.copy()
        values[missing] = np.zeros(1, dtype=values.dtype)[0]
    return np.ascontiguousarray(values).tobytes()
