"""Reads the JSON of rows that are numbers only, straight into a matrix: the usual request, in a few microseconds.

msgspec is given the names and types of one model, so that parsing and checking are one pass in compiled code. Long
columns are read by simdjson, which makes no object of a number: half the time. Whatever they do not take as it is, is
left to the reader that names field and row (`inputs`).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import simdjson
from msgspec import UNSET, Struct, UnsetType

from release_platform.domain.features import ColumnType, FeaturePlan

_LONG_BYTES = 16 * 1024
_as_tuple = msgspec.structs.astuple


class PlainJson:
    """Reads the rows of a plan whose inputs are numbers and whole numbers only.

    Args:
        plan: A plain plan without booleans.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._names = names = [column.name for column in plan.inputs]
        row = _struct(plan, {column.name: float | None if column.nullable else float for column in plan.inputs})
        columns = _struct(
            plan, {column.name: list[float | None] if column.nullable else list[float] for column in plan.inputs}
        )
        body = msgspec.defstruct(
            "Body",
            [
                ("rows", list[row] | UnsetType, UNSET),  # type: ignore[valid-type]
                ("columns", columns | UnsetType, UNSET),
                ("route_key", str | UnsetType, UNSET),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)
        self._n_colons = len(names) + sum(name.count(":") for name in names)
        self._takes_long = not any("[" in name for name in names)
        self._whole = [place for place, column in enumerate(plan.inputs) if column.type is ColumnType.INTEGER]

    def read(self, body: bytes, max_rows: int) -> npt.NDArray[np.float64] | None:
        """Returns rows, shape (n_rows, n_inputs), NaN for null; None for whatever needs a closer look.

        Args:
            body: The JSON text.
            max_rows: Most rows that are taken.
        """
        if b"\\" in body:  # a name may be written in several ways then, and its colons cannot be counted
            return None
        matrix = self._long_columns(body, max_rows) if len(body) >= _LONG_BYTES and self._takes_long else None
        if matrix is None:
            matrix = self._rows_or_columns(body, max_rows)
        return matrix if matrix is None or not self._whole or is_whole(matrix[:, self._whole]) else None

    def _rows_or_columns(self, body: bytes, max_rows: int) -> npt.NDArray[np.float64] | None:
        try:
            asked = self._decoder.decode(body)
        except (msgspec.DecodeError, ValueError):  # a ValueError: it is no UTF-8
            return None
        if (asked.rows is UNSET) == (asked.columns is UNSET):
            return None
        matrix = (
            self._rows(asked.rows, max_rows)
            if asked.columns is UNSET
            else self._columns(_as_tuple(asked.columns), max_rows)
        )
        # Each member has one colon: where there are more, a key stands twice.
        n_objects = 1 if asked.rows is UNSET else len(asked.rows)
        n_more = 1 if asked.route_key is UNSET else 2 + asked.route_key.count(":")
        if matrix is None or body.count(b":") != n_more + n_objects * self._n_colons:
            return None
        return matrix

    def _long_columns(self, body: bytes, max_rows: int) -> npt.NDArray[np.float64] | None:
        # As many colons and brackets as names: no key stands twice, and no column holds arrays: simdjson flattens them.
        # It skips a byte order mark, too, which no other reader does.
        if not (body.startswith(b"{") and _has(body, b":", 1 + self._n_colons) and _has(body, b"[", len(self._names))):
            return None
        try:
            document: Any = simdjson.Parser().parse(body)
            columns = document["columns"]
            values = [np.frombuffer(columns[name].as_buffer(of_type="d")) for name in self._names]
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
            return None
        return self._columns(values, max_rows)

    @staticmethod
    def _rows(rows: list[Struct], max_rows: int) -> npt.NDArray[np.float64] | None:
        if not 0 < len(rows) <= max_rows:
            return None
        return np.array([_as_tuple(row) for row in rows], dtype=np.float64)

    @staticmethod
    def _columns(columns: Sequence[Any], max_rows: int) -> npt.NDArray[np.float64] | None:
        n_rows = len(columns[0])
        if not 0 < n_rows <= max_rows or any(len(column) != n_rows for column in columns):
            return None
        return np.ascontiguousarray(np.array(columns, dtype=np.float64).T)


def _struct(plan: FeaturePlan, types: dict[str, Any]) -> type[Struct]:
    names = {f"f{place}": column.name for place, column in enumerate(plan.inputs)}
    fields = [(field, types[name]) for field, name in names.items()]
    return msgspec.defstruct("Given", fields, rename=names, forbid_unknown_fields=True, gc=False)


def _has(text: bytes, sign: bytes, n: int) -> bool:
    """Returns whether a sign stands in a long text n times: ten times as fast as `bytes.count`, where it is seldom."""
    place = -1
    for _ in range(n):
        place = text.find(sign, place + 1)
        if place < 0:
            return False
    return text.find(sign, place + 1) < 0


def is_whole(values: npt.NDArray[np.float64]) -> bool:
    """Returns whether every number is whole, or missing."""
    return bool(((np.floor(values) == values) | np.isnan(values)).all())
