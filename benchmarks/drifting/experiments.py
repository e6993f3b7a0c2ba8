"""How often each rule is wrong on stationary days, and after how many days it finds a shift."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.drifting import streams
from benchmarks.drifting.rules import EVIDENTLY_SHARE, by_evidently, by_p_value
from benchmarks.drifting.streams import Shift
from release_platform.domain.alarms import DAYS, Budget, Detector
from release_platform.domain.drift import Rows, WindowDrift, watch_all
from release_platform.domain.history import DayShape
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.pipeline.drift_reference import Known

COLUMNS = (10, 50, 100, 200)
ROWS = (200, 2000)
"""Rows of a day."""
SHIFT_COLUMNS, SHIFT_ROWS, PATIENCE = 50, 1000, 40
DAYS_BEFORE = 20
"""Stationary days before a shift, on which alarms are calibrated, as where a version answered for a while."""
RULES = ("ours", "p_value", "evidently")
SHIFTS = (
    Shift(said="one column + 0.1 standard deviations", apply=streams.moved("c0", 0.1)),
    Shift(said="one column + 0.2 standard deviations", apply=streams.moved("c0", 0.2)),
    Shift(said="one column + 0.5 standard deviations", apply=streams.moved("c0", 0.5)),
    Shift(said="one column spread 1.5 times as wide", apply=streams.spread("c0", 1.5)),
    Shift(said="every normal column + 0.1", apply=streams.moved_all(0.1)),
    Shift(said="one column: 5 % become missing", apply=streams.lost("c0", 0.05)),
    Shift(said="one column: 10 % become an unseen category", apply=streams.replaced("c4", 0.1, "unseen")),
    Shift(said="one column: 25 % become the most frequent category", apply=streams.replaced("c4", 0.25, "category 0")),
    Shift(said="one column hangs together with others the other way round", apply=streams.turned("c0")),
)


def stationary(n_columns: int, n_rows: int, *, n_days: int, seed: int) -> dict[str, Any]:
    """Returns alarms per 30 days of each rule over stationary days, from the first recorded one on."""
    rng = np.random.default_rng([seed, n_columns, n_rows])
    days = _Days.begun(streams.known(rng, n_columns, n_rows))
    alarms = dict.fromkeys(("ours", "p_value", "evidently_column", "evidently_dataset"), 0)
    for _ in range(n_days):
        days, shown = days.next(streams.day(rng, n_columns, n_rows))
        drifted = by_evidently(shown.found)
        alarms["ours"] += shown.alarm is not None
        alarms["p_value"] += bool(by_p_value(shown.found))
        alarms["evidently_column"] += bool(drifted)
        alarms["evidently_dataset"] += len(drifted) >= EVIDENTLY_SHARE * n_columns
    each = {name: count / n_days * DAYS for name, count in alarms.items()}
    return {"columns": n_columns, "rows": n_rows, "days": n_days, **each}


def delays(*, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Returns for each shift after how many days each rule names a shifted column, or all columns together."""
    days: dict[str, dict[str, list[float]]] = {shift.said: {rule: [] for rule in RULES} for shift in SHIFTS}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        before = _Days.begun(streams.known(rng, SHIFT_COLUMNS, SHIFT_ROWS))
        for _ in range(DAYS_BEFORE):
            before, _shown = before.next(_day(rng))
        for shift in SHIFTS:
            for rule, found in _first_days(before, shift, rng).items():
                days[shift.said][rule].append(found)
    return [
        {"said": said, **{rule: _summary(found) for rule, found in by_rule.items()}} for said, by_rule in days.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """The recorded days of a version so far: what it is held against, the evidence, and what the days teach."""

    known: Known
    detector: Detector
    shapes: tuple[DayShape, ...] = ()
    last: Rows | None = None

    @staticmethod
    def begun(known: Known) -> "_Days":
        return _Days(known=known, detector=Detector.of(known.reference.watched, Budget(per_month=1.0)))

    def next(self, columns: streams.Columns) -> "tuple[_Days, WindowDrift]":
        """Returns the days with one more, and what that one shows."""
        rows = streams.rows_of(columns, len(self.shapes))
        classifier, window = self.known.classifier, str(rows.begins.date())
        detector, (shown,) = watch_all(
            self.known.reference,
            self.detector,
            [rows],
            classify=lambda now: classifier.test(now.columns, window=window),
            tell_apart=lambda before, now: classifier.apart(before.columns, now.columns, window=window),
            days=self.shapes,
            before=self.last,
        )
        assert shown.shape is not None
        return replace(self, detector=detector, shapes=(*self.shapes, shown.shape), last=rows), shown


def _first_days(days: _Days, shift: Shift, rng: np.random.Generator) -> dict[str, float]:
    first: dict[str, float] = {}
    for number in range(1, PATIENCE + 1):
        before = _day(rng)
        after = shift.apply(before, rng)
        touched = [name for name in after if after[name] is not before[name]]
        days, shown = days.next(after)
        described = {name: shown.found[name] for name in touched}
        told = {
            "ours": set(shown.alarm.columns if shown.alarm else ()),
            "p_value": by_p_value(described),
            "evidently": by_evidently(described),
        }
        for rule, columns in told.items():
            if columns.intersection([*touched, DOMAIN_CLASSIFIER]):
                first.setdefault(rule, number)
        if len(first) == len(told):
            break
    return {rule: first.get(rule, float("inf")) for rule in RULES}


def _day(rng: np.random.Generator) -> streams.Columns:
    return streams.day(rng, SHIFT_COLUMNS, SHIFT_ROWS)


def _summary(days: Sequence[float]) -> dict[str, Any]:
    found = np.sort(days)
    middle, late = (float(found[int(np.ceil(share * len(found))) - 1]) for share in (0.5, 0.9))
    return {
        "found": float(np.isfinite(found).mean()),
        "median": middle if np.isfinite(middle) else None,
        "late": late if np.isfinite(late) else None,
    }
