"""The live servers' samples of answered requests, and their labels, are fetched and kept as recordings, each once.

So is how many calls came, and were refused for what: of those no row is recorded.

What a server tells of a minute never changes. So the rows that a process answered in a minute are one file, whose name
is theirs: a minute that is fetched again finds it there. A server that has much tells it in pages of whole minutes;
each is kept before the next is asked for.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd

from release_platform.adapters.call_counts import table_of
from release_platform.adapters.recordings import CONFIDENCE, LABEL, PREDICTION_ID, Recordings
from release_platform.domain.data_spec import label_text
from release_platform.domain.ports import HandedSamples, Servers
from release_platform.domain.samples import Label, Sample
from release_platform.domain.windows import Route

MOST_ROWS = 200
"""Rows of a minute that are kept of each process, model and version, at most: 288,000 a day."""

MOST_PAGES = 20
"""How often a server is asked in a row; what it has beyond that is for the next time."""

_Place = tuple[str, str, int, str]
"""Model, version, minute and process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a fetch brought.

    Attributes:
        seen: The last minute of which each server told all, by its address.
        rows: How many rows are new, by model.
        labels: How many labels are new, by model.
        problems: A sentence for each server that did not hand in all.
    """

    seen: Mapping[str, int]
    rows: Mapping[str, int]
    labels: Mapping[str, int]
    problems: Sequence[str]


class SampledTraffic:
    """What one set of servers samples.

    Args:
        recordings: Where it is kept.
        labels: Where the labels of it are kept, by the day on which they came.
        servers: The servers.
        calls: Where is kept how many calls came, and were refused; None for nowhere.
        most_rows: Rows of a minute that are kept of each process, model and version, at most.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: Recordings,
        servers: Servers,
        *,
        calls: Recordings | None = None,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._recordings = recordings
        self._labels = labels
        self._servers = servers
        self._calls = calls
        self._most_rows = most_rows

    def collect(self, models: Collection[str], seen: Mapping[str, int]) -> Collected:
        """Keeps what clients were answered by some models since a server last told all.

        Args:
            models: Their names; samples of others are left.
            seen: `Collected.seen` of the fetch before; empty for none.

        Raises:
            Unavailable: The storage does not answer, or is full.
        """
        rows, labels, problems = Counter[str](), Counter[str](), list[str]()
        after, of = dict[str, int](), None
        for _ in range(MOST_PAGES):
            page = self._servers.samples({**seen, **after}, of=of)
            for handed in page:
                closed = seen.get(handed.url) if handed.closed is None else handed.closed
                if closed is not None:
                    after[handed.url] = max(closed, after.get(handed.url, closed))
                if handed.problem:
                    problems.append(f"{handed.url} does not hand in all samples: {handed.problem}")
            rows.update(self._keep_rows(models, page))
            labels.update(self._keep_labels(models, page))
            self._keep_calls(models, page)
            of = {handed.url for handed in page if handed.more}
            if not of:
                break
        return Collected(seen=after, rows=dict(rows), labels=dict(labels), problems=tuple(problems))

    def _keep_rows(self, models: Collection[str], page: Sequence[HandedSamples]) -> dict[str, int]:
        told, found = defaultdict[_Place, list[Sample]](list), Counter[str]()
        for one in (sample for handed in page for sample in handed.samples):
            if one.model in models and one.route is not Route.SHADOW:  # no client was told a shadow's answer
                told[one.model, one.version, one.minute, one.replica].append(one)
        for (model, version, minute, replica), samples in sorted(told.items()):
            table = rows_of(chosen(samples, self._most_rows))
            if self._recordings.add_new(model, version, _day_of(minute), table, name=f"{minute}-{replica}"):
                found[model] += len(table)
        return found

    def _keep_labels(self, models: Collection[str], page: Sequence[HandedSamples]) -> dict[str, int]:
        came, found = defaultdict[_Place, list[Label]](list), Counter[str]()
        for label in (one for handed in page for one in handed.labels):
            if label.model in models:
                came[label.model, label.version, label.minute, label.replica].append(label)
        for (model, version, minute, replica), labels in sorted(came.items()):
            table = labels_of(labels)
            if self._labels.add_new(model, version, _day_of(minute), table, name=f"{minute}-{replica}"):
                found[model] += len(table)
        return found

    def _keep_calls(self, models: Collection[str], page: Sequence[HandedSamples]) -> None:
        for one in (count for handed in page for count in handed.calls):
            if self._calls is not None and one.model in models:
                name, day = f"{one.minute}-{one.replica}", _day_of(one.minute)
                self._calls.add_new(one.model, one.version, day, table_of(one.calls), name=name)


def _day_of(minute: int) -> date:
    return datetime.fromtimestamp(minute * 60, UTC).date()


def labels_of(labels: Sequence[Label]) -> pd.DataFrame:
    """Returns labels as they are kept: as texts, since a version's classes are texts too."""
    told = {one.prediction_id: label_text(one.label) for one in labels}
    return pd.DataFrame({PREDICTION_ID: list(told), LABEL: list(told.values())}, dtype=object)


def chosen(samples: Sequence[Sample], most_rows: int) -> list[Sample]:
    """Returns as many samples as there is room for, at least one, each once, whatever is in them."""
    found: list[Sample] = []
    n_rows = 0
    for sample in sorted({one.prediction_id: one for one in samples}.values(), key=_place):
        if not found or n_rows + sample.n_rows <= most_rows:
            found.append(sample)
            n_rows += sample.n_rows
    return found


def rows_of(samples: Sequence[Sample]) -> pd.DataFrame:
    """Returns the rows of samples of one version as they are recorded; an input keeps its name, whatever it is."""
    return pd.concat([_table(sample) for sample in samples], ignore_index=True)


def _table(sample: Sample) -> pd.DataFrame:
    own: dict[str, Any] = {
        "prediction": list(sample.predictions),
        PREDICTION_ID: sample.prediction_id,
        "at": pd.Timestamp(sample.minute * 60, unit="s", tz="UTC"),
    }
    if sample.confidences is not None:
        own[CONFIDENCE] = list(sample.confidences)
    columns = {name: list(values) for name, values in sample.columns.items()}
    return pd.DataFrame({**own, **columns}, index=range(sample.n_rows))


def _place(sample: Sample) -> bytes:
    """Returns a place in an order that nothing in the request decides."""
    return hashlib.sha256(sample.prediction_id.encode()).digest()
