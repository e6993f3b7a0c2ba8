"""What a `defs.yaml` says of how a model is trained: derived features, estimator, search, and where a fit computes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from release_platform.domain.features import Operation
from release_platform.domain.spec_rules import STRICT

_POWER_OF_TEN = re.compile(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedSpec:
    """A feature that is computed row by row, in training and in serving alike."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str
    operation: Operation
    of: tuple[str, ...]


class Numeric(StrEnum):
    """What happens to numeric features before the estimator."""

    PASS = "pass"  # for estimators that take missing values and any scale
    IMPUTE = "impute"
    STANDARDIZE = "standardize"  # impute the median, then zero mean and unit variance


class Categorical(StrEnum):
    """What happens to categorical features before the estimator."""

    ONE_HOT = "one_hot"
    ORDINAL = "ordinal"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingSpec:
    """The fitted steps in front of the estimator; they are part of the model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    numeric: Numeric = Numeric.STANDARDIZE
    categorical: Categorical = Categorical.ONE_HOT
    minimum_frequency: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.minimum_frequency < 0.5:
            raise ValueError("minimum_frequency is a share above 0 and below 0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorSpec:
    """The estimator: a scikit-learn class by its import path, with its parameters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    type: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: PreprocessingSpec = field(default_factory=PreprocessingSpec)

    def __post_init__(self) -> None:
        if not self.type.startswith("sklearn.") or self.type.count(".") < 2:
            raise ValueError(
                f"'{self.type}' is not a scikit-learn class such as sklearn.linear_model.LogisticRegression"
            )
        _check_numbers(self.parameters.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """A seeded random search over estimator parameters, cross-validated inside the training rows.

    Attributes:
        parameters: Values to try, by parameter name.
        n_candidates: How many combinations are tried.
        folds: Cross-validation folds; for a time split they respect time.
        metric: What is optimised; None: the task's primary metric.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    parameters: Mapping[str, tuple[Any, ...]]
    n_candidates: int = 10
    folds: int = 3
    metric: str | None = None

    def __post_init__(self) -> None:
        if not self.parameters or any(not values for values in self.parameters.values()):
            raise ValueError("a search needs parameters, each with at least one value")
        if self.n_candidates < 1 or self.folds < 2:
            raise ValueError("a search needs at least 1 candidate and 2 folds")
        _check_numbers((name, value) for name, values in self.parameters.items() for value in values)


def _check_numbers(parameters: Iterable[tuple[str, Any]]) -> None:
    for name, value in parameters:
        if isinstance(value, str) and (found := _POWER_OF_TEN.fullmatch(value)):
            whole, fraction, sign, exponent = found.groups()
            raise ValueError(
                f"{name}: YAML reads {value} as text; write {whole}{fraction or '.0'}e{sign or '+'}{exponent}"
            )


class TrainingEngine(StrEnum):
    """Where a fit computes."""

    LOCAL = "local"
    DASK = "dask"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """Where a model is trained; it does not change what comes of it.

    Attributes:
        engine: In the process of the run, or on the workers of a Dask cluster.
        scheduler: Address of the cluster's scheduler, for `dask`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    engine: TrainingEngine = TrainingEngine.LOCAL
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.engine is TrainingEngine.LOCAL and self.scheduler:
            raise ValueError("the engine 'local' takes no scheduler; write `engine: dask`")
        if self.engine is TrainingEngine.DASK and not re.fullmatch(r"(tcp|tls)://[^\s/]+:\d+", self.scheduler):
            raise ValueError(f"the engine 'dask' needs a scheduler like tcp://host:8786, not '{self.scheduler}'")


class Onnx(StrEnum):
    """Whether a version carries the model in ONNX (double precision) beside skops."""

    AUTO = "auto"  # where the estimator converts
    REQUIRED = "required"
    OFF = "off"
