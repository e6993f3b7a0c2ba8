"""A sampled request: the rows that a server answered and what it answered; and what would have been right."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from release_platform.domain.json_form import exactly
from release_platform.domain.windows import Route

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION = re.compile(r"[0-9]{1,18}")
_PREDICTION = re.compile(r"[A-Za-z0-9_]{1,64}-[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A request that was answered.

    Attributes:
        prediction_id: Its id, which no other prediction of any server has: the process's name and a number.
        model: The model's name.
        version: The version that answered.
        route: By which route.
        minute: When, in minutes since 1970.
        columns: The values of each input, all of one length; None for what is missing.
        predictions: What was answered to each row.
        confidences: The probability of each answer, 0 to 1; None of a regression, and where a server tells none.
    """

    prediction_id: str
    model: str
    version: str
    route: Route
    minute: int
    columns: Mapping[str, Sequence[Any]]
    predictions: Sequence[Any]
    confidences: Sequence[float] | None = None

    def __post_init__(self) -> None:
        said = ((_MODEL, self.model), (_VERSION, self.version), (_PREDICTION, self.prediction_id))
        if not all(pattern.fullmatch(text) for pattern, text in said):  # they become names of files
            raise ValueError(f"the sample {self.prediction_id!r} of {self.model!r} {self.version!r} has no sane names")
        if any(len(values) != self.n_rows for values in self.columns.values()):
            raise ValueError(f"the columns of the sample {self.prediction_id} have not one length")
        if self.confidences is not None and len(self.confidences) != self.n_rows:
            raise ValueError(f"not each answer of the sample {self.prediction_id} has its probability")

    @property
    def n_rows(self) -> int:
        """How many rows it has."""
        return len(self.predictions)

    @property
    def replica(self) -> str:
        """The name of the process that answered."""
        return self.prediction_id.rpartition("-")[0]

    @staticmethod
    def from_json(value: object) -> "Sample":
        """Returns the sample that a server tells.

        Raises:
            ValueError: It is none.
        """
        told = isinstance(value, dict) and "confidences" in value  # a server of an older version tells none
        more: dict[str, Any] = {"confidences": (list, type(None))} if told else {}
        of = exactly(
            value,
            "sample",
            prediction_id=str,
            model=str,
            version=str,
            route=str,
            minute=int,
            n_rows=int,
            columns=dict,
            predictions=list,
            **more,
        )
        if not all(isinstance(values, list) for values in of["columns"].values()):
            raise ValueError(f"the columns of the sample {of['prediction_id']} are no lists")
        kept = {name: of[name] for name in ("prediction_id", "model", "version", "minute", "columns", "predictions")}
        confidences = of.get("confidences")
        if confidences is not None and not all(isinstance(one, float | int) for one in confidences):
            raise ValueError(f"a probability of the sample {of['prediction_id']} is no number")
        return Sample(route=Route(of["route"]), confidences=confidences, **kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What would have been right of a prediction of the sample, as a client told it later.

    Attributes:
        prediction_id: The prediction's id.
        model: The model's name.
        version: The version that answered.
        minute: When it was told, in minutes since 1970.
        label: The label, or a regression's number.
    """

    prediction_id: str
    model: str
    version: str
    minute: int
    label: str | int | float

    def __post_init__(self) -> None:
        said = ((_MODEL, self.model), (_VERSION, self.version), (_PREDICTION, self.prediction_id))
        if not all(pattern.fullmatch(text) for pattern, text in said):  # they become names of files
            raise ValueError(
                f"the label of {self.prediction_id!r} of {self.model!r} {self.version!r} has no sane names"
            )

    @property
    def replica(self) -> str:
        """The name of the process that answered."""
        return self.prediction_id.rpartition("-")[0]

    @staticmethod
    def from_json(value: object) -> "Label":
        """Returns the label that a server tells.

        Raises:
            ValueError: It is none.
        """
        kinds = (str, int, float, bool)
        return Label(**exactly(value, "label", prediction_id=str, model=str, version=str, minute=int, label=kinds))
