"""Which slices of a model's rows its answers are counted in."""

from collections.abc import Iterable

import numpy as np

from release_platform.domain.features import ColumnType, FeaturePlan, Inputs

_SLICED = {ColumnType.CATEGORY, ColumnType.BOOLEAN}


class Slices:
    """Chooses the slices that are counted: of each model the first few columns that have few values.

    A column with more values than that is given up for good.
    """

    def __init__(self, *, most_columns: int = 8, most_values: int = 20) -> None:
        self._most_columns = most_columns
        self._most_values = most_values
        self._values: dict[str, dict[str, set[str]]] = {}

    def counted(self, model: str, slices: Iterable[str]) -> list[str]:
        """Returns, of the slices `column=value` that a row is in, those that are counted."""
        columns = self._values.setdefault(model, {})
        found = []
        for name in slices:
            column = name.partition("=")[0]
            if column not in columns and len(columns) >= self._most_columns:
                continue
            values = columns.setdefault(column, set())
            if len(values) <= self._most_values:
                values.add(name)
            if len(values) <= self._most_values:
                found.append(name)
        return found


def slices_of(plan: FeaturePlan, inputs: Inputs) -> tuple[str, ...]:
    """Returns the slices that the first row of a request is in: of each text and each truth, which one it is."""
    if isinstance(inputs, np.ndarray):
        return ()
    found = []
    for column in plan.inputs:
        if column.type in _SLICED:
            value = inputs[column.name][0]
            if column.type is ColumnType.BOOLEAN and not np.isnan(value):
                value = "true" if value else "false"
            found.append(f"{column.name}={value:.60}" if isinstance(value, str) else f"{column.name}=(missing)")
    return tuple(found)
