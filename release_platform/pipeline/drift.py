"""One run over recorded rows: what drifted, day by day and altogether, and how good the version probably still is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, assert_never

import numpy as np
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.distances import Difference, difference
from release_platform.domain.drift import Rows, WindowDrift, watch_all
from release_platform.domain.estimation import Calibration, Estimate, Quality, estimate_accuracy, estimate_binary
from release_platform.domain.history import MINIMUM_DAYS, MOST_APART, DayShape
from release_platform.domain.metrics import Task
from release_platform.domain.multivariate import ClassifierTest
from release_platform.domain.real_quality import (
    QUALITY_MARGIN,
    RealErrors,
    RealQuality,
    find_errors,
    find_quality,
    with_margin,
)
from release_platform.domain.reference import Reference, Summary, summarised
from release_platform.domain.refusals import Calls, added
from release_platform.pipeline.drift_reference import Known
from release_platform.pipeline.drift_rows import SCORE, Recorded, read_rows
from release_platform.pipeline.tracking import Labelled, Told, TrackedRows, tell, track

ALL_ROWS = 5_000
"""Rows of each side by which the classifier looks at all days together, which alarms do not judge."""


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What a run found.

    Attributes:
        reference: What the rows were held against.
        windows: Each day, in order.
        detector: The evidence after the last of them.
        altogether: The difference of all rows, by column.
        now: The summary of all rows, by column.
        together: How well a classifier tells all rows from training rows; None where they are too few.
        quality: The quality that is to be expected without labels; empty where it cannot be known.
        n_rows: All rows.
        real: The accuracy that labels show, of a regression the error, beside that of the held-out rows; None without
            labels.
        tracked: Of rows whose labels came what was expected beside what came: all of them, then by day.
    """

    reference: Reference
    windows: tuple[WindowDrift, ...]
    detector: Detector
    altogether: Mapping[str, Difference]
    now: Mapping[str, Summary]
    together: ClassifierTest | None
    quality: Mapping[Quality, Estimate]
    n_rows: int
    real: RealQuality | RealErrors | None = None
    tracked: tuple[TrackedRows, ...] = ()

    @property
    def labelled(self) -> TrackedRows | None:
        """All rows whose labels came; None where they are too few."""
        return self.tracked[0] if self.tracked else None

    @property
    def calls(self) -> Calls:
        """All calls that were counted."""
        return added(window.calls for window in self.windows if window.calls is not None)

    @property
    def calibrated_on(self) -> int:
        """How many recorded days the last day was judged by; 0 for none, when rows are taken to be independent."""
        return self.windows[-1].history.n_days if self.windows else 0

    @property
    def calibrated(self) -> str:
        """The same in a sentence."""
        if self.calibrated_on:
            return f"calibrated on: {self.calibrated_on} recorded days of this model"
        return f"calibrated on: 0 days; rows are taken to be independent until {MINIMUM_DAYS} days are recorded"

    @property
    def alarms(self) -> tuple[WindowDrift, ...]:
        """The days on which somebody should have looked."""
        return tuple(window for window in self.windows if window.drifted)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that alarmed, in the order of their first alarm."""
        named = [name for window in self.windows if window.alarm for name in window.alarm.columns]
        return tuple(dict.fromkeys(named))

    @property
    def schema(self) -> tuple[str, ...]:
        """What is wrong with the columns, each once."""
        return tuple(dict.fromkeys(sentence for window in self.windows for sentence in window.schema))

    @property
    def said(self) -> str:
        """The outcome in a sentence."""
        if not self.n_rows and not self.alarms:
            return "no rows: nothing can be said of drift"
        within = f"in {self.n_rows:,} rows of {len(self.windows)} day(s)"
        named = [*self.schema, *([", ".join(self.columns)] if self.columns else [])]
        drift = f"drift {within}: {'; '.join(named)}" if self.alarms else f"no drift {within}"
        return f"{self.real.said}; {drift}" if self.real is not None and self.real.fell else drift

    @property
    def is_fine(self) -> bool:
        """Whether there were rows, none drifted, and no label shows that the quality fell."""
        return bool(self.n_rows) and not self.alarms and not (self.real is not None and self.real.fell)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a JSON value."""
        return {
            "model": self.reference.model,
            "version": self.reference.version,
            "rows": self.n_rows,
            "drifted": bool(self.alarms),
            "columns": list(self.columns),
            "schema": list(self.schema),
            "budget": asdict(self.detector.budget),
            "calibrated_on": self.calibrated_on,
            "calls": _calls_json(self.calls),
            "windows": [_window_json(window) for window in self.windows],
            "altogether": {name: _difference_json(one) for name, one in self.altogether.items()},
            "domain_classifier": _test_json(self.together),
            "quality_without_labels": {quality.value: asdict(one) for quality, one in self.quality.items()},
            "real_quality": _real_json(self.real),
            "with_labels": [rows.to_json() for rows in self.tracked],
        }


def run(
    known: Known,
    package: ModelPackage,
    frame: pd.DataFrame,
    *,
    positive: object | None,
    budget: Budget,
    at: datetime,
    source: str,
    detector: Detector | None = None,
    labelled: Labelled | None = None,
    quality_margin: float = QUALITY_MARGIN,
    history: Sequence[DayShape] = (),
    before: pd.DataFrame | None = None,
    calls: Mapping[date, Calls] | None = None,
) -> DriftReport:
    """Returns what recorded rows show.

    Args:
        known: The version that they are held against.
        package: The same, loaded.
        frame: The rows; see `drift_rows`.
        positive: The positive class of a binary model; None for others.
        budget: What was promised.
        at: Where the window of rows without a time ends.
        source: Where the rows come from, for messages.
        detector: The evidence of the days before; None for none.
        labelled: Rows whose labels came, of these and of earlier days; None for none.
        quality_margin: By which share of the rows answers may be wrong more often than on held-out rows.
        history: The days before these, in order, to learn from.
        before: The rows of the last of them; None where nobody has them.
        calls: By day how many calls came, and were refused; None where nobody counted.

    Raises:
        SourceError: The rows' times cannot be read.
    """
    recorded = read_rows(frame, package, positive, source=source)
    reference = with_margin(known.reference, quality_margin)
    told = None if labelled is None else tell(labelled, package, positive=positive, source=source)
    begun = Detector.of(reference.watched, budget) if detector is None else detector

    def classify(rows: Rows) -> ClassifierTest | None:
        return known.classifier.test(rows.columns, window=rows.begins.date().isoformat())

    def tell_apart(rows_before: Rows, rows: Rows) -> ClassifierTest | None:
        if (rows.begins - rows_before.begins).days > MOST_APART:
            return None
        return known.classifier.apart(rows_before.columns, rows.columns, window=rows.begins.date().isoformat())

    after, windows = watch_all(
        reference,
        begun,
        _with_calls(_days(recorded, told, until=at), calls or {}),
        classify=classify,
        tell_apart=tell_apart,
        days=history,
        before=None if before is None else _last_day(before, package, source=source),
    )
    columns = {**recorded.columns(), **({} if told is None else told.on(None))}
    there = {
        name: columns[name]
        for name, summary in reference.every.items()
        if name in columns and len(columns[name]) and summary.n_rows
    }
    now = {name: summarised(values) for name, values in there.items()}
    compared = {name for name in now if type(now[name]) is type(reference.every[name])}
    return DriftReport(
        reference=reference,
        windows=windows,
        detector=after,
        altogether={name: difference(reference.every[name], there[name]) for name in there if name in compared},
        now=now,
        together=replace(known.classifier, most_rows=ALL_ROWS).test(recorded.features, window="altogether"),
        quality=expected_quality(recorded, known.calibration, is_binary=positive is not None),
        n_rows=recorded.n_rows,
        real=_real(reference, told, package.task, quality_margin),
        tracked=() if told is None else track(told, known.calibration, positive=positive),
    )


def _last_day(frame: pd.DataFrame, package: ModelPackage, *, source: str) -> Rows | None:
    """Returns the features of the last day of some rows; the model is asked nothing."""
    recorded = read_rows(frame, package, None, source=source, most_asked=0)
    days = recorded.days(until=datetime.max.replace(tzinfo=UTC)) if recorded.at is not None else ()
    return days[-1] if days else None


def _days(recorded: Recorded, told: Told | None, *, until: datetime) -> tuple[Rows, ...]:
    """Returns the rows of each day, with what the labels say that came on it, of whatever day their rows are."""
    days = recorded.days(until=until)
    if told is None:
        return days
    dated = recorded.at is not None
    return tuple(replace(rows, told=told.on(rows.begins.date() if dated else None)) for rows in days)


def _with_calls(days: Sequence[Rows], calls: Mapping[date, Calls]) -> tuple[Rows, ...]:
    """Returns days with the calls that came on them, and those on which calls came of which no row is there."""
    found = {rows.begins: replace(rows, calls=calls.get(rows.begins.date())) for rows in days}
    for day in calls.keys() - {rows.begins.date() for rows in days}:
        begins = datetime.combine(day, time(), tzinfo=UTC)
        found[begins] = Rows(begins=begins, ends=begins + timedelta(days=1), columns={}, calls=calls[day])
    return tuple(rows for _, rows in sorted(found.items()))


def _real(reference: Reference, told: Told | None, task: Task, margin: float) -> RealQuality | RealErrors | None:
    if told is None or told.errors is None:
        return None
    find = find_errors if task is Task.REGRESSION else find_quality
    return find(reference, told.errors, margin)


def _real_json(found: RealQuality | RealErrors | None) -> dict[str, Any] | None:
    match found:
        case None:
            return None
        case RealQuality():
            return {**asdict(found), "fell_by": list(found.fell_by), "fell": found.fell}
        case RealErrors():
            return {**asdict(found), "grew_by": list(found.grew_by), "fell": found.fell}
        case _:
            assert_never(found)


def expected_quality(
    recorded: Recorded, calibration: Calibration | None, *, is_binary: bool
) -> dict[Quality, Estimate]:
    """Returns the quality that recorded scores let expect; empty for a regression, or where no score is known."""
    if calibration is None or SCORE not in recorded.outputs:
        return {}
    scores = np.asarray(recorded.outputs[SCORE], dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    if is_binary:
        return estimate_binary(scores, calibration)
    return {Quality.ACCURACY: estimate_accuracy(scores, calibration)}


def _window_json(window: WindowDrift) -> dict[str, Any]:
    return {
        "begins": window.begins.isoformat(),
        "ends": window.ends.isoformat(),
        "rows": window.n_rows,
        "calls": None if window.calls is None else _calls_json(window.calls),
        "alarm": [] if window.alarm is None else list(window.alarm.columns),
        "schema": list(window.schema),
        "calibrated_on": window.history.n_days,
        "psi": {name: one.psi for name, one in window.found.items()},
        "domain_classifier": _test_json(window.together),
    }


def _calls_json(calls: Calls) -> dict[str, Any]:
    return {"answered": calls.answered, "refused": calls.refused, "shares": calls.shares}


def _test_json(found: ClassifierTest | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _difference_json(one: Difference) -> dict[str, Any]:
    values = asdict(one)
    return {**values.pop("distance"), **values}
