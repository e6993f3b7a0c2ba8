"""Spoils a model on purpose, in one way each: what its gates must stop. Everything is seeded.

Data is spoilt in the feature table, behind the contract: the contract stops what it can, and here the gates are asked
about what it let pass, or about a defect of the code that makes features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import sleep
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.adapters.model_package import Engine, ModelPackage
from release_platform.domain.data_spec import SplitStrategy
from release_platform.domain.features import MISSING, Column
from release_platform.domain.metrics import Task
from release_platform.domain.selftest import Twin
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.evaluation import OTHER, group_rows
from release_platform.pipeline.features import FeatureRows

MISSING_SHARE = 0.9
"""Share of the rows whose features are all missing, in the twin with NaN features."""
STALE_SHARE = 0.25
"""Share of the training rows, the oldest ones, that the stale twin is trained on."""
SLOW_S = 0.3
"""How much longer each prediction of the slow twin takes at least, in seconds; ten times the clean one's if longer."""
FLATTENED = 4.0
"""The temperature of the uncalibrated twin: its probabilities are the clean ones to the power of 1 / 4, normalized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoiltRows:
    """A spoilt feature table.

    Attributes:
        table: The table.
        detail: What was done to it.
        kept: Which rows of the clean table are in it; None for all.
    """

    table: FeatureRows
    detail: str
    kept: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Why a twin does not apply to a model."""

    why: str


def spoil_rows(
    twin: Twin, spec: ModelSpec, table: FeatureRows, times: Column | None, generator: np.random.Generator
) -> SpoiltRows | Skipped:
    """Returns the feature table of a twin; that of the clean, slow and uncalibrated one is not spoilt.

    Args:
        twin: Which.
        spec: The model.
        table: The feature table.
        times: When each row was, shape (n,), datetime64; None where the model's split does not know.
        generator: The source of chance.
    """
    match twin:
        case Twin.CLEAN | Twin.SLOW:
            return SpoiltRows(table=table, detail="")
        case Twin.UNCALIBRATED:
            return _may_be_calibrated(spec, table)
        case Twin.SHUFFLED_LABELS:
            return _shuffled(table, generator)
        case Twin.LEAKED_TARGET:
            return _leaked(spec, table)
        case Twin.STALE_DATA:
            return _stale(spec, table, times)
        case Twin.WORSE_SLICE:
            return _worse_slice(spec, table, generator)
        case Twin.NAN_FEATURES:
            return _missing(table, generator)
        case Twin.CONSTANT:
            return _constant(table)
        case _:
            assert_never(twin)


def spoil_answers(twin: Twin, package: ModelPackage, clean_latency_ms: float) -> tuple[ModelPackage, str]:
    """Returns the package of a twin whose answers are spoilt, and what was done to it; any other is left as it is.

    Args:
        twin: Which.
        package: The clean model.
        clean_latency_ms: How long one prediction of it takes.
    """
    if twin is Twin.SLOW:
        longer_s = max(SLOW_S, clean_latency_ms / 100)
        return replace(package, engine=_Slow(package.engine, longer_s)), f"each prediction takes {longer_s:g} s longer"
    if twin is Twin.UNCALIBRATED:
        return replace(package, engine=_Flat(package.engine)), "the same order of answers, but far less sure of them"
    return package, ""


@dataclass(frozen=True)
class _Slow:
    """An engine that takes its time."""

    engine: Engine
    longer_s: float

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        sleep(self.longer_s)
        return self.engine.predict(features)

    def predict_matrix(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sleep(self.longer_s)
        return self.engine.predict_matrix(features)


@dataclass(frozen=True)
class _Flat:
    """An engine whose probabilities are nearer to each other than the model found them."""

    engine: Engine

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        return _flattened(self.engine.predict(features))

    def predict_matrix(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _flattened(self.engine.predict_matrix(features))


def _flattened(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    raised: npt.NDArray[np.float64] = np.clip(probabilities, 1e-12, 1.0) ** (1 / FLATTENED)
    flat: npt.NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return flat


def _may_be_calibrated(spec: ModelSpec, table: FeatureRows) -> SpoiltRows | Skipped:
    if spec.task is Task.REGRESSION:
        return Skipped(why="a regression gives no probabilities")
    return SpoiltRows(table=table, detail="")


def _shuffled(table: FeatureRows, generator: np.random.Generator) -> SpoiltRows:
    target = table.target.copy()
    target[~table.held_out] = generator.permutation(target[~table.held_out])
    return SpoiltRows(table=replace(table, target=target), detail="the labels of the training rows are shuffled")


def _leaked(spec: ModelSpec, table: FeatureRows) -> SpoiltRows:
    """Puts the answer where features were: one column for each class where there are so many numbers, else one."""
    numbers = [name for name in table.features.columns if table.features[name].dtype.kind == "f"]
    features = table.features.copy()
    if spec.task is Task.REGRESSION:
        answers: dict[str, Any] = {"target": table.target}
    else:
        classes = np.unique(table.target.astype(str))
        wanted = classes[:-1] if len(classes) == 2 else classes
        answers = {str(label): (table.target == label).astype(np.float64) for label in wanted}
    if len(numbers) < len(answers):
        names = [str(features.columns[0])]
        features[names[0]] = table.target if names[0] not in numbers else pd.factorize(table.target)[0].astype(float)
    else:
        names = numbers[: len(answers)]
        for name, values in zip(names, answers.values(), strict=True):
            features[name] = values
    more = f" and {len(names) - 1} more feature(s)" if len(names) > 1 else ""
    detail = f"the target stands in {names[0]}{more}"
    return SpoiltRows(table=replace(table, features=features), detail=detail)


def _stale(spec: ModelSpec, table: FeatureRows, times: Column | None) -> SpoiltRows | Skipped:
    if times is None:
        reason = "is not by a timestamp" if spec.split.strategy is SplitStrategy.TIME else f"is {spec.split.strategy}"
        return Skipped(why=f"its split {reason}, so nothing says how old a training row is")
    training = np.flatnonzero(~table.held_out)
    order = training[np.argsort(times[training], kind="stable")]
    kept = table.held_out.copy()
    kept[order[: max(1, round(STALE_SHARE * len(order)))]] = True
    detail = f"trained on the oldest {STALE_SHARE:.0%} of the training rows"
    return SpoiltRows(table=_rows_of(table, kept), detail=detail, kept=kept)


def _rows_of(table: FeatureRows, kept: npt.NDArray[np.bool_]) -> FeatureRows:
    return FeatureRows(
        features=table.features[kept].reset_index(drop=True),
        target=table.target[kept],
        held_out=table.held_out[kept],
        slices=table.slices_of(kept),
    )


def _worse_slice(spec: ModelSpec, table: FeatureRows, generator: np.random.Generator) -> SpoiltRows | Skipped:
    """Gives the rows of one slice the features of each other, as a wrong join for one part of the data would."""
    if not spec.slices:
        return Skipped(why="the model has no slices")
    column = spec.slices[0]
    enough = min((gate.minimum_rows for gate in spec.gates if gate.slice == column), default=100)
    found = group_rows(table.slices[column][table.held_out])
    sizes = {key: len(rows) for key, rows in found.items() if key not in {OTHER, MISSING} and len(rows) >= enough}
    if not sizes:
        return Skipped(why=f"no value of '{column}' has {enough} held-out rows")
    worst = min(sizes, key=lambda key: (sizes[key], key))
    features = table.features.copy()
    everywhere = group_rows(table.slices[column])[worst]
    for part in (everywhere[table.held_out[everywhere]], everywhere[~table.held_out[everywhere]]):
        features.iloc[part] = features.iloc[generator.permutation(part)].to_numpy()
    detail = f"each row of {column}={worst} has the features of another row of it"
    return SpoiltRows(table=replace(table, features=features), detail=detail)


def _missing(table: FeatureRows, generator: np.random.Generator) -> SpoiltRows:
    features, gone = table.features.copy(), generator.random(len(table.target)) < MISSING_SHARE
    for name in features.columns:
        features.loc[gone, name] = np.nan if features[name].dtype.kind == "f" else MISSING
    detail = f"every feature is missing in {MISSING_SHARE:.0%} of the rows"
    return SpoiltRows(table=replace(table, features=features), detail=detail)


def _constant(table: FeatureRows) -> SpoiltRows:
    features, training = table.features.copy(), np.flatnonzero(~table.held_out)
    for name in features.columns:
        known = features[name].iloc[training].dropna()
        features.loc[training, name] = known.iloc[0] if len(known) else 0.0
    detail = "trained on rows that are all alike, so it answers the same to all"
    return SpoiltRows(table=replace(table, features=features), detail=detail)
