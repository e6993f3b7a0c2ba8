"""What a promotion request says of its own rollout: another strategy, steps, gates; never less than the model's YAML.

The YAML says what a version has to show before it gets more traffic. A request may ask for more, and for what the YAML
leaves open; what it may not is skip anything that the YAML's own strategy demands:

- each kind of stage that the YAML's strategy has, the request's has too;
- up to each weight of the YAML's canary there are as many steps, requests and seconds;
- a shadow answers as many pairs for as long, and the bake time is as long;
- a blocking gate stays one, judges the same, and accepts no more.

A person may still order a rollout that is under way to go on without the judge: that is an act of its own.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from release_platform.domain.errors import Refused
from release_platform.domain.json_form import exactly
from release_platform.domain.percent import percent
from release_platform.domain.spec_rules import STRICT
from release_platform.domain.strategy import (
    LiveGateSpec,
    LiveMetric,
    RolloutSpec,
    ShadowSpec,
    StageKind,
    StepSpec,
    Strategy,
    gate_from,
    shadow_from,
    step_from,
)

_Part = TypeVar("_Part")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SAID = frozenset({"metric", "outcome", "margin", "blocking"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRollout:
    """What a request says of its rollout beside the strategy; what it does not say is as in the model's YAML.

    Attributes:
        canary: The steps of the canary; empty for the YAML's.
        shadow: The shadow stage; None for the YAML's.
        bake_s: How long the version before is kept warm, in seconds; None for the YAML's.
        gates: Gates beside the YAML's, or in the place of those of the same name. Of one that says nothing but its
            margin, what it judges stays the YAML's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    canary: tuple[StepSpec, ...] = ()
    shadow: ShadowSpec | None = None
    bake_s: float | None = None
    gates: tuple[LiveGateSpec, ...] = ()

    def __post_init__(self) -> None:
        names = [gate.name for gate in self.gates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two gates judge '{min(twice)}'; keep one")

    @property
    def says_nothing(self) -> bool:
        """Whether everything is as in the YAML."""
        return self == NOTHING_ASKED

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        value = asdict(self)
        return {**value, "canary": list(value["canary"]), "gates": list(value["gates"])}

    @staticmethod
    def from_json(value: object) -> "AskedRollout":
        """Returns what `to_json` wrote; raises ValueError for anything else."""
        of = exactly(value, "rollout of a request", **_FIELDS)
        return AskedRollout(
            canary=tuple(map(step_from, of["canary"])),
            shadow=None if of["shadow"] is None else shadow_from(of["shadow"]),
            bake_s=of["bake_s"],
            gates=tuple(map(gate_from, of["gates"])),
        )


NOTHING_ASKED = AskedRollout()
"""Everything is as in the model's YAML."""


def plan_of(own: RolloutSpec, strategy: Strategy | None, asked: AskedRollout) -> RolloutSpec:
    """Returns the rollout that a request asks for, as the model's YAML would say it.

    Args:
        own: What the YAML says.
        strategy: The strategy that the request names; None for the YAML's.
        asked: What else it says.

    Raises:
        ValueError: It is no rollout, or says what its strategy has no use for.
    """
    plan = replace(
        own,
        strategy=strategy or own.strategy,
        canary=asked.canary or own.canary,
        shadow=asked.shadow or own.shadow,
        bake_s=own.bake_s if asked.bake_s is None else asked.bake_s,
        gates=_gates(own.gates, asked.gates),
    )
    kinds = _kinds(plan)
    if asked.canary and StageKind.CANARY not in kinds:
        raise ValueError(f"{plan.strategy} has no canary: its steps need the strategy canary or shadow_then_canary")
    if asked.shadow is not None and StageKind.SHADOW not in kinds:
        raise ValueError(f"{plan.strategy} has no shadow: name the strategy shadow or shadow_then_canary")
    if (asked.gates or asked.bake_s is not None) and kinds == {StageKind.FULL}:
        raise ValueError("all_at_once has no rollout: nothing is judged, and nothing bakes")
    return plan


def find_laxer(own: RolloutSpec, plan: RolloutSpec) -> str | None:
    """Returns what a plan would skip that the YAML's own demands, in a sentence; None where it skips nothing."""
    skipped = sorted(_kinds(own) - _kinds(plan))
    if skipped:
        return f"it goes by {plan.strategy}, but its defs.yaml demands a {' and a '.join(skipped)}"
    kinds = _kinds(own)
    return (
        (_laxer_canary(own.canary, plan.canary) if StageKind.CANARY in kinds else None)
        or (_laxer_shadow(own.shadow, plan.shadow) if StageKind.SHADOW in kinds else None)
        or _laxer_end(own, plan)
        or _laxer_gate(own.gates, plan.gates)
    )


def _kinds(plan: RolloutSpec) -> set[StageKind]:
    return {stage.kind for stage in plan.stages}


def _laxer_canary(own: Sequence[StepSpec], asked: Sequence[StepSpec]) -> str | None:
    for step in own:
        until = f"up to {percent(step.weight)} of the traffic"
        before, now = (_up_to(steps, step.weight) for steps in (own, asked))
        if len(now) < len(before):
            return f"it has {len(now)} step(s) {until}, its defs.yaml {len(before)}"
        demanded, given = (sum(one.minimum_requests for one in steps) for steps in (before, now))
        if given < demanded:
            return f"it asks for {given:,} request(s) {until}, its defs.yaml for {demanded:,}"
        demanded_s, given_s = (sum(one.minimum_s for one in steps) for steps in (before, now))
        if given_s < demanded_s:
            return f"it takes {given_s:g} s {until}, its defs.yaml {demanded_s:g} s"
    return None


def _up_to(steps: Iterable[StepSpec], weight: float) -> list[StepSpec]:
    return [step for step in steps if step.weight <= weight]


def _laxer_shadow(own: ShadowSpec, asked: ShadowSpec) -> str | None:
    if asked.minimum_pairs < own.minimum_pairs:
        return f"its shadow asks for {asked.minimum_pairs:,} pair(s), its defs.yaml for {own.minimum_pairs:,}"
    if asked.minimum_s < own.minimum_s:
        return f"its shadow takes {asked.minimum_s:g} s, its defs.yaml {own.minimum_s:g} s"
    return None


def _laxer_end(own: RolloutSpec, plan: RolloutSpec) -> str | None:
    if _kinds(own) != {StageKind.FULL} and plan.bake_s < own.bake_s:
        return f"it bakes for {plan.bake_s:g} s, its defs.yaml for {own.bake_s:g} s"
    return None


def _laxer_gate(own: Sequence[LiveGateSpec], asked: Sequence[LiveGateSpec]) -> str | None:
    there = {gate.name: gate for gate in asked}
    for gate in (gate for gate in own if gate.blocking):
        now = there[gate.name]
        if not now.blocking:
            return f"its gate '{gate.name}' is advisory, in its defs.yaml it is blocking"
        if replace(now, margin=gate.margin) != gate:
            return f"its gate '{gate.name}' judges something else than that of its defs.yaml"
        if now.accepted > gate.accepted:
            accepted, demanded = percent(now.accepted), percent(gate.accepted)
            return f"its gate '{gate.name}' accepts {accepted} more, its defs.yaml {demanded}"
    return None


def _gates(own: Sequence[LiveGateSpec], asked: Sequence[LiveGateSpec]) -> tuple[LiveGateSpec, ...]:
    instead = {gate.name: gate for gate in asked}
    kept = [_over(gate, instead.pop(gate.name)) if gate.name in instead else gate for gate in own]
    return (*kept, *instead.values())


def _over(own: LiveGateSpec, asked: LiveGateSpec) -> LiveGateSpec:
    margin = own.margin if asked.margin is None else asked.margin
    is_bare = all(getattr(asked, of.name) == of.default for of in fields(asked) if of.name not in _SAID)
    return replace(own if is_bare else asked, margin=margin, blocking=asked.blocking)


def asked_in_words(
    steps: Sequence[str] = (), shadow: str | None = None, bake: str | None = None, gates: Sequence[str] = ()
) -> AskedRollout:
    """Returns what a person wrote of a rollout.

    Args:
        steps: Each `WEIGHT:REQUESTS:TIME` or `WEIGHT:REQUESTS:TIME:LONGEST`, e.g. `5%:2000:10m`.
        shadow: `SHARE:PAIRS:TIME` or `SHARE:PAIRS:TIME:LONGEST`, e.g. `50%:1000:10m`.
        bake: A time, e.g. `2h`.
        gates: Each `METRIC` or `METRIC:MARGIN`, e.g. `errors:0.5%`.

    Raises:
        Refused: It is none; says what is wrong.
    """
    try:
        return AskedRollout(
            canary=tuple(_written(text, "step", _step) for text in steps),
            shadow=None if not shadow else _written(shadow, "shadow", _shadow),
            bake_s=None if not bake else _written(bake, "bake", _seconds),
            gates=tuple(_written(text, "gate", _gate) for text in gates),
        )
    except ValueError as error:
        raise Refused(str(error), remedy="write it so, or leave it out for the model's own") from None


def _written(text: str, what: str, read: Callable[[str], _Part]) -> _Part:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{what} '{text}': {error}") from None


def _step(text: str) -> StepSpec:
    weight, requests, *times = _parts(text, "WEIGHT:REQUESTS:TIME or WEIGHT:REQUESTS:TIME:LONGEST, e.g. 5%:2000:10m")
    return StepSpec(weight=_share(weight), minimum_requests=_whole(requests), **_times(times))


def _shadow(text: str) -> ShadowSpec:
    share, pairs, *times = _parts(text, "SHARE:PAIRS:TIME or SHARE:PAIRS:TIME:LONGEST, e.g. 50%:1000:10m")
    return ShadowSpec(share=_share(share), minimum_pairs=_whole(pairs), **_times(times))


def _gate(text: str) -> LiveGateSpec:
    name, _, margin = text.partition(":")
    written = [metric.value for metric in LiveMetric if metric is not LiveMetric.OUTCOME]
    if name not in written:
        hint = f"one of {', '.join(written)}; a gate of an outcome belongs into the defs.yaml"
        raise ValueError(f"'{name}' is no metric that can be written so: {hint}")
    return LiveGateSpec(metric=LiveMetric(name), margin=_share(margin) if margin else None)


def _parts(text: str, form: str) -> list[str]:
    parts = text.split(":")
    if len(parts) not in {3, 4}:
        raise ValueError(f"write {form}")
    return parts


def _times(texts: Sequence[str]) -> dict[str, float]:
    return dict(zip(("minimum_s", "maximum_s"), map(_seconds, texts), strict=False))


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(%?)", text)
    if found is None:
        raise ValueError(f"'{text}' is no share; write e.g. 5% or 0.05")
    return float(found[1]) / 100 if found[2] else float(found[1])


def _whole(text: str) -> int:
    if re.fullmatch(r"\d{1,12}", text) is None:
        raise ValueError(f"'{text}' is no number of requests; write e.g. 2000")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,7}(?:\.\d{1,3})?)([smhd])", text)
    if found is None:
        raise ValueError(f"'{text}' is no time; write e.g. 90s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


_FIELDS: dict[str, Any] = {
    "canary": list,
    "shadow": (dict, type(None)),
    "bake_s": (int, float, type(None)),
    "gates": list,
}
