"""What a `defs.yaml` says of a model. A `ModelSpec` that exists is consistent.

pydantic builds these dataclasses from YAML at the edge (`component.py`); `__pydantic_config__` tells it to refuse
unknown keys. Rules that span fields live in `__post_init__`, so that no other door can build a wrong spec either.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from math import inf, isfinite
from typing import Any, ClassVar

from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.features import ColumnType, Derived, FeaturePlan, Input, Operation
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.freshness_spec import Aging, FreshnessSpec
from release_platform.domain.identity import digest_of
from release_platform.domain.metrics import METRICS, PRIMARY, SEARCHABLE, Task, metrics_for
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.domain.retrain_spec import RetrainSpec
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.strategy import RolloutSpec

STRICT: dict[str, Any] = {"extra": "forbid"}
RESERVED_NAMES = frozenset({"latest"})
_TEN_YEARS_S = 3650 * 86400.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_POWER_OF_TEN = re.compile(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)")


def label_text(label: object) -> str:
    """Returns the text of a label: `true` and `false` for booleans, what `str` gives for anything else."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _suggest(word: str, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSource:
    """A query against a SQLAlchemy URL. `url` may be `env:NAME`, read when the data is."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    url: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """A data file shipped inside an installed package, found without importing the package."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    package: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where the raw data comes from: exactly one of these.

    Attributes:
        csv: Path, glob or `s3://` address of CSV files (`.gz`, `.bz2`, `.zip`, `.xz` are unpacked).
        parquet: Path, glob or `s3://` address of Parquet files.
        sql: A query against a database.
        package: A file inside an installed package.
        python: `module:function`; called without arguments, returns a pandas data frame.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    csv: str | None = None
    parquet: str | None = None
    sql: SqlSource | None = None
    package: PackageSource | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("csv", "parquet", "sql", "package", "python") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of csv, parquet, sql, package, python (found {given or 'none'})")
        if self.python is not None and self.python.count(":") != 1:
            raise ValueError(f"'{self.python}' is not `module:function`")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpec:
    """Partitions of the raw data by calendar month, in UTC, of one timestamp column.

    Attributes:
        column: The timestamp column.
        start: First month, `YYYY-MM`, included.
        end: Last month, `YYYY-MM`, included; None: open, each month is one as soon as it is over.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    column: str
    start: str
    end: str | None = None

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if value is not None and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", value):
                raise ValueError(f"'{value}' is not a month like 2013-01")
        if self.end is not None and self.start > self.end:
            raise ValueError(f"the first month {self.start} is after the last, {self.end}")

    @property
    def until(self) -> str | None:
        """The first month that is no partition any more, whatever the time; None where the end is open."""
        return None if self.end is None else _month_text(_month_number(self.end) + 1)

    def keys_at(self, now: datetime) -> tuple[str, ...]:
        """Returns the months from `start` to `end`, both included, that are over at a moment, in order."""
        present = now.astimezone(UTC)
        over = present.year * 12 + present.month - 1
        until = over if self.end is None else min(over, _month_number(self.end) + 1)
        return tuple(_month_text(month) for month in range(_month_number(self.start), until))


def _month_number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:]) - 1


def _month_text(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContract:
    """What holds for every value of a column. Bounds are inclusive; they and `allowed` do not concern missing values.

    Attributes:
        type: What the column holds.
        nullable: Whether values may be missing.
        maximum_missing: Largest share of missing values, 0 to 1, both included; None: any.
        minimum: Smallest value.
        maximum: Largest value.
        allowed: The only values (categories).
        unique: Whether no value may come twice.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    type: ColumnType
    nullable: bool = False
    maximum_missing: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int | bool, ...] | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if any(limit is not None and not isfinite(limit) for limit in (self.minimum, self.maximum)):
            raise ValueError("minimum and maximum are finite numbers")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.maximum_missing is not None:
            if not 0 <= self.maximum_missing <= 1:
                raise ValueError("maximum_missing is a share from 0 to 1")
            if not self.nullable:
                raise ValueError("maximum_missing needs `nullable: true`")
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and self.type not in {ColumnType.NUMBER, ColumnType.INTEGER}:
            raise ValueError(f"minimum and maximum are for numbers, not for a {self.type}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSpec:
    """What holds for the raw data. Columns that are not named here are dropped.

    Attributes:
        columns: The contract of each column, by name.
        minimum_rows: Fewest rows that make sense.
        unique_together: Columns whose values together identify a row; a random split goes by them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    columns: Mapping[str, ColumnContract]
    minimum_rows: int = 50
    unique_together: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a contract names at least one column")
        if self.minimum_rows < 1:
            raise ValueError("minimum_rows is at least 1")
        for name in self.unique_together:
            if name not in self.columns:
                raise ValueError(f"unique_together names '{name}', which is no column of the contract")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What is predicted. `positive` is the label that a binary model's probability is of."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    column: str
    positive: str | int | bool | None = None

    @property
    def positive_label(self) -> str | None:
        """The positive label as the text that classes are written in: `true` and `false` for booleans."""
        return None if self.positive is None else label_text(self.positive)


class SplitStrategy(StrEnum):
    """How held-out rows are chosen."""

    RANDOM = "random"
    TIME = "time"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """How the data is split into training and held-out rows.

    Attributes:
        strategy: `random` (stratified for classes), `time` (the latest rows of `column` are held out, and rows of one
            instant never fall on both sides) or `group` (rows with equal `column` stay together).
        column: The column for `time` and `group`.
        test_share: Share of held-out rows, above 0 and below 1.
        allow_duplicates: Whether exact copies of training rows may be among the held-out rows.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    strategy: SplitStrategy = SplitStrategy.RANDOM
    column: str | None = None
    test_share: float = 0.25
    allow_duplicates: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError("test_share is above 0 and below 1")
        if (self.column is None) != (self.strategy is SplitStrategy.RANDOM):
            raise ValueError(f"the '{self.strategy}' split {'takes no' if self.column else 'needs a'} column")


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


class Against(StrEnum):
    """What a relative gate compares with."""

    PRODUCTION = "production"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """One rule over one metric.

    Attributes:
        name: Name of the gate and of its asset check.
        metric: A name of `domain.metrics.METRICS`.
        minimum: Smallest value that passes.
        maximum: Largest value that passes.
        against: Compare with Production instead of a fixed limit.
        margin: How much worse than Production is still accepted, in the metric's unit, 0 and up.
        confidence: Confidence of the one-sided comparison, above 0.5, up to 0.995.
        slice: Judge each value of this slice column; the worst decides.
        minimum_rows: Slices with fewer held-out rows are named but do not decide.
        blocking: Whether the gate stops the release, or is advisory.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str
    metric: str
    minimum: float | None = None
    maximum: float | None = None
    against: Against | None = None
    margin: float = 0.0
    confidence: float = 0.95
    slice: str | None = None
    minimum_rows: int = 100
    blocking: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the gate's name '{self.name}' is not lower-case letters, digits and underscores")
        if self.metric not in METRICS:
            raise ValueError(
                f"gate '{self.name}': unknown metric '{self.metric}'; {_suggest(self.metric, list(METRICS))}"
            )
        for name in ("minimum", "maximum", "margin"):
            limit = getattr(self, name)
            if limit is not None and not isfinite(limit):
                raise ValueError(f"gate '{self.name}': {name} is {limit}, not a number to hold something to")
        bounds = (self.minimum is not None) + (self.maximum is not None)
        if self.against is None and bounds == 0:
            raise ValueError(f"gate '{self.name}' has no limit: give minimum, maximum, or `against: production`")
        if self.against is not None and bounds:
            raise ValueError(f"gate '{self.name}': `against` takes a margin, not a minimum or maximum")
        if self.against is not None and (self.slice is not None or not METRICS[self.metric].quality):
            raise ValueError(f"gate '{self.name}': `against` is for quality metrics over all held-out rows")
        if self.slice is not None and not METRICS[self.metric].quality:
            raise ValueError(f"gate '{self.name}': '{self.metric}' has no slices")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"gate '{self.name}': minimum {self.minimum} is above maximum {self.maximum}")
        if self.margin < 0 or not 0.5 < self.confidence <= 0.995:
            raise ValueError(f"gate '{self.name}': margin is 0 or more, confidence above 0.5 and up to 0.995")

    @property
    def described(self) -> str:
        """The rule in words."""
        of = f" for each {self.slice}" if self.slice else ""
        if self.against is not None:
            return f"no worse than Production by more than {self.margin:g}, at {self.confidence:.0%} confidence"
        bounds = [f"at least {self.minimum:g}" if self.minimum is not None else ""]
        bounds += [f"at most {self.maximum:g}" if self.maximum is not None else ""]
        return " and ".join(bound for bound in bounds if bound) + of


class Tampering(StrEnum):
    """What happens to an alias or tag that was changed behind the platform's back. It is named in either case."""

    UNDO = "undo"  # it is put back to what the ledger says
    REPORT = "report"


class Selftest(StrEnum):
    """Whether a version needs the proof that its gates stop spoilt models."""

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """What a promotion asks for, beyond passed gates, and how a model's versions are kept.

    Attributes:
        approvals: How many persons other than the requester must approve.
        approvals_expire_s: An approval older than this, in seconds, does not count; one of exactly this age does.
            None: they never expire.
        minimum_soak_s: How long a version stands in Staging before it may go on, in seconds.
        current_baseline: Whether the gates must have compared with the version that is in Production now.
        freeze: Times in which nothing is promoted.
        tampering: What happens to aliases and tags that were changed behind the platform's back.
        selftest: Whether a version is registered and promoted only with the proof that its gates stop spoilt models.
        replay: What a replay over recorded requests must show before a promotion; None: none is asked for.
        keep_versions: How many of the newest versions garbage collection keeps, whatever their age.
        keep_days: How long garbage collection keeps every version after its registration, in days.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    approvals: int = 0
    approvals_expire_s: float | None = None
    minimum_soak_s: float = 0.0
    current_baseline: bool = True
    freeze: tuple[FreezeWindow, ...] = ()
    tampering: Tampering = Tampering.UNDO
    selftest: Selftest = Selftest.OPTIONAL
    replay: ReplaySpec | None = None
    keep_versions: int = 10
    keep_days: float = 30.0

    def __post_init__(self) -> None:
        if self.approvals < 0 or not 0 <= self.minimum_soak_s <= _TEN_YEARS_S:
            raise ValueError("approvals and minimum_soak_s are 0 or more, and a soak is ten years at most")
        if self.approvals_expire_s is not None and not 0 < self.approvals_expire_s <= _TEN_YEARS_S:
            raise ValueError("approvals_expire_s is above 0 and up to ten years; leave it out for never")
        if self.keep_versions < 0 or not 0 <= self.keep_days < inf:
            raise ValueError("keep_versions and keep_days are 0 or more")

    @property
    def digest(self) -> str:
        """The digest that approvals are bound to: of what an approval is about, and of nothing else.

        It covers approvals, their expiry, soak, baseline, freeze, a required selftest and a demanded replay.
        `tampering`, `keep_versions` and `keep_days` decide nothing about a promotion, so a change of them leaves
        approvals as they are.
        """
        return digest_of(self.terms)

    @property
    def terms(self) -> dict[str, Any]:
        """What the digest is of, as a JSON value; the release store keeps it of each policy that was applied."""
        demanded: dict[str, Any] = {"selftest": self.selftest.value} if self.selftest is Selftest.REQUIRED else {}
        demanded |= {"replay": self.replay.to_json()} if self.replay is not None else {}
        return demanded | {
            "approvals": self.approvals,
            "approvals_expire_s": self.approvals_expire_s,
            "minimum_soak_s": self.minimum_soak_s,
            "current_baseline": self.current_baseline,
            "freeze": [asdict(window) for window in self.freeze],
        }

    @staticmethod
    def from_terms(terms: Mapping[str, Any]) -> "PolicySpec":
        """Returns a policy with these terms; what they do not cover is the default."""
        freeze = tuple(FreezeWindow(**window) for window in terms["freeze"])
        selftest = Selftest(terms.get("selftest", Selftest.OPTIONAL))
        replay = ReplaySpec(**terms["replay"]) if "replay" in terms else None
        return PolicySpec(**{**terms, "freeze": freeze, "selftest": selftest, "replay": replay})


class Onnx(StrEnum):
    """Whether a version carries the model in ONNX (double precision) beside skops."""

    AUTO = "auto"  # where the estimator converts
    REQUIRED = "required"
    OFF = "off"


_ALWAYS = (
    GateSpec(name="signature", metric="signature_breaks", maximum=0),
    GateSpec(name="parity", metric="parity_difference", maximum=1e-6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, complete. `signature` and `parity` gates are added when the YAML does not set its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str
    task: Task
    owner: str
    source: SourceSpec
    contract: ContractSpec
    target: TargetSpec
    estimator: EstimatorSpec
    features: tuple[str | DerivedSpec, ...]
    gates: tuple[GateSpec, ...]
    description: str = ""
    intended_use: str = ""
    limitations: tuple[str, ...] = ()
    partitions: PartitionSpec | None = None
    split: SplitSpec = field(default_factory=SplitSpec)
    search: SearchSpec | None = None
    training: TrainingSpec = field(default_factory=TrainingSpec)
    metrics: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    policy: PolicySpec = field(default_factory=PolicySpec)
    rollout: RolloutSpec = field(default_factory=RolloutSpec)
    rollback_policy: RollbackSpec | None = None
    drift: DriftSpec = field(default_factory=DriftSpec)
    retrain: RetrainSpec = field(default_factory=RetrainSpec)
    freshness: Mapping[Aging, FreshnessSpec] = field(default_factory=dict)
    onnx: Onnx = Onnx.AUTO
    seed: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in RESERVED_NAMES:
            raise ValueError(f"the model's name '{self.name}' is not lower-case letters, digits and underscores")
        if not (re.fullmatch(r"team:[\w.-]+", self.owner) or re.fullmatch(r"[^@\s]+@[^@\s]+", self.owner)):
            raise ValueError(f"the owner '{self.owner}' is neither `team:name` nor an e-mail address")
        columns = self.contract.columns
        for place, name in self._named_columns():
            if name not in columns:
                raise ValueError(
                    f"{place} names '{name}', which is no column of the contract; {_suggest(name, list(columns))}"
                )
        self._check_target()
        self._check_metrics()
        self._check_gates()
        if OnAlarm.ROLL_BACK in self.drift.on_alarm and self.rollback_policy is None:
            raise ValueError("on_alarm `roll_back` goes through the rollback policy; add a `rollback_policy`")
        _ = self.plan

    def _named_columns(self) -> list[tuple[str, str]]:
        named = [("target", self.target.column)]
        named += [("slices", name) for name in self.slices]
        if self.split.column is not None:
            named.append(("split", self.split.column))
        if self.partitions is not None:
            named.append(("partitions", self.partitions.column))
        return named

    def _check_target(self) -> None:
        kind = self.contract.columns[self.target.column].type
        if self.task is Task.REGRESSION and kind not in {ColumnType.NUMBER, ColumnType.INTEGER}:
            raise ValueError(f"a regression's target is a number, but '{self.target.column}' is a {kind}")
        if (self.target.positive is not None) != (self.task is Task.BINARY):
            need = "needs" if self.task is Task.BINARY else "has no"
            raise ValueError(f"a {self.task} target {need} `positive` label")
        used = {n for f in self.features for n in ([f] if isinstance(f, str) else f.of)}
        if self.target.column in used:
            raise ValueError(
                f"the target '{self.target.column}' is used as a feature: the model would be told the answer"
            )

    def _check_metrics(self) -> None:
        known = [metric.name for metric in metrics_for(self.task)]
        for name in self.metrics:
            if name not in known:
                raise ValueError(f"unknown metric '{name}' for a {self.task} model; {_suggest(name, known)}")
        searched = self.search.metric if self.search else None
        searchable = [name for name in SEARCHABLE if name in known]
        if searched is not None and searched not in searchable:
            raise ValueError(f"a search cannot optimise '{searched}'; choose one of {', '.join(searchable)}")

    def _check_gates(self) -> None:
        names = [gate.name for gate in self.gates]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two gates are named '{name}'; give each its own name")
        for gate in self.gates:
            if self.task not in METRICS[gate.metric].tasks:
                known = [metric.name for metric in metrics_for(self.task)]
                said = f"'{gate.metric}' is not defined for a {self.task} model; {_suggest(gate.metric, known)}"
                raise ValueError(f"gate '{gate.name}': {said}")
            if gate.metric == "training_age_days" and self.split.strategy is not SplitStrategy.TIME:
                raise ValueError(f"gate '{gate.name}': '{gate.metric}' needs a split by time")
            if gate.slice is not None and gate.slice not in self.slices:
                raise ValueError(f"gate '{gate.name}' judges the slice '{gate.slice}', which `slices` does not list")
        if not any(gate.blocking and METRICS[gate.metric].quality for gate in self.gates):
            raise ValueError(
                "no blocking gate judges the model's quality; add one, e.g. a minimum of its primary metric"
            )

    @property
    def every_gate(self) -> tuple[GateSpec, ...]:
        """The YAML's gates, then those that always hold unless the YAML sets its own over the same metric."""
        own = {gate.metric for gate in self.gates} | {gate.name for gate in self.gates}
        return self.gates + tuple(g for g in _ALWAYS if g.metric not in own and g.name not in own)

    @property
    def every_metric(self) -> tuple[str, ...]:
        """The quality metrics to measure: those listed (default: all of the task) and those that gates name."""
        listed = list(self.metrics) or [metric.name for metric in metrics_for(self.task)]
        listed += [gate.metric for gate in self.gates if METRICS[gate.metric].quality]
        return tuple(dict.fromkeys([*listed, PRIMARY[self.task]]))

    @property
    def plan(self) -> FeaturePlan:
        """The feature plan that training and serving share."""
        columns = self.contract.columns
        derived = tuple(
            Derived(name=f.name, operation=f.operation, of=f.of) for f in self.features if not isinstance(f, str)
        )
        computed = {d.name for d in derived}
        plain = [f for f in self.features if isinstance(f, str)]
        sources = plain + [name for d in derived for name in d.of if name not in computed]
        for name in sources:
            if name not in columns:
                raise ValueError(
                    f"features name '{name}', which is no column of the contract; {_suggest(name, list(columns))}"
                )
        return FeaturePlan(
            inputs=tuple(
                Input(
                    name=name,
                    type=columns[name].type,
                    nullable=columns[name].nullable,
                    allowed=_texts(columns[name]),
                )
                for name in dict.fromkeys(sources)
            ),
            derived=derived,
            features=tuple(f if isinstance(f, str) else f.name for f in self.features),
        )


def _texts(column: ColumnContract) -> tuple[str, ...]:
    allowed = column.allowed if column.type is ColumnType.CATEGORY and column.allowed else ()
    return tuple(str(value) for value in allowed)
