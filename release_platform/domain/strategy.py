"""How a version comes into Production: what a `defs.yaml` or a request says of it, and the stages that follow.

```
all_at_once                                                     full
canary                              canary step 1, 2, ...   ->  full
shadow               shadow                                 ->  full
shadow_then_canary   shadow     ->  canary step 1, 2, ...   ->  full
```

`full` is all traffic: the version is in Production, and the one before it is kept warm until the bake time is over.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, ClassVar

from release_platform.domain.json_form import exactly
from release_platform.domain.metrics import Direction
from release_platform.domain.percent import percent
from release_platform.domain.spec_rules import STRICT, suggestion

_MONTH_S = 30 * 86400.0


class Strategy(StrEnum):
    """The ways into Production."""

    ALL_AT_ONCE = "all_at_once"
    CANARY = "canary"
    SHADOW = "shadow"
    SHADOW_THEN_CANARY = "shadow_then_canary"


class LiveMetric(StrEnum):
    """What is measured of live traffic. Each is the share of a request's units that are bad, 0 to 1."""

    ERRORS = "errors"  # requests that the version failed
    LATENCY = "latency"  # requests slower than a quantile of the stable version's, or than a limit
    PREDICTIONS = "predictions"  # predictions above, and not above, each of some quantiles of the stable version's
    LABEL_QUALITY = "label_quality"  # wrong labels, or absolute errors above a limit or a quantile
    OUTCOME = "outcome"  # outcomes on the wrong side of a limit
    DISAGREEMENT = "disagreement"  # shadow pairs whose answers differ


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGateSpec:
    """One rule over one live metric: the candidate's bad share is at most `margin` above the stable version's.

    Attributes:
        metric: What is measured.
        margin: How much larger the bad share may be, above 0 and below 1; None: the metric's own, see `MARGINS`.
        quantile: For `latency` and `label_quality`: bad is above this quantile of the stable version's, above 0 and
            below 1. Without it and without a limit, latency has `QUANTILE`.
        limit: The number that is still good: for `latency` milliseconds, for `label_quality` an absolute error (0, so
            that a wrong label is bad, unless a quantile is given), for `outcome` a value. Numbers within 9 % of it may
            count as equal to it.
        outcome: For `outcome`: its name.
        better: For `outcome`: whether higher or lower numbers are better.
        blocking: Whether the gate decides, or is advisory.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    metric: LiveMetric
    margin: float | None = None
    quantile: float | None = None
    limit: float | None = None
    outcome: str | None = None
    better: Direction = Direction.HIGHER
    blocking: bool = True

    def __post_init__(self) -> None:
        self._check(0 < self.accepted < 1, f"margin is above 0 and below 1, not {self.margin}")
        if self.quantile is not None:
            measured = self.metric in {LiveMetric.LATENCY, LiveMetric.LABEL_QUALITY}
            self._check(measured and self.limit is None, "quantile is for latency and label_quality, without a limit")
            self._check(0 < self.quantile < 1, f"quantile is above 0 and below 1, not {self.quantile}")
        if self.limit is not None:
            limited = self.metric in {LiveMetric.LATENCY, LiveMetric.LABEL_QUALITY, LiveMetric.OUTCOME}
            self._check(limited and isfinite(self.limit), f"it cannot be held to a limit of {self.limit}")
        business = self.metric is LiveMetric.OUTCOME
        self._check(
            business == (self.outcome is not None), "`outcome` names what an outcome gate judges, and only there"
        )
        self._check(not business or self.limit is not None, "give the limit that parts good outcomes from bad ones")
        self._check(business or self.better is Direction.HIGHER, "`better` is for outcomes; elsewhere less is better")

    def _check(self, right: bool, wrong: str) -> None:
        if not right:
            raise ValueError(f"rollout gate '{self.name}': {wrong}")

    @property
    def name(self) -> str:
        """The gate's name: its metric, and of an outcome which one."""
        return self.metric.value if self.outcome is None else f"{self.metric}_{self.outcome}"

    @property
    def accepted(self) -> float:
        """The margin that holds: its own, or the metric's."""
        return MARGINS[self.metric] if self.margin is None else self.margin


MARGINS: Mapping[LiveMetric, float] = {
    LiveMetric.ERRORS: 0.01,
    LiveMetric.LATENCY: 0.05,
    LiveMetric.PREDICTIONS: 0.1,
    LiveMetric.LABEL_QUALITY: 0.05,
    LiveMetric.OUTCOME: 0.05,
    LiveMetric.DISAGREEMENT: 0.1,
}
"""How much larger the bad share may be where the YAML does not say; `docs/judging.md` has what each costs."""

QUANTILE = 0.95
"""The quantile of the stable version's latency that a request must not exceed to be good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One step of a canary.

    Attributes:
        weight: Share of the traffic that goes to the candidate, above 0 and below 1.
        minimum_requests: Fewest requests that the candidate answers in this step, 0 and up.
        minimum_s: Shortest time in this step, in seconds.
        maximum_s: Longest time; without a verdict until then the rollout is aborted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    weight: float
    minimum_requests: int = 100
    minimum_s: float = 300.0
    maximum_s: float = 86400.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise ValueError(f"a canary step's weight is a share above 0 and below 1, not {self.weight}")
        _check_bounds("canary step", self.minimum_requests, self.minimum_s, self.maximum_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSpec:
    """The shadow stage: the candidate is asked too, and nobody gets its answers.

    Attributes:
        share: Share of the requests that are mirrored, above 0, up to 1.
        minimum_pairs: Fewest requests that both versions answer, 0 and up.
        minimum_s: Shortest time, in seconds.
        maximum_s: Longest time; without a verdict until then the rollout is aborted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    share: float = 1.0
    minimum_pairs: int = 100
    minimum_s: float = 300.0
    maximum_s: float = 86400.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"the mirrored share is above 0 and up to 1, not {self.share}")
        _check_bounds("shadow stage", self.minimum_pairs, self.minimum_s, self.maximum_s)


def _check_bounds(what: str, minimum: int, minimum_s: float, maximum_s: float) -> None:
    if minimum < 0 or not 0 <= minimum_s < maximum_s <= _MONTH_S:
        raise ValueError(
            f"a {what}'s minimum is 0 or more, its minimum_s below its maximum_s, and that 30 days at most"
        )


class StageKind(StrEnum):
    """What happens to traffic in a stage."""

    SHADOW = "shadow"
    CANARY = "canary"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a rollout.

    Attributes:
        kind: What happens to traffic.
        share: Share of the traffic that the candidate is asked, above 0, up to 1.
        minimum: Fewest requests (of a shadow: pairs) before it may end.
        minimum_s: Shortest time; of `full` the bake time.
        maximum_s: Longest time; None: it ends by itself.
    """

    kind: StageKind
    share: float
    minimum: int
    minimum_s: float
    maximum_s: float | None

    @property
    def said(self) -> str:
        """What happens to traffic, in a few words."""
        return "all traffic" if self.kind is StageKind.FULL else f"{self.kind} {percent(self.share)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """How a model's versions come into Production. Details of a strategy that is not chosen are kept for a request.

    Attributes:
        strategy: The way.
        shadow: The shadow stage.
        canary: The steps of a canary, with rising weights.
        bake_s: How long the version before is kept warm after all traffic has moved, in seconds.
        false_abort: Largest probability that gates abort a rollout of a version that is worse in none of them, over
            all gates, stages and looks together; above 0, up to 0.1.
        false_pass: Largest probability that a version which is worse than a blocking gate accepts passes a stage, over
            all looks; above 0, up to 0.1.
        gates: The rules; an advisory one never decides.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    strategy: Strategy = Strategy.ALL_AT_ONCE
    shadow: ShadowSpec = field(default_factory=ShadowSpec)
    canary: tuple[StepSpec, ...] = (StepSpec(weight=0.05), StepSpec(weight=0.25), StepSpec(weight=0.5))
    bake_s: float = 3600.0
    false_abort: float = 0.01
    false_pass: float = 0.05
    gates: tuple[LiveGateSpec, ...] = (
        LiveGateSpec(metric=LiveMetric.ERRORS),
        LiveGateSpec(metric=LiveMetric.LATENCY),
        LiveGateSpec(metric=LiveMetric.PREDICTIONS),
    )

    def __post_init__(self) -> None:
        if not (0 < self.false_abort <= 0.1 and 0 < self.false_pass <= 0.1):
            raise ValueError("false_abort and false_pass are probabilities above 0 and up to 0.1")
        if not 0 <= self.bake_s <= _MONTH_S:
            raise ValueError("bake_s is 0 or more, and 30 days at most")
        weights = [step.weight for step in self.canary]
        if not weights or sorted(set(weights)) != weights:
            raise ValueError(f"a canary has steps, and their weights rise: {weights}")
        names = [gate.name for gate in self.gates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rollout gates judge '{min(twice)}'; keep one")
        for stage in self.stages:
            if stage.kind is not StageKind.FULL and not any(gate.blocking for gate in self.gates_in(stage.kind)):
                raise ValueError(f"no blocking rollout gate judges the {stage.kind}; add one, e.g. errors")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order; the last is `full`."""
        shadow = Stage(
            kind=StageKind.SHADOW,
            share=self.shadow.share,
            minimum=self.shadow.minimum_pairs,
            minimum_s=self.shadow.minimum_s,
            maximum_s=self.shadow.maximum_s,
        )
        canary = tuple(
            Stage(
                kind=StageKind.CANARY,
                share=step.weight,
                minimum=step.minimum_requests,
                minimum_s=step.minimum_s,
                maximum_s=step.maximum_s,
            )
            for step in self.canary
        )
        full = Stage(kind=StageKind.FULL, share=1.0, minimum=0, minimum_s=self.bake_s, maximum_s=None)
        before: dict[Strategy, tuple[Stage, ...]] = {
            Strategy.ALL_AT_ONCE: (),
            Strategy.CANARY: canary,
            Strategy.SHADOW: (shadow,),
            Strategy.SHADOW_THEN_CANARY: (shadow, *canary),
        }
        return (*before[self.strategy], full)

    def gates_in(self, kind: StageKind) -> tuple[LiveGateSpec, ...]:
        """Returns the gates that a stage can measure.

        A shadow's latency is not that of clients, and nothing comes of answers that nobody gets; a canary has no
        pairs. `full` has no concurrent control, so no gate judges it: there the model's rollback policy watches.
        """
        measured: dict[StageKind, set[LiveMetric]] = {
            StageKind.SHADOW: set(LiveMetric) - {LiveMetric.LATENCY, LiveMetric.OUTCOME},
            StageKind.CANARY: set(LiveMetric) - {LiveMetric.DISAGREEMENT},
            StageKind.FULL: set(),
        }
        return tuple(gate for gate in self.gates if gate.metric in measured[kind])

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as a JSON value."""
        value = asdict(self)
        return {**value, "canary": list(value["canary"]), "gates": list(value["gates"])}

    @staticmethod
    def from_json(value: object) -> "RolloutSpec":
        """Returns the spec that `to_json` wrote; raises ValueError for anything else."""
        of = exactly(value, "rollout spec", **_SPEC)
        return RolloutSpec(
            strategy=Strategy(of["strategy"]),
            shadow=shadow_from(of["shadow"]),
            canary=tuple(map(step_from, of["canary"])),
            bake_s=of["bake_s"],
            false_abort=of["false_abort"],
            false_pass=of["false_pass"],
            gates=tuple(map(gate_from, of["gates"])),
        )


def strategy_named(name: str) -> Strategy:
    """Returns the strategy of a name that a request gives; raises ValueError with the nearest one."""
    known = [strategy.value for strategy in Strategy]
    if name not in known:
        raise ValueError(f"there is no strategy '{name}'; {suggestion(name, known)}")
    return Strategy(name)


_NUMBER = (int, float)
_MAYBE_NUMBER = (int, float, type(None))
_TIMES: dict[str, Any] = {"minimum_s": _NUMBER, "maximum_s": _NUMBER}
_STEP: dict[str, Any] = {"weight": _NUMBER, "minimum_requests": int, **_TIMES}
_SHADOW: dict[str, Any] = {"share": _NUMBER, "minimum_pairs": int, **_TIMES}
_SPEC: dict[str, Any] = {
    "strategy": str,
    "shadow": dict,
    "canary": list,
    "bake_s": _NUMBER,
    "false_abort": _NUMBER,
    "false_pass": _NUMBER,
    "gates": list,
}
_GATE: dict[str, Any] = {
    "metric": str,
    "margin": _MAYBE_NUMBER,
    "quantile": _MAYBE_NUMBER,
    "limit": _MAYBE_NUMBER,
    "outcome": (str, type(None)),
    "better": str,
    "blocking": bool,
}


def step_from(value: object) -> StepSpec:
    """Returns the step that a JSON value is; raises ValueError for anything else."""
    return StepSpec(**exactly(value, "canary step", **_STEP))


def shadow_from(value: object) -> ShadowSpec:
    """Returns the shadow stage that a JSON value is; raises ValueError for anything else."""
    return ShadowSpec(**exactly(value, "shadow stage", **_SHADOW))


def gate_from(value: object) -> LiveGateSpec:
    """Returns the gate that a JSON value is; raises ValueError for anything else."""
    of = exactly(value, "rollout gate", **_GATE)
    return LiveGateSpec(**{**of, "metric": LiveMetric(of["metric"]), "better": Direction(of["better"])})
