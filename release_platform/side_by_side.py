"""Recorded rows, answered by two versions one row at a time, as requests of one row are."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.recordings import PREDICTION_ID, first_places, places_of
from release_platform.domain.features import InputError, Inputs
from release_platform.domain.flips import SliceFlips, flip_report
from release_platform.domain.identity import digest_of
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.domain.replay import QUANTILES
from release_platform.domain.slices import Slices, slices_of
from release_platform.domain.windows import EVERY_SLICE, Route, Window, WindowKey, find_flip

MOST_ROWS = 5000
"""Rows that are asked, at most."""
WARM_UP = 10
"""Rows that both are asked before, so that nothing is timed which only a first request needs."""
Row = Mapping[str, Any]
Timer = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a version said to a row: an answer, or why it refused."""

    answer: str | float | None = None
    refusal: str = ""
    ms: float = 0.0
    inputs: Inputs | None = None


@dataclass(slots=True, kw_only=True)
class Told:
    """What both said to all rows, while it grows."""

    refused: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    n_answered: int = 0
    n_refused: int = 0
    pairs: list[tuple[tuple[str, ...], str | None]] = field(default_factory=list)

    def add(self, stable: Answered, candidate: Answered, slices: tuple[str, ...]) -> None:
        """Counts a row."""
        for counted, one in zip(self.refused, (stable, candidate), strict=True):
            if one.refusal:
                counted[one.refusal] += 1
        self.n_answered += not stable.refusal
        self.n_refused += bool(candidate.refusal and not stable.refusal)
        if stable.answer is not None and candidate.answer is not None:
            self.pairs.append((slices, find_flip(stable.answer, candidate.answer)))
            for times, one in zip(self.ms, (stable, candidate), strict=True):
                times.append(one.ms)

    def flips(self, model: str, candidate: str) -> tuple[SliceFlips, ...]:
        """Returns what changes in which slices, as for a shadow; nothing without a row that both answer."""
        if not self.pairs:
            return ()
        kept = Slices()
        for slices, _ in self.pairs:
            kept.counted(model, slices)  # first all rows: a column with too many values is left out whole
        pairs, flips = Counter[str](), dict[str, Counter[str]]()
        for slices, flip in self.pairs:
            for name in (EVERY_SLICE, *kept.counted(model, slices)):
                pairs[name] += 1
                if flip is not None:
                    flips.setdefault(name, Counter())[flip] += 1
        key = WindowKey(model=model, version=candidate, route=Route.SHADOW, minute=0)
        return flip_report([Window(key=key, requests=len(self.pairs), pairs=pairs, flips=flips)])

    def latency_ms(self, place: int) -> dict[str, float]:
        """Returns the quantiles of the times of one of the two; none without a row that both answer."""
        if not self.ms[place]:
            return {}
        return {name: float(np.quantile(self.ms[place], at)) for name, at in QUANTILES.items()}


def chosen_rows(frame: pd.DataFrame, columns: Sequence[str], most: int = MOST_ROWS) -> list[Row]:
    """Returns rows as the JSON values that clients sent, at most so many, in an order that no request decides.

    The same table gives the same rows in the same order, in whatever order its files were read.

    Args:
        frame: Recorded rows.
        columns: The inputs of both versions; one that is not recorded is absent from every row.
        most: How many.
    """
    if PREDICTION_ID in frame:  # only of those that may be taken is everything looked at
        frame = frame[first_places(places_of(frame[PREDICTION_ID]), most)]
    there = [name for name in dict.fromkeys(columns) if name in frame]
    values = [[_sent(value) for value in frame[name].tolist()] for name in there]
    ids = frame[PREDICTION_ID].astype(str).tolist() if PREDICTION_ID in frame else [""] * len(frame)
    rows = [dict(zip(there, row, strict=True)) for row in zip(*values, strict=True)] if there else [{} for _ in ids]
    placed = sorted(
        ((hashlib.sha256(of.encode()).hexdigest(), digest_of(row), row) for of, row in zip(ids, rows, strict=True)),
        key=lambda one: one[:2],
    )
    return [row for _, _, row in placed[:most]]


def ask_both(
    stable: ModelPackage, candidate: ModelPackage, rows: Sequence[Row], *, timer: Timer = perf_counter
) -> Told:
    """Returns what two versions say to rows; they take turns in being first, so that neither has the warmer machine."""
    for row in rows[:WARM_UP]:
        for package in (stable, candidate):
            ask(package, row, timer)
    told = Told()
    for place, row in enumerate(rows):
        if place % 2:
            after, before = ask(candidate, row, timer), ask(stable, row, timer)
        else:
            before, after = ask(stable, row, timer), ask(candidate, row, timer)
        told.add(before, after, () if before.inputs is None else slices_of(stable.plan, before.inputs))
    return told


def ask(package: ModelPackage, row: Row, timer: Timer = perf_counter) -> Answered:
    """Returns what a version says to one row, by the rules of a request."""
    absent = next((column.name for column in package.plan.inputs if column.name not in row), None)
    if absent is not None:
        return Answered(refusal=f"absent column: {absent}")
    started = timer()
    try:
        inputs = package.inputs_of({column.name: [row[column.name]] for column in package.plan.inputs})
    except InputError as error:
        kind = "missing value" if row[error.field] is None else "wrong value"
        return Answered(refusal=f"{kind}: {error.field}")
    try:
        predictions = package.predict(inputs)
    except Exception as error:  # noqa: BLE001 - whatever a model raises is what a client would have got no answer for
        return Answered(refusal=f"failed: {type(error).__name__}", inputs=inputs)
    ms = (timer() - started) * 1000
    if not _finite(predictions):
        return Answered(refusal="not finite", inputs=inputs)
    value = predictions.values.item(0)
    return Answered(answer=float(value) if package.task is Task.REGRESSION else str(value), ms=ms, inputs=inputs)


def _finite(predictions: Predictions) -> bool:
    numbers = predictions.values if predictions.probabilities is None else predictions.probabilities
    return bool(np.isfinite(numbers).all())


def _sent(value: object) -> object:
    """Returns a recorded value as a client sends it."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.isoformat() if isinstance(value, datetime | date) else value
