"""Drift: which columns of what clients send, and of what they are told, are no longer as the version was trained on.

What is missing, new or of another kind is known, not estimated: it is told as it is and uses up no budget. How many
calls were refused, of which no row is recorded, is judged within it. Everything else is a `Difference` of a column, or
a classifier's test of all columns together, judged over time by a `Detector` (`alarms` says what is promised), with
what the days before taught (`history`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from release_platform.domain.alarms import Alarm, Detector, Evidence, learned_floor
from release_platform.domain.distances import Difference, Distance, difference, distance
from release_platform.domain.features import Column
from release_platform.domain.history import DayShape, History, learned_history, shape_of
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER, ClassifierTest
from release_platform.domain.reference import (
    REAL_ERROR,
    REAL_LOSS,
    REFUSED_CALLS,
    Categories,
    Numbers,
    Reference,
    Summary,
    of_numbers,
)
from release_platform.domain.refusals import Calls

_KNOWN_WELL = 10**9
NOTHING = History()
"""Where nothing was learned yet: rows are taken to be independent."""


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
        shape: What later windows learn from it; None where it has no rows.
        history: What was learned before it.
        calls: How many calls came, and were refused; None where nobody counted.
    """

    begins: datetime
    ends: datetime
    n_rows: int
    found: Mapping[str, Difference]
    schema: tuple[str, ...]
    alarm: Alarm | None
    after: Detector
    together: ClassifierTest | None = None
    shape: DayShape | None = None
    history: History = NOTHING
    calls: Calls | None = None

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
        told: What labels that came in the window say, of its rows or of earlier ones: each of shape (n_labels,).
        calls: How many calls came, and were refused; None where nobody counted.
    """

    begins: datetime
    ends: datetime
    columns: Mapping[str, Column]
    schema: tuple[str, ...] = ()
    told: Mapping[str, Column] = field(default_factory=dict)
    calls: Calls | None = None

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
TellApart = Callable[["Rows", "Rows"], ClassifierTest | None]
"""Tests all columns of a window against those of the one before it, as alike as can be to how `Classify` does."""


def watch(
    reference: Reference,
    detector: Detector,
    rows: Rows,
    *,
    together: ClassifierTest | None = None,
    apart: ClassifierTest | None = None,
    history: History = NOTHING,
) -> tuple[Detector, WindowDrift]:
    """Returns the detector after one window, and what that window shows; one without rows and calls changes nothing.

    Args:
        reference: What the rows are held against.
        detector: The evidence before.
        rows: The window.
        together: What a classifier says of all its columns; None for nothing.
        apart: What one says of them and those of the window before; None for nothing.
        history: What the days before taught.
    """
    columns = {**rows.columns, **{name: values for name, values in rows.told.items() if len(values)}}
    found = {
        name: difference(summary, columns[name])
        for name, summary in reference.every.items()
        if rows.n_rows and summary.n_rows and name in columns and _alike(summary, columns[name])
    }
    schema = rows.schema or (schema_changes(reference, rows.columns) if rows.n_rows else ())
    judged: dict[str, Evidence] = {name: one.distance for name, one in found.items()}
    for name in found.keys() & {REAL_ERROR, REAL_LOSS}:
        judged[name] = _if_worse(found[name].distance, reference.every[name], columns[name])
    judged |= {} if together is None else {DOMAIN_CLASSIFIER: together}
    if rows.calls is not None and rows.calls.n_calls:
        judged[REFUSED_CALLS] = _from_none_refused(rows.calls)
    day = rows.begins.date()
    floors = history.floors(reference.floors, day, smallest=detector.budget.smallest)
    after, alarm = detector.look(history.judged(judged), floors) if rows.n_rows or judged else (detector, None)
    return after, WindowDrift(
        begins=rows.begins,
        ends=rows.ends,
        n_rows=rows.n_rows,
        found=found,
        schema=schema,
        alarm=alarm,
        after=after,
        together=together,
        shape=_shape(
            reference, rows, {name: columns[name] for name in found}, apart, alarm if history.is_settled else None
        ),
        history=history,
        calls=rows.calls,
    )


def watch_all(
    reference: Reference,
    detector: Detector,
    windows: Sequence[Rows],
    *,
    classify: Classify | None = None,
    tell_apart: TellApart | None = None,
    days: Sequence[DayShape] = (),
    before: Rows | None = None,
) -> tuple[Detector, tuple[WindowDrift, ...]]:
    """Returns the same for windows in the order of their time, each of which learns from those before it.

    Args:
        reference: What the rows are held against.
        detector: The evidence before.
        windows: The windows.
        classify: Tests all columns of each.
        tell_apart: Tests them against those of the window before.
        days: The days before the first window, in order, to learn from.
        before: The rows of the last of these; None where nobody has them.
    """
    shown, known = [], list(days)
    for rows in windows:
        drift: WindowDrift
        detector, drift = watch(
            reference,
            detector,
            rows,
            together=classify(rows) if classify else None,
            apart=tell_apart(before, rows) if tell_apart and before is not None else None,
            history=learned_history(known, reference.every, reference.floors),
        )
        known += [drift.shape] if drift.shape is not None else []
        shown.append(drift)
        before = rows
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


def _shape(
    reference: Reference, rows: Rows, columns: Mapping[str, Column], apart: ClassifierTest | None, alarm: Alarm | None
) -> DayShape | None:
    n_rows = {name: len(values) for name, values in columns.items()}
    shares = {name: shape_of(reference.every[name], values) for name, values in columns.items()}
    if rows.calls is not None and rows.calls.n_calls:
        n_rows[REFUSED_CALLS], shares[REFUSED_CALLS] = rows.calls.n_calls, (round(rows.calls.share, 6),)
    if not n_rows:
        return None
    return DayShape(
        version=reference.version,
        day=rows.begins.date(),
        n_rows=n_rows,
        shares=shares,
        apart=apart,
        left_out=frozenset() if alarm is None else frozenset(alarm.columns),
    )


def _from_none_refused(calls: Calls) -> Distance:
    """Returns how far calls are away from none being refused, which is known and not estimated."""
    n, share = calls.n_calls, calls.share
    return Distance(share=share, expected=0.0, n_rows=n, n_reference=_KNOWN_WELL, missing=share, missing_before=0.0)


def _if_worse(found: Distance, summary: Summary, now: Column) -> Distance:
    """Returns the distance of errors that grew; of those that did not, none: they are no evidence of anything bad."""
    assert isinstance(summary, Numbers)
    return found if of_numbers(np.asarray(now, dtype=np.float64)).mean > summary.mean else replace(found, share=0.0)


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
