"""Rows that clients sent, as drift looks at them: a version's features and what it says, day by day.

A table of recorded rows has the version's inputs, and may have `at` (when, UTC), `prediction`, and `probability` (of
the positive class, or of the class that was answered) or, as servers record it, `confidence` (of the class that was
answered). What it lacks of answer and probability is asked of the model, of at most `MOST_ASKED` rows of a day: a
sample shows their distribution as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.recordings import CONFIDENCE
from release_platform.domain.data_spec import label_text
from release_platform.domain.drift import Rows
from release_platform.domain.errors import SourceError
from release_platform.domain.features import MISSING, Column, ColumnType, FeaturePlan, Input
from release_platform.domain.metrics import Task
from release_platform.pipeline.features import plan_column
from release_platform.pipeline.profile import typed

AT, PREDICTION, PROBABILITY = "at", "prediction", "probability"
SCORE = "score"
"""How the probability is called among the outputs; what is answered, a label or a number, is the `prediction`."""
MOST_ASKED = 5_000
"""Rows of a day that the model is asked again, at most."""
_ASKED_AT_ONCE = 100_000

Moments = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Recorded rows in memory.

    Attributes:
        features: Each feature that could be computed, shape (n_rows,).
        outputs: `prediction`, and `score`, where they are known, shape (n_rows,).
        asked: The rows whose answer is known to what the model was asked again, shape (n_rows,), bool; None for all.
        asked_for: The outputs that it was asked again; all others are known of all rows.
        at: When each row was answered, shape (n_rows,), UTC; None where nobody kept it.
        schema: What is wrong with the columns, in a sentence each.
        n_rows: How many there are.
    """

    features: Mapping[str, Column]
    outputs: Mapping[str, Column]
    at: Moments | None
    schema: tuple[str, ...]
    n_rows: int
    asked: Mask | None = None
    asked_for: frozenset[str] = frozenset()

    def columns(self, rows: Places | None = None) -> dict[str, Column]:
        """Returns features and outputs of some rows, or of all: of an output those that are known."""
        found = {}
        for name, values in {**self.features, **self.outputs}.items():
            wanted = slice(None) if rows is None else rows
            if self.asked is not None and name in self.asked_for:
                wanted = np.flatnonzero(self.asked) if rows is None else rows[self.asked[rows]]
            found[name] = values[wanted]
        return found

    def days(self, *, until: datetime) -> tuple[Rows, ...]:
        """Returns the rows of each day with rows, in order; of rows without a time one window that ends at `until`."""
        if self.at is None or self.n_rows == 0:
            begins = until - timedelta(days=1)
            return (Rows(begins=begins, ends=until, columns=self.columns(), schema=self.schema),) if self.n_rows else ()
        found = []
        for rows in _by_day(self.at):
            begins = datetime.combine(self.at[rows[0]].astype("datetime64[D]").item(), time(), tzinfo=UTC)
            ends = begins + timedelta(days=1)
            found.append(Rows(begins=begins, ends=ends, columns=self.columns(rows), schema=self.schema))
        return tuple(found)


def read_rows(
    frame: pd.DataFrame,
    package: ModelPackage,
    positive: object | None,
    *,
    source: str,
    most_asked: int | None = MOST_ASKED,
) -> Recorded:
    """Returns recorded rows.

    Args:
        frame: The table.
        package: The version that answered them.
        positive: The positive class of a binary model; None for others.
        source: Where they come from, for messages.
        most_asked: Rows of a day that the model is asked again, at most; None for all.

    Raises:
        SourceError: `at` holds no times, or is missing in a row.
    """
    plan = package.plan
    read = {column.name: _input(frame, column, source) for column in plan.inputs}
    inputs, known = {name: values for name, (values, _) in read.items()}, set(read)
    broken = {name: problem for name, (_, problem) in read.items() if problem}
    touched = _touched(plan, broken)
    features = {name: values for name, values in plan.apply(inputs).items() if name not in touched}
    told = frame[[name for name in (PREDICTION, PROBABILITY, CONFIDENCE) if name in frame and name not in known]]
    outputs = _recorded(told, package, positive)
    at = _moments(frame[AT], source) if AT in frame and AT not in known else None
    asked, recorded = None, frozenset(outputs)
    if not broken and len(frame) and len(outputs) < (1 if package.task is Task.REGRESSION else 2):
        asked = _asked(at, len(frame), most_asked)
        some = {name: values[asked] for name, values in inputs.items()}
        said = answers(package, some, positive, n_rows=int(asked.sum()))
        outputs = {name: _spread(values, asked) for name, values in said.items()} | outputs
    return Recorded(
        features=features,
        outputs=outputs,
        at=at,
        schema=tuple(broken.values()),
        n_rows=len(frame),
        asked=asked,
        asked_for=frozenset(outputs) - recorded,
    )


def _by_day(at: Moments) -> list[Places]:
    days = at.astype("datetime64[D]")
    order = np.argsort(days, kind="stable")
    starts = np.flatnonzero(np.diff(days[order].astype(np.int64), prepend=-(2**62)))
    return np.split(order, starts[1:])


def _asked(at: Moments | None, n_rows: int, most: int | None) -> Mask:
    """Returns which rows the model is asked: all of a day, or as many as it may be, evenly spread over the day's."""
    if most is None:
        return np.ones(n_rows, dtype=np.bool_)
    asked = np.zeros(n_rows, dtype=np.bool_)
    for rows in [np.arange(n_rows)] if at is None else _by_day(at):
        asked[rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.intp)]] = True
    return asked


def _spread(values: Column, asked: Mask) -> Column:
    """Returns answers to some rows at their places among all; others are missing."""
    found: Column = np.full(len(asked), MISSING if values.dtype.kind == "O" else np.nan, dtype=values.dtype)
    found[asked] = values
    return found


def answers(
    package: ModelPackage, inputs: Mapping[str, Column], positive: object | None, *, n_rows: int
) -> dict[str, Column]:
    """Returns what a version says of rows: `prediction`, and of a classifier `score`."""
    parts = []
    for first in range(0, n_rows, _ASKED_AT_ONCE):
        rows = {name: values[first : first + _ASKED_AT_ONCE] for name, values in inputs.items()}
        parts.append(outputs_of(package, package.predict(rows), positive))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def outputs_of(package: ModelPackage, said: Any, positive: object | None) -> dict[str, Column]:
    """Returns predictions as drift looks at them: numbers or labels, and of a classifier `score`."""
    if said.probabilities is None:
        return {PREDICTION: np.asarray(said.values, dtype=np.float64)}
    place = None if positive is None else package.classes.index(positive)
    score = said.probabilities.max(axis=1) if place is None else said.probabilities[:, place]
    return {PREDICTION: np.array([label_text(one) for one in said.values], dtype=object), SCORE: score}


def class_text(label: object, classes: Sequence[object]) -> str:
    """Returns a label as classes are written; of a column with gaps pandas makes 1.0 of 1, which is no other class."""
    text = label_text(label)
    if text not in classes and isinstance(label, float) and label.is_integer():
        return label_text(int(label))
    return text


def _input(frame: pd.DataFrame, column: Input, source: str) -> tuple[Column, str]:
    if column.name not in frame:
        return _absent(column, len(frame)), f"the input '{column.name}' is missing"
    try:
        conformed = typed(frame[[column.name]], {column.name: column.type}, source=source)
    except SourceError as error:
        return _absent(column, len(frame)), f"the input '{column.name}' is no {column.type}: {error.problem}"
    return plan_column(conformed[column.name], column.type), ""


def _absent(column: Input, n_rows: int) -> Column:
    match column.type:
        case ColumnType.CATEGORY:
            return np.full(n_rows, MISSING, dtype=object)
        case ColumnType.TIMESTAMP:
            return np.full(n_rows, np.datetime64("NaT", "us"))
        case _:
            return np.full(n_rows, np.nan)


def _touched(plan: FeaturePlan, broken: Iterable[str]) -> set[str]:
    """Returns the inputs that are broken, and what is derived from them."""
    touched = set(broken)
    for step in plan.derived:
        if touched.intersection(step.of):
            touched.add(step.name)
    return touched


def _recorded(frame: pd.DataFrame, package: ModelPackage, positive: object | None) -> dict[str, Column]:
    found: dict[str, Column] = {}
    if PREDICTION in frame:
        values = frame[PREDICTION]
        if package.task is Task.REGRESSION:
            found[PREDICTION] = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            codes, known = pd.factorize(values, use_na_sentinel=True)
            texts = [class_text(one, package.classes) for one in known.tolist()]
            found[PREDICTION] = np.array([*texts, MISSING], dtype=object)[codes]
    if PROBABILITY in frame:
        found[SCORE] = frame[PROBABILITY].to_numpy(dtype=np.float64, na_value=np.nan)
    elif CONFIDENCE in frame and PREDICTION in found and frame[CONFIDENCE].notna().all():  # else rows are older
        of_answer = frame[CONFIDENCE].to_numpy(dtype=np.float64)
        is_positive = positive is None or found[PREDICTION] == label_text(positive)
        found[SCORE] = np.where(is_positive, of_answer, 1 - of_answer)
    return found


def _moments(column: "pd.Series[Any]", source: str) -> Moments:
    given = typed(column.to_frame(), {AT: ColumnType.TIMESTAMP}, source=source)[AT]
    missing = given.isna().to_numpy()
    if missing.any():
        raise SourceError(
            "a row has no time",
            remedy="record when it was answered",
            source=source,
            row=int(missing.argmax()) + 1,
            column=AT,
        )
    return given.to_numpy(dtype="datetime64[us]")
