"""A sample of the requests that were answered, rows and answers, for a candidate to be tried on.

```
answer --in the sample?--> written as it is told --minute over--> told, page by page, and kept for an hour
```
Whether a prediction is in it depends on its number alone, so on nothing that a client or a version does. The labels
that are told later of such predictions are kept too, so that what was answered can be held against them. Each is
written once, when it comes: what it takes in memory is known then, and to tell thousands is to join them. Nothing is
kept unless the server is told to, since rows are data of people.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import orjson

from release_platform.domain.features import MISSING, Column, ColumnType, FeaturePlan, Inputs, n_rows_of
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import Route, Window
from serving.metrics import Metrics
from serving.models import LoadedModel
from serving.observations import KEPT_MINUTES
from serving.refusals import CallCounts
from serving.ring import below_of, sample_place
from serving.tallies import Arm

MOST_ROWS = 20_000
"""Most rows that are kept, and most labels."""
MOST_BYTES = 32 * 1024**2
"""Most bytes of requests that are kept, as they are told."""
MOST_OF_ONE = 100
"""Most rows of one request that are kept."""
MOST_VALUES_OF_ONE = 10_000
"""Most values of it, so that to write it never holds up an answer for long; one row is kept in any case."""
MOST_BYTES_OF_ONE = 1024**2
"""Most bytes of it; a request with more is left out."""
MOST_BYTES_TOLD = 4 * 1024**2
"""Bytes that are told at once, unless a single minute has more: a minute is told whole."""
_WHOLE = 2.0**63


@dataclass(frozen=True, slots=True)
class _Kept:
    minute: int
    n_rows: int
    told: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one process tells at once of its sample.

    Attributes:
        closed: The last minute of which all is told.
        more: Whether later minutes are over too: who asks for those after `closed` is told of them.
        body: All of it, a JSON object.
    """

    closed: int
    more: bool
    body: bytes

    def to_bytes(self) -> bytes:
        """Returns it as another process reads it."""
        return orjson.dumps([self.closed, self.more, len(self.body)]) + b"\n" + self.body

    @staticmethod
    def from_bytes(written: bytes) -> "Page":
        """Returns what `to_bytes` wrote.

        Raises:
            ValueError: It is not whole.
        """
        head, _, body = written.partition(b"\n")
        closed, more, n_bytes = orjson.loads(head)
        if len(body) != n_bytes:
            raise ValueError(f"{len(body):,} of {n_bytes:,} bytes came")
        return Page(closed=closed, more=more, body=body)


class Samples:
    """Keeps the sample of one process, of the last hour.

    Args:
        share: The share of the predictions that is in it, 0 to 1.
        replica: The name of this process.
        minute: Returns the present minute.
        windows: Returns the windows of the minutes after one that are closed.
        origin: Returns what the ids of its predictions begin with; None: the name of the process.
        metrics: What is told of what was left out, or dropped before anybody fetched it.
        most_rows: Most rows that are kept, and most labels.
        most_bytes: Most bytes of requests that are kept.

    Attributes:
        is_on: Whether anything can be in it.
        calls: How many calls were refused; counted while it is on.
    """

    def __init__(
        self,
        *,
        share: float,
        replica: str,
        minute: Callable[[], int],
        windows: Callable[[int], Iterable[Window]],
        metrics: Metrics,
        origin: Callable[[], str] | None = None,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.is_on = share > 0
        self.calls = CallCounts(minute, windows)
        self._below = below_of(share)
        self._replica = replica
        self._origin = origin or (lambda: replica)
        self._minute = minute
        self._metrics = metrics
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._kept: deque[_Kept] = deque()
        self._labels: deque[_Kept] = deque(maxlen=most_rows)
        self._n_rows = 0
        self._n_bytes = 0
        self._fetched = -1

    def takes(self, number: int) -> bool:
        """Returns whether the prediction of a number is in the sample."""
        return sample_place(number) < self._below

    def offer(self, loaded: LoadedModel, route: Route, inputs: Inputs, predictions: Predictions, number: int) -> None:
        """Keeps a request that was answered, if it is in the sample and not too large."""
        if not self.takes(number):
            return
        minute, columns = self._minute(), _first(loaded.package.plan, inputs)
        told = b""
        if _n_letters(columns.values()) <= MOST_BYTES_OF_ONE:
            n_rows = len(next(iter(columns.values())))
            told = orjson.dumps(
                {
                    "prediction_id": f"{self._origin()}-{number:x}",
                    "model": loaded.model,
                    "version": loaded.version,
                    "route": route.value,
                    "minute": minute,
                    "n_rows": n_rows_of(inputs),
                    "columns": columns_of(loaded.package.plan, columns),
                    "predictions": predictions.values[:n_rows].tolist(),
                    "confidences": _confidences(predictions, n_rows),
                }
            )
        if not 0 < len(told) <= MOST_BYTES_OF_ONE:
            self._metrics.sample_left_out()
            return
        self._kept.append(_Kept(minute, n_rows, told))
        self._n_rows += n_rows
        self._n_bytes += len(told)
        self._forget()

    def label(self, arm: Arm, prediction_id: str, label: str | int | float, share: float) -> None:
        """Keeps what would have been right of a prediction, if it is in the sample.

        Args:
            arm: What answered.
            prediction_id: The prediction, which another process may have made, before this one began.
            label: What would have been right.
            share: The share of the requests that was in the sample when it was made, or more.
        """
        if sample_place(int(prediction_id.rpartition("-")[2], 16)) < below_of(share):
            minute = self._minute()
            of = {"model": arm.model, "version": arm.version, "minute": minute, "label": label}
            told = orjson.dumps({"prediction_id": prediction_id, **of})
            self._labels.append(_Kept(minute, 0, told))
            self._forget()

    def closed_after(self, minute: int) -> Page:
        """Returns the sample of the minutes after one that are over, and the labels told in them, or the first page."""
        self._forget()
        over = self._minute() - 1
        samples, labels = (
            [one for one in several if minute < one.minute <= over] for several in (self._kept, self._labels)
        )
        closed = _last_of_page((*samples, *labels), over)
        samples, labels = ([one for one in several if one.minute <= closed] for several in (samples, labels))
        self._fetched = max(self._fetched, *(one.minute for one in samples)) if samples else self._fetched
        told: dict[str, Any] = {"samples": _fragments(samples), "labels": _fragments(labels)}
        told["calls"] = self.calls.closed_after(minute, closed)
        body = orjson.dumps({"replica": self._replica, "closed": closed, **told})
        return Page(closed=closed, more=closed < over, body=body)

    def _forget(self) -> None:
        """Drops what is too old, and the oldest requests of too many."""
        before, n_lost = self._minute() - KEPT_MINUTES, 0
        while self._kept and (
            self._n_rows > self._most_rows or self._n_bytes > self._most_bytes or self._kept[0].minute < before
        ):
            dropped = self._kept.popleft()
            self._n_rows -= dropped.n_rows
            self._n_bytes -= len(dropped.told)
            n_lost += dropped.minute > self._fetched
        while self._labels and self._labels[0].minute < before:
            self._labels.popleft()
        if n_lost:
            self._metrics.samples_lost(n_lost)


def columns_of(plan: FeaturePlan, inputs: Inputs) -> dict[str, list[Any]]:
    """Returns rows as a client sends them as `columns`: what is missing is None, times are ISO 8601 text."""
    columns = plan.columns(inputs)
    return {column.name: _values(column.type, columns[column.name]) for column in plan.inputs}


def _values(kind: ColumnType, column: Column) -> list[Any]:
    match kind:
        case ColumnType.NUMBER:
            return [None if value != value else value for value in column.tolist()]
        case ColumnType.INTEGER:
            return [None if value != value else _whole(value) for value in column.tolist()]
        case ColumnType.BOOLEAN:
            return [None if value != value else bool(value) for value in column.tolist()]
        case ColumnType.CATEGORY:
            return [None if value == MISSING else value for value in column.tolist()]
        case ColumnType.TIMESTAMP:
            return [None if text == "NaT" else text for text in np.datetime_as_string(column, unit="us").tolist()]
        case _:
            assert_never(kind)


def _whole(value: float) -> int | float:
    """Returns a whole number as JSON has it; one of more than 64 bits stays as it is."""
    return int(value) if -_WHOLE <= value < _WHOLE else value


def _first(plan: FeaturePlan, inputs: Inputs) -> dict[str, Column]:
    """Returns the rows of a request that are kept."""
    n_rows = max(1, min(MOST_OF_ONE, MOST_VALUES_OF_ONE // len(plan.inputs)))
    return {name: values[:n_rows] for name, values in plan.columns(inputs).items()}


def _confidences(predictions: Predictions, n_rows: int) -> list[float] | None:
    """Returns the probability of each answer, of some rows; None of a regression."""
    if predictions.probabilities is None:
        return None
    found: list[float] = predictions.probabilities[:n_rows].max(axis=1).tolist()
    return found


def _n_letters(columns: Iterable[Column]) -> int:
    return sum(sum(map(len, column)) for column in columns if column.dtype.kind == "O")


def _last_of_page(several: Iterable[_Kept], over: int) -> int:
    """Returns the last minute up to which what is told is not too much, but of one minute with anything in any case."""
    sizes: Counter[int] = Counter()
    for one in several:
        sizes[one.minute] += len(one.told)
    n_bytes = 0
    for place, minute in enumerate(sorted(sizes)):
        n_bytes += sizes[minute]
        if place and n_bytes > MOST_BYTES_TOLD:
            return minute - 1
    return over


def _fragments(several: Iterable[_Kept]) -> list[orjson.Fragment]:
    return [orjson.Fragment(one.told) for one in several]
