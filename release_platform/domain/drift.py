"""Drift: which columns of what clients send, and of what they are told, are no longer as the version was trained on.

What is missing, new or of another kind is known, not estimated: it is told as it is and uses up no budget. Everything
else is a `Difference` of a column, or a classifier's test of all columns together, judged over time by a `Detector`
(`alarms` says what is promised).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from release_platform.domain.alarms import Alarm, Detector, Evidence, learned_floor
from release_platform.domain.distances import Difference, Distance, difference, distance
from release_platform.domain.features import Column
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER, ClassifierTest
from release_platform.domain.reference import Categories, Numbers, Reference, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDrift:
    """What one window shows.

    Attributes:
        begins: Its first moment, included.
        ends: Its last moment, not included.
        n_rows: Its rows.
        found: The difference of each column that could be compared.
        schema: What columns are missing or of another kind, in a sentence each.
        alarm: What it raised; None for nothing.
        after: The evidence after it.
        together: How well a classifier tells its rows from the reference; None where it was not asked, or of few rows.
    """

    begins: datetime
    ends: datetime
    n_rows: int
    found: Mapping[str, Difference]
    schema: tuple[str, ...]
    alarm: Alarm | None
    after: Detector
    together: ClassifierTest | None = None

    @property
    def drifted(self) -> bool:
        """Whether somebody should look."""
        return self.alarm is not None or bool(self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one window.

    Attributes:
        begins: Its first moment, included.
        ends: Its last moment, not included.
        columns: Each column of shape (n_rows,), as `summarised` takes it.
        schema: What whoever read them found wrong with the columns, in a sentence each.
    """

    begins: datetime
    ends: datetime
    columns: Mapping[str, Column]
    schema: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """How many there are."""
        return max((len(column) for column in self.columns.values()), default=0)


def with_floors(
    columns: Mapping[str, Summary], history: Sequence[Mapping[str, Column]], *, own: bool = True
) -> dict[str, float]:
    """Returns the learned floor of each column.

    Args:
        columns: The reference's summaries.
        history: Past windows without drift.
        own: Whether these are rows of the reference: then each is held against the reference without it.
    """
    return {name: learned_floor(_past(summary, name, history, own)) for name, summary in columns.items()}


Classify = Callable[["Rows"], ClassifierTest | None]
"""Tests all columns of a window together; None where its rows are too few."""


def watch(
    reference: Reference, detector: Detector, rows: Rows, *, together: ClassifierTest | None = None
) -> tuple[Detector, WindowDrift]:
    """Returns the detector after one window, and what that window shows; one without rows shows and changes nothing.

    Args:
        reference: What the rows are held against.
        detector: The evidence before.
        rows: The window.
        together: What a classifier says of all its columns; None for nothing.
    """
    found = {
        name: difference(summary, rows.columns[name])
        for name, summary in reference.every.items()
        if rows.n_rows and name in rows.columns and _alike(summary, rows.columns[name])
    }
    schema = rows.schema or (schema_changes(reference, rows.columns) if rows.n_rows else ())
    judged: dict[str, Evidence] = {name: one.distance for name, one in found.items()}
    judged |= {} if together is None else {DOMAIN_CLASSIFIER: together}
    after, alarm = detector.look(judged, reference.floors) if rows.n_rows else (detector, None)
    return after, WindowDrift(
        begins=rows.begins,
        ends=rows.ends,
        n_rows=rows.n_rows,
        found=found,
        schema=schema,
        alarm=alarm,
        after=after,
        together=together,
    )


def watch_all(
    reference: Reference, detector: Detector, windows: Sequence[Rows], *, classify: Classify | None = None
) -> tuple[Detector, tuple[WindowDrift, ...]]:
    """Returns the same for windows in the order of their time; `classify` tests each of them."""
    shown = []
    for rows in windows:
        detector, drift = watch(reference, detector, rows, together=classify(rows) if classify else None)
        shown.append(drift)
    return detector, tuple(shown)


def schema_changes(reference: Reference, columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Returns which columns are missing or of another kind, in a sentence each; outputs may be missing."""
    told = []
    for name, summary in reference.every.items():
        if name not in columns:
            if name in reference.columns:
                told.append(f"the column '{name}' is missing")
        elif not _alike(summary, columns[name]):
            was, now = ("numbers", "text") if isinstance(summary, Numbers) else ("text", "numbers")
            told.append(f"the column '{name}' held {was} and now holds {now}")
    return tuple(told)


def _alike(summary: Summary, column: Column) -> bool:
    return isinstance(summary, Categories) == (column.dtype.kind == "O")


def _past(summary: Summary, name: str, history: Sequence[Mapping[str, Column]], own: bool) -> tuple[Distance, ...]:
    there = [window[name] for window in history if name in window and len(window[name]) and summary.n_rows]
    each = [distance(summary, column) for column in there]
    return tuple(_without(one) if own else one for one in each)


def _without(found: Distance) -> Distance:
    """Returns the distance from the reference without the window, which is a part of it."""
    n, m = found.n_rows, found.n_reference
    if n >= m:
        return replace(found, share=0.0, missing_before=found.missing)
    missing = min(max((m * found.missing_before - n * found.missing) / (m - n), 0.0), 1.0)
    return replace(found, share=min(found.share * m / (m - n), 1.0), missing_before=missing)
