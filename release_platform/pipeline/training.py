"""Fits a model: the preprocessing and the estimator as one scikit-learn pipeline, seeded and deterministic."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from release_platform.domain.data_spec import SplitStrategy
from release_platform.domain.errors import TrainingError
from release_platform.domain.features import ColumnType
from release_platform.domain.metrics import PRIMARY, Task
from release_platform.domain.prediction import Predictions
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import Categorical, EstimatorSpec, Numeric, PreprocessingSpec
from release_platform.pipeline.training_engine import training_engine

SCORERS = {
    "roc_auc": "roc_auc",
    "log_loss": "neg_log_loss",
    "accuracy": "accuracy",
    "macro_f1": "f1_macro",
    "mae": "neg_mean_absolute_error",
    "rmse": "neg_root_mean_squared_error",
    "r2": "r2",
}
"""The metrics that a search can optimise, as scikit-learn names their scorers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """A fitted pipeline.

    Attributes:
        pipeline: Takes a frame of features (float64 and object columns) in the plan's order.
        classes: The labels in the order of its probabilities; empty for a regression.
        parameters: All parameters of the estimator, those found by a search included.
        fit_s: How long fitting took, in seconds.
        candidates: What a search tried: parameters and mean score each; empty without one.
    """

    pipeline: Any
    classes: tuple[str, ...]
    parameters: Mapping[str, object]
    fit_s: float
    candidates: tuple[Mapping[str, object], ...] = ()

    def predict(self, features: Mapping[str, npt.NDArray[Any]]) -> Predictions:
        """Returns what the pipeline says of rows given by feature: values, or probabilities and the class's number."""
        frame = pd.DataFrame(dict(features))
        if not self.classes:
            return Predictions(values=np.asarray(self.pipeline.predict(frame), dtype=np.float64))
        return numbered(np.asarray(self.pipeline.predict_proba(frame), dtype=np.float64))


def numbered(raw: npt.NDArray[np.float64]) -> Predictions:
    """Returns an engine's raw output as predictions whose labels are the classes' numbers."""
    return Predictions(values=raw) if raw.ndim == 1 else Predictions(values=raw.argmax(axis=1), probabilities=raw)


def fit(spec: ModelSpec, features: pd.DataFrame, target: npt.NDArray[Any]) -> FittedModel:
    """Returns the model fitted on the training rows.

    Args:
        spec: The model.
        features: Shape (n_rows, n_features), in the plan's order.
        target: Shape (n_rows,): float64, or text labels.

    Raises:
        TrainingError: The estimator cannot be built or does not fit this data.
        Unavailable: It is to be trained on a cluster that does not answer.
        Refused: It is to be trained on a cluster that would not give the same model.
    """
    from threadpoolctl import threadpool_limits

    pipeline = build_pipeline(spec)
    started = perf_counter()
    candidates: tuple[Mapping[str, object], ...] = ()
    try:
        with (
            training_engine(spec.training),
            threadpool_limits(limits=1, user_api="blas"),
        ):  # sums in one order, on any number of cores
            if spec.search is None:
                pipeline.fit(features, target)
            else:
                pipeline, candidates = _search(spec, pipeline, features, target)
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"{spec.name}: {spec.estimator.type} cannot be fitted: {str(error).splitlines()[0]}",
            remedy="correct `estimator` or `search` in the model's defs.yaml",
        ) from error
    except MemoryError as error:
        raise TrainingError(
            f"{spec.name}: {spec.estimator.type} does not fit into memory on {len(features):,} rows",
            remedy="use fewer rows or features, a smaller estimator, or a machine with more memory",
        ) from error
    estimator = pipeline.named_steps["estimator"]
    return FittedModel(
        pipeline=pipeline,
        classes=() if spec.task is Task.REGRESSION else tuple(str(label) for label in pipeline.classes_),
        parameters=dict(estimator.get_params(deep=False)),
        fit_s=perf_counter() - started,
        candidates=candidates,
    )


def build_pipeline(spec: ModelSpec) -> Any:
    """Returns the unfitted pipeline of a model.

    Raises:
        TrainingError: The estimator does not exist, is of another kind, or does not take a parameter.
    """
    from sklearn.pipeline import Pipeline

    return Pipeline(
        [
            ("preprocessing", _preprocessing(spec.estimator.preprocessing, spec.plan.types)),
            ("estimator", _estimator(spec.estimator, spec.task, spec.seed)),
        ]
    )


def _estimator(described: EstimatorSpec, task: Task, seed: int) -> Any:
    from sklearn.base import is_classifier, is_regressor

    remedy = "correct `estimator` in the model's defs.yaml"
    module, _, name = described.type.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise TrainingError(f"there is no estimator {described.type}", remedy=remedy) from None
    known = inspect.signature(kind).parameters
    unknown = sorted(set(described.parameters) - set(known))
    if unknown:
        raise TrainingError(
            f"{described.type} has no parameter {', '.join(unknown)}; it has {', '.join(known)}", remedy=remedy
        )
    seeded = {"random_state": seed} if "random_state" in known else {}
    estimator = kind(**{**seeded, **described.parameters})
    if not (is_regressor(estimator) if task is Task.REGRESSION else is_classifier(estimator)):
        raise TrainingError(f"{described.type} is not for a {task} model", remedy=remedy)
    if task is not Task.REGRESSION and not hasattr(estimator, "predict_proba"):
        raise TrainingError(
            f"{described.type} gives no probabilities with these parameters",
            remedy="choose a classifier with predict_proba, e.g. sklearn.linear_model.LogisticRegression",
        )
    return estimator


def _preprocessing(described: PreprocessingSpec, types: Mapping[str, ColumnType]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numeric = [name for name, kind in types.items() if kind is not ColumnType.CATEGORY]
    categories = [name for name, kind in types.items() if kind is ColumnType.CATEGORY]
    steps: list[tuple[str, Any, list[str]]] = []
    imputer = ("impute", SimpleImputer(strategy="median"))
    match described.numeric:
        case Numeric.PASS:
            steps.append(("numeric", "passthrough", numeric))
        case Numeric.IMPUTE:
            steps.append(("numeric", Pipeline([imputer]), numeric))
        case Numeric.STANDARDIZE:
            steps.append(("numeric", Pipeline([imputer, ("scale", StandardScaler())]), numeric))
    match described.categorical:
        case Categorical.ONE_HOT:
            encoder: Any = OneHotEncoder(
                handle_unknown="infrequent_if_exist", min_frequency=described.minimum_frequency, sparse_output=False
            )
        case Categorical.ORDINAL:
            encoder = OrdinalEncoder(
                handle_unknown="use_encoded_value",
                unknown_value=-1,
                min_frequency=described.minimum_frequency,
                encoded_missing_value=-1,
            )
    steps.append(("categorical", encoder, categories))
    return ColumnTransformer([step for step in steps if step[2]], verbose_feature_names_out=False)


def _search(
    spec: ModelSpec, pipeline: Any, features: pd.DataFrame, target: npt.NDArray[Any]
) -> tuple[Any, tuple[Mapping[str, object], ...]]:
    from sklearn.model_selection import RandomizedSearchCV

    assert spec.search is not None
    search = RandomizedSearchCV(
        pipeline,
        {f"estimator__{name}": list(values) for name, values in spec.search.parameters.items()},
        n_iter=_n_candidates(spec),
        scoring=SCORERS[spec.search.metric or PRIMARY[spec.task]],
        cv=_folds(spec),
        random_state=spec.seed,
        error_score="raise",
    )
    search.fit(features, target)
    results = search.cv_results_
    tried = tuple(
        {**{k.removeprefix("estimator__"): v for k, v in p.items()}, "score": float(score)}
        for p, score in zip(results["params"], results["mean_test_score"], strict=True)
    )
    return search.best_estimator_, tried


def _n_candidates(spec: ModelSpec) -> int:
    assert spec.search is not None
    combinations = int(np.prod([len(values) for values in spec.search.parameters.values()]))
    return min(spec.search.n_candidates, combinations)


def _folds(spec: ModelSpec) -> Any:
    from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit

    assert spec.search is not None
    if spec.split.strategy is SplitStrategy.TIME:
        return TimeSeriesSplit(n_splits=spec.search.folds)
    kind = KFold if spec.task is Task.REGRESSION else StratifiedKFold
    return kind(n_splits=spec.search.folds, shuffle=True, random_state=spec.seed)
