"""Trains a registered version again from what was recorded, and compares the fitted models and their answers."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from release_platform.adapters.model_package import load_package
from release_platform.domain.errors import IntegrityError
from release_platform.domain.features import as_column
from release_platform.domain.identity import Manifest, digest_of_model
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import TrainingSpec
from release_platform.pipeline.causes import all_compared, code_differences, surrounding_differences
from release_platform.pipeline.environment import environment, file_digests
from release_platform.pipeline.features import build_feature_table, read_features
from release_platform.pipeline.training import fit
from release_platform.project import parse_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was recorded when a version was trained.

    Attributes:
        model_digest: Canonical digest of the registered model.
        environment: `environment` as it was then.
        code: `file_digests` as they were then; empty for versions older than that record.
    """

    model_digest: str
    environment: Mapping[str, str]
    code: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of training a version again.

    Attributes:
        recorded: Canonical digest of the model that was registered.
        found: The same of the model that was trained again.
        differences: What of code and surroundings differs from the recorded ones, in a sentence each.
        compared: All that was compared, in words.
        n_golden_rows: How many golden rows both models answered.
        answers_differ_by: Largest difference of an answer to a golden row; NaN where one is not finite (null in JSON).
    """

    recorded: str
    found: str
    differences: tuple[str, ...]
    compared: tuple[str, ...]
    n_golden_rows: int
    answers_differ_by: float

    @property
    def same_model(self) -> bool:
        """Whether parameters and fitted arrays are equal."""
        return self.recorded == self.found

    @property
    def same_answers(self) -> bool:
        """Whether every answer to the golden rows is equal to the last bit; NaN is not."""
        return self.answers_differ_by == 0.0

    @property
    def same(self) -> bool:
        """Whether the version is reproduced."""
        return self.same_model and self.same_answers

    def to_json(self) -> dict[str, Any]:
        """Returns the reproduction as a JSON value."""
        judged = {"same": self.same, "same_model": self.same_model, "same_answers": self.same_answers}
        by = self.answers_differ_by if math.isfinite(self.answers_differ_by) else None
        return {**judged, **asdict(self), "answers_differ_by": by}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Reproduction":
        """Returns the reproduction that `to_json` wrote."""
        return Reproduction(
            recorded=value["recorded"],
            found=value["found"],
            differences=tuple(value["differences"]),
            compared=tuple(value["compared"]),
            n_golden_rows=int(value["n_golden_rows"]),
            answers_differ_by=math.nan if value["answers_differ_by"] is None else value["answers_differ_by"],
        )


def reproduce(folder: Path, manifest: Manifest, raw: pd.DataFrame, *, recorded: Recorded, place: Path) -> Reproduction:
    """Returns what came of training a version again from its raw data, its spec and its seed, in this process.

    Args:
        folder: The version's files.
        manifest: Their manifest.
        raw: The raw data that it was trained on.
        recorded: What was recorded then.
        place: The folder of the model's project, for its own files and the commit that is checked out now.

    Raises:
        IntegrityError: A file is not the recorded one.
    """
    package = load_package(folder, manifest, engine="skops")
    spec = replace(recorded_spec(folder / "release.json"), training=TrainingSpec())  # wherever it was trained
    table = read_features(build_feature_table(raw, spec))
    fitted = fit(spec, table.features[~table.held_out], table.target[~table.held_out])
    inputs = package.golden["inputs"]
    columns = {column.name: as_column(column, inputs[column.name]) for column in package.plan.inputs}
    answers = package.predict(columns)
    now, code = environment(place), file_digests(place)
    return Reproduction(
        recorded=recorded.model_digest,
        found=digest_of_model(fitted.pipeline),
        differences=_differences(recorded, now, code),
        compared=all_compared(recorded.environment, now, len(recorded.code)),
        n_golden_rows=len(answers.values),
        answers_differ_by=answers.difference(fitted.predict(package.plan.apply(columns))),
    )


def _differences(recorded: Recorded, now: Mapping[str, str], code: Mapping[str, str]) -> tuple[str, ...]:
    then = recorded.environment
    commits = (then.get("git_commit", "unknown"), now["git_commit"])
    asked = os.environ.get("OPENBLAS_CORETYPE")
    return (
        *code_differences(recorded.code, code, commits=commits),
        *surrounding_differences(then, now, asked_core=asked),
    )


def recorded_spec(file: Path) -> ModelSpec:
    """Returns the spec that a version was trained by, from its `release.json`.

    Raises:
        IntegrityError: It carries none.
    """
    described = json.loads(file.read_bytes()).get("spec")
    if described is None:
        raise IntegrityError(
            "this version carries no spec: it was registered before versions did",
            remedy="register the model again; new versions can be reproduced",
        )
    return parse_spec(described, file=file)
