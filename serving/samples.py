"""A sample of the requests that were answered, rows and answers, for a candidate to be tried on.

Whether a prediction is in it depends on its number alone, so on nothing that a client or a version does. The labels
that are told later of such predictions are kept too, so that what was answered can be held against them. Nothing is
kept unless the server is told to, since rows are data of people.

A sample is kept as the JSON text that a collector gets: to write those of a minute at once would hold up the answers.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from release_platform.domain.features import Column, ColumnType, FeaturePlan, Inputs, is_missing, n_rows_of
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import Route
from serving.metrics import Metrics
from serving.models import LoadedModel
from serving.observations import KEPT_MINUTES
from serving.tallies import Arm

MOST_ROWS = 20_000
"""Most rows that are kept."""
MOST_OF_ONE = 100
"""Most rows of one request that are."""
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: multiples of it are spread evenly
_ALL = 2**64


@dataclass(frozen=True, slots=True)
class _Sample:
    minute: int
    n_rows: int
    told: orjson.Fragment


@dataclass(frozen=True, slots=True)
class _Label:
    minute: int
    number: int
    model: str
    version: str
    label: str | int | float


class Samples:
    """Keeps the sample of one process, of the last hour.

    Args:
        share: The share of the predictions that is in it, 0 to 1.
        replica: The name of this process.
        minute: Returns the present minute.
        metrics: What is told of what was dropped before anybody fetched it.
        most_rows: Most rows that are kept.

    Attributes:
        is_on: Whether anything can be in it.
    """

    def __init__(
        self, *, share: float, replica: str, minute: Callable[[], int], metrics: Metrics, most_rows: int = MOST_ROWS
    ) -> None:
        self.is_on = share > 0
        self._below = int(share * _ALL)
        self._replica = replica
        self._minute = minute
        self._metrics = metrics
        self._most_rows = most_rows
        self._kept: deque[_Sample] = deque()
        self._labels: deque[_Label] = deque(maxlen=most_rows)
        self._n_rows = 0
        self._fetched = -1

    def takes(self, number: int) -> bool:
        """Returns whether the prediction of a number is in the sample."""
        return number * _GOLDEN % _ALL < self._below

    def offer(self, loaded: LoadedModel, route: Route, inputs: Inputs, predictions: Predictions, number: int) -> None:
        """Keeps a request that was answered, if it is in the sample."""
        if not self.takes(number):
            return
        minute, n_rows = self._minute(), n_rows_of(inputs)
        told = {
            "prediction_id": f"{self._replica}-{number:x}",
            "model": loaded.model,
            "version": loaded.version,
            "route": route.value,
            "minute": minute,
            "n_rows": n_rows,
            "columns": columns_of(loaded.package.plan, _first(inputs)),
            "predictions": predictions.values[:MOST_OF_ONE].tolist(),
        }
        n_kept = min(n_rows, MOST_OF_ONE)
        self._kept.append(_Sample(minute, n_kept, orjson.Fragment(orjson.dumps(told))))
        self._n_rows += n_kept
        before, n_lost = minute - KEPT_MINUTES, 0
        while self._n_rows > self._most_rows or self._kept[0].minute < before:
            dropped = self._kept.popleft()
            self._n_rows -= dropped.n_rows
            n_lost += dropped.minute > self._fetched
        if n_lost:
            self._metrics.samples_lost(n_lost)

    def label(self, arm: Arm, number: int, label: str | int | float) -> None:
        """Keeps what would have been right of a prediction, if it is in the sample."""
        if self.takes(number):
            self._labels.append(_Label(self._minute(), number, arm.model, arm.version, label))
            while self._labels[0].minute < self._minute() - KEPT_MINUTES:
                self._labels.popleft()

    def closed_after(self, minute: int) -> dict[str, Any]:
        """Returns, as a value for orjson, the sample of the minutes after one that are over, and labels told then."""
        closed = self._minute() - 1
        found = [sample for sample in self._kept if minute < sample.minute <= closed]
        self._fetched = max(self._fetched, *(one.minute for one in found)) if found else self._fetched
        labels = [self._told_label(one) for one in self._labels if minute < one.minute <= closed]
        told = [sample.told for sample in found]
        return {"replica": self._replica, "closed": closed, "samples": told, "labels": labels}

    def _told_label(self, one: _Label) -> dict[str, Any]:
        of = {"model": one.model, "version": one.version, "minute": one.minute, "label": one.label}
        return {"prediction_id": f"{self._replica}-{one.number:x}", **of}


def columns_of(plan: FeaturePlan, inputs: Inputs) -> dict[str, list[Any]]:
    """Returns rows as a client sends them as `columns`: what is missing is None, times are ISO 8601 text."""
    if isinstance(inputs, np.ndarray):
        lists = inputs.T.tolist()
        return {column.name: _numbers(column.type, lists[place]) for place, column in enumerate(plan.inputs)}
    return {column.name: _values(column.type, inputs[column.name]) for column in plan.inputs}


def _numbers(kind: ColumnType, values: list[float]) -> list[Any]:
    """Returns numbers of a matrix as their type has them; there NaN is what is missing, which equals nothing."""
    match kind:
        case ColumnType.INTEGER:
            return [int(value) if value == value else None for value in values]
        case ColumnType.BOOLEAN:
            return [bool(value) if value == value else None for value in values]
        case _:
            return [value if value == value else None for value in values]


def _values(kind: ColumnType, column: Column) -> list[Any]:
    said: list[Any]
    match kind:
        case ColumnType.TIMESTAMP:
            said = np.datetime_as_string(column, unit="us").tolist()
        case ColumnType.INTEGER | ColumnType.BOOLEAN:
            whole = np.nan_to_num(column)
            said = whole.astype(np.int64 if kind is ColumnType.INTEGER else np.bool_).tolist()
        case _:
            said = column.tolist()
    return [None if gone else value for value, gone in zip(said, is_missing(column).tolist(), strict=True)]


def _first(inputs: Inputs) -> Inputs:
    if isinstance(inputs, np.ndarray):
        return inputs[:MOST_OF_ONE]
    return {name: values[:MOST_OF_ONE] for name, values in inputs.items()}
