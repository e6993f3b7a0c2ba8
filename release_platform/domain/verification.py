"""What a live server must answer to the golden rows, and what is wrong with what it does answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import Input
from release_platform.domain.prediction import Predictions

IN_HEADERS = ("version", "digest", "epoch")
"""What every answer says of itself in its headers, whatever its protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRun:
    """The golden rows of a version, and what its model said of them just now.

    Attributes:
        engine: What computed the answers, `onnx` or `skops`.
        inputs: The columns that the model takes, in order.
        columns: The JSON values of each of them, all of one length, at least one.
        classes: The labels of a classifier in the order of its probabilities; empty for a regression.
        answers: One per row.
    """

    engine: str
    inputs: tuple[Input, ...]
    columns: Mapping[str, Sequence[Any]]
    classes: tuple[Any, ...]
    answers: Predictions

    @property
    def n_rows(self) -> int:
        """How many golden rows there are."""
        return len(self.answers.values)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The golden rows as records."""
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a server must answer: the version in Production, by the ledger, and the numbers of the registry's model.

    Attributes:
        model: The model's name.
        version: The version that stands in Production.
        digest: `D(v)`, by the ledger's row.
        epoch: The epoch of the move by which it stands there.
        golden: The golden rows with their answers.
    """

    model: str
    version: str
    digest: str
    epoch: int
    golden: GoldenRun

    @property
    def names(self) -> dict[str, str]:
        """All that an answer may say of itself, as text."""
        names = {"model": self.model, "version": self.version, "digest": self.digest, "epoch": str(self.epoch)}
        return names | {"engine": self.golden.engine}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one answer said.

    Attributes:
        body: What it says of itself in its body: some of model, version, digest, epoch and engine, as text.
        headers: The same in its headers; what is absent there is absent here.
        numbers: Probabilities of shape (n, k), or the values of a regression of shape (n,).
        labels: One per row, where the protocol tells them.
        as_text: Whether it can tell labels as text only.
        classes: The classes as text, in the order of the probabilities, where the protocol tells them.
    """

    body: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str]
    numbers: npt.NDArray[np.float64]
    labels: Sequence[Any] | None = None
    as_text: bool = False
    classes: Sequence[str] | None = None


def problem_of(told: Told, expected: Expected) -> str:
    """Returns what is wrong with an answer, in one sentence; empty when it is equal to the last bit.

    An answer that names something else is not compared any further: its numbers are those of something else.
    """
    named = "; ".join(_misnamed(told, expected))
    if named:
        return f"the answer names {named}"
    answers = expected.golden.answers
    wanted = answers.values if answers.probabilities is None else answers.probabilities
    if told.numbers.shape != wanted.shape:
        return f"answers of shape {told.numbers.shape} instead of {wanted.shape}"
    if told.classes is not None and list(told.classes) != [str(label) for label in expected.golden.classes]:
        return f"the classes are {', '.join(told.classes)} in this order, but they should be {_classes(expected)}"
    return _other_number(told.numbers, wanted, expected) or _other_label(told, answers.values.tolist())


def difference_of(told: Told, expected: Expected) -> float:
    """Returns the largest difference of a number; infinite where the shapes differ, 0 where only labels do."""
    answers = expected.golden.answers
    return answers.difference(
        Predictions(values=told.numbers, probabilities=None if answers.probabilities is None else told.numbers)
    )


def _misnamed(told: Told, expected: Expected) -> Iterator[str]:
    headers = {name: told.headers.get(name, "nothing") for name in IN_HEADERS}
    for name, wanted in expected.names.items():
        said = {place: names[name] for place, names in (("body", told.body), ("headers", headers)) if name in names}
        wrong = {place: value for place, value in said.items() if value != wanted}
        if wrong:
            where = "" if len(wrong) == len(said) else f" in its {next(iter(wrong))}"
            yield f"{name} {' and '.join(dict.fromkeys(wrong.values()))}{where}, but it should be {wanted}"


def _other_label(told: Told, labels: Sequence[Any]) -> str:
    if told.labels is None:
        return ""
    wanted = [str(label) for label in labels] if told.as_text else labels
    pairs = list(zip(told.labels, wanted, strict=False))
    rows = [row for row, (found, label) in enumerate(pairs) if type(found) is not type(label) or found != label]
    if len(told.labels) != len(wanted):
        return f"{len(told.labels)} labels for {len(wanted)} rows"
    return f"{_place(rows, len(wanted))}: label {pairs[rows[0]][0]!r} instead of {pairs[rows[0]][1]!r}" if rows else ""


def _other_number(found: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], expected: Expected) -> str:
    bits = [np.ascontiguousarray(numbers, dtype=np.float64).view(np.int64) for numbers in (found, wanted)]
    places = np.argwhere(bits[0] != bits[1])
    if not len(places):
        return ""
    first = tuple(places[0].tolist())
    of_class = f", '{expected.golden.classes[first[1]]}'" if len(first) > 1 else ""
    largest = float(np.max(np.abs(found - wanted)))
    rows = sorted({int(place[0]) for place in places})
    return (
        f"{_place(rows, len(wanted))}{of_class}: {float(found[first])!r} instead of {float(wanted[first])!r}; "
        f"the largest difference of a number is {largest:.3g}"
    )


def _place(rows: Sequence[int], n_rows: int) -> str:
    return f"row {rows[0]}" + (f" (and {len(rows) - 1} more of {n_rows})" if len(rows) > 1 else "")


def _classes(expected: Expected) -> str:
    return ", ".join(str(label) for label in expected.golden.classes)
