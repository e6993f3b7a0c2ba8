"""What a `defs.yaml` says of a model. A `ModelSpec` that exists is consistent.

Its parts are in files of their own: `data_spec`, `training_spec`, `gate_spec`, `policy_spec`, `strategy`, and so on.
pydantic builds these dataclasses from YAML at the edge (`component.py`). Rules that span fields live in
`__post_init__`, so that no other door can build a wrong spec either.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from release_platform.domain.data_spec import (
    ColumnContract,
    ContractSpec,
    PartitionSpec,
    SourceSpec,
    SplitSpec,
    SplitStrategy,
    TargetSpec,
)
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.features import ColumnType, Derived, FeaturePlan, Input
from release_platform.domain.freshness_spec import Aging, FreshnessSpec
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.metrics import METRICS, PRIMARY, SEARCHABLE, Task, metrics_for
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.retrain_spec import RetrainSpec
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.spec_rules import NAME, STRICT, suggestion
from release_platform.domain.strategy import RolloutSpec
from release_platform.domain.training_spec import DerivedSpec, EstimatorSpec, Onnx, SearchSpec, TrainingSpec

RESERVED_NAMES = frozenset({"latest"})


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
        if not NAME.fullmatch(self.name) or self.name in RESERVED_NAMES:
            raise ValueError(f"the model's name '{self.name}' is not lower-case letters, digits and underscores")
        if not (re.fullmatch(r"team:[\w.-]+", self.owner) or re.fullmatch(r"[^@\s]+@[^@\s]+", self.owner)):
            raise ValueError(f"the owner '{self.owner}' is neither `team:name` nor an e-mail address")
        columns = self.contract.columns
        for place, name in self._named_columns():
            if name not in columns:
                raise ValueError(
                    f"{place} names '{name}', which is no column of the contract; {suggestion(name, list(columns))}"
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
                raise ValueError(f"unknown metric '{name}' for a {self.task} model; {suggestion(name, known)}")
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
                said = f"'{gate.metric}' is not defined for a {self.task} model; {suggestion(gate.metric, known)}"
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
                    f"features name '{name}', which is no column of the contract; {suggestion(name, list(columns))}"
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
