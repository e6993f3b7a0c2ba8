"""A request may ask for more than the model's YAML demands of a rollout, never for less."""

import json
from dataclasses import replace

import pytest

from release_platform.domain.asked_rollout import (
    NOTHING_ASKED,
    AskedRollout,
    asked_in_words,
    find_laxer,
    plan_of,
)
from release_platform.domain.errors import Refused
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, ShadowSpec, StepSpec, Strategy

OPEN = RolloutSpec()
GATES = (
    LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.01),
    LiveGateSpec(metric=LiveMetric.LATENCY, limit=200.0),
    LiveGateSpec(metric=LiveMetric.PREDICTIONS, blocking=False),
)
STEPS = (
    StepSpec(weight=0.1, minimum_requests=1000, minimum_s=600),
    StepSpec(weight=0.5, minimum_requests=2000, minimum_s=600),
)
OWN = RolloutSpec(strategy=Strategy.CANARY, canary=STEPS, gates=GATES, bake_s=3600)
BOTH = replace(OWN, strategy=Strategy.SHADOW_THEN_CANARY, shadow=ShadowSpec(minimum_pairs=500, minimum_s=600))


def laxer(own: RolloutSpec, strategy: Strategy | None = None, **words: object) -> str | None:
    return find_laxer(own, plan_of(own, strategy, asked_in_words(**words)))  # type: ignore[arg-type]


def test_what_a_person_writes_is_what_the_yaml_would_say() -> None:
    asked = asked_in_words(["5%:2000:10m", "0.25:5000:15m:2h"], "50%:1000:90s", "2h", ["errors:0.5%", "predictions"])
    assert asked == AskedRollout(
        canary=(
            StepSpec(weight=0.05, minimum_requests=2000, minimum_s=600),
            StepSpec(weight=0.25, minimum_requests=5000, minimum_s=900, maximum_s=7200),
        ),
        shadow=ShadowSpec(share=0.5, minimum_pairs=1000, minimum_s=90),
        bake_s=7200,
        gates=(
            LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.005),
            LiveGateSpec(metric=LiveMetric.PREDICTIONS),
        ),
    )
    assert AskedRollout.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert asked_in_words() == NOTHING_ASKED


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"steps": ["5%"]}, "WEIGHT:REQUESTS:TIME"),
        ({"steps": ["5%:2000"]}, "WEIGHT:REQUESTS:TIME"),
        ({"steps": ["5 percent:2000:10m"]}, "'5 percent' is no share"),
        ({"steps": ["5%:many:10m"]}, "'many' is no number of requests"),
        ({"steps": ["5%:2000:10"]}, "'10' is no time"),
        ({"steps": ["100%:2000:10m"]}, "above 0 and below 1"),
        ({"steps": ["0:2000:10m"]}, "above 0 and below 1"),
        ({"steps": ["5%:2000:2h:1h"]}, "below its maximum_s"),
        ({"steps": ["nan:1:1m"]}, "no share"),
        ({"shadow": "50%:10m"}, "SHARE:PAIRS:TIME"),
        ({"shadow": "101%:10:10m"}, "above 0 and up to 1"),
        ({"bake": "soon"}, "'soon' is no time"),
        ({"gates": ["erors:1%"]}, "'erors' is no metric"),
        ({"gates": ["outcome:1%"]}, "belongs into the defs.yaml"),
        ({"gates": ["errors:0"]}, "margin is above 0"),
        ({"gates": ["errors:1%", "errors"]}, "two gates judge 'errors'"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_how_to_write_it(words: dict[str, object], wrong: str) -> None:
    with pytest.raises(Refused, match=wrong):
        asked_in_words(**words)  # type: ignore[arg-type]


def test_what_is_not_said_is_as_in_the_yaml() -> None:
    assert plan_of(OWN, None, NOTHING_ASKED) == OWN
    assert laxer(OWN) is None
    plan = plan_of(OWN, None, asked_in_words(gates=["latency:1%"]))
    assert plan.gates[1] == LiveGateSpec(metric=LiveMetric.LATENCY, limit=200.0, margin=0.01)
    assert plan.canary == STEPS


def test_a_gate_more_is_added_and_an_advisory_one_may_be_made_to_decide() -> None:
    plan = plan_of(OWN, None, asked_in_words(gates=["label_quality:2%", "predictions"]))
    assert [(gate.name, gate.blocking) for gate in plan.gates] == [
        ("errors", True),
        ("latency", True),
        ("predictions", True),
        ("label_quality", True),
    ]
    assert find_laxer(OWN, plan) is None


@pytest.mark.parametrize(
    ("strategy", "words", "wrong"),
    [
        (None, {"steps": ["5%:10:1m"]}, "all_at_once has no canary"),
        (Strategy.SHADOW, {"steps": ["5%:10:1m"]}, "shadow has no canary"),
        (Strategy.CANARY, {"shadow": "5%:10:1m"}, "canary has no shadow"),
        (None, {"gates": ["errors"]}, "all_at_once has no rollout"),
        (None, {"bake": "1h"}, "all_at_once has no rollout"),
        (Strategy.CANARY, {"steps": ["25%:10:1m", "5%:10:1m"]}, "their weights rise"),
    ],
)
def test_what_the_strategy_has_no_use_for_is_refused(
    strategy: Strategy | None, words: dict[str, object], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        plan_of(OPEN, strategy, asked_in_words(**words))  # type: ignore[arg-type]


def test_where_the_yaml_demands_no_rollout_a_request_may_ask_for_any() -> None:
    assert laxer(OPEN, Strategy.CANARY, steps=["50%:0:0s"]) is None
    assert laxer(OPEN, Strategy.SHADOW, shadow="1%:0:0s", bake="0s") is None


@pytest.mark.parametrize(
    ("own", "strategy", "skipped"),
    [
        (OWN, Strategy.ALL_AT_ONCE, "demands a canary"),
        (OWN, Strategy.SHADOW, "demands a canary"),
        (OWN, Strategy.SHADOW_THEN_CANARY, None),
        (BOTH, Strategy.CANARY, "demands a shadow"),
        (BOTH, Strategy.ALL_AT_ONCE, "demands a canary and a shadow"),
        (BOTH, None, None),
        (OPEN, Strategy.ALL_AT_ONCE, None),
    ],
)
def test_a_judge_that_the_yaml_demands_cannot_be_skipped(
    own: RolloutSpec, strategy: Strategy | None, skipped: str | None
) -> None:
    said = laxer(own, strategy)
    assert said is None if skipped is None else said is not None and skipped in said


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        (["10%:1000:10m", "50%:2000:10m"], None),
        (["1%:500:5m", "10%:500:5m", "50%:2000:10m"], None),  # more steps, in all as many requests
        (["5%:1000:10m", "20%:2000:10m"], None),  # never as much traffic
        (["10%:999:10m", "50%:5000:10m"], "999 request(s) up to 10 %"),
        (["10%:1000:599s", "50%:2000:1h"], "599 s up to 10 %"),
        (["50%:9000:1h"], "0 step(s) up to 10 %"),
        (["10%:9000:1h"], "1 step(s) up to 50 %"),
        (["11%:9000:1h", "50%:9000:1h"], "0 step(s) up to 10 %"),
        (["10%:2999:10m", "50%:0:10m"], "2,999 request(s) up to 50 %"),
        (["10%:1000:10m", "50%:2000:10m", "90%:0:0s"], None),
    ],
)
def test_steps_ask_for_as_much_up_to_each_weight_of_the_yaml(steps: list[str], wrong: str | None) -> None:
    said = laxer(OWN, steps=steps)
    assert said is None if wrong is None else said is not None and wrong in said


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"shadow": "1%:500:10m"}, None),
        ({"shadow": "100%:499:10m"}, "asks for 499 pair(s)"),
        ({"shadow": "100%:500:599s"}, "takes 599 s"),
        ({"bake": "1h"}, None),
        ({"bake": "59m"}, "bakes for 3540 s"),
        ({"gates": ["errors:1%"]}, None),
        ({"gates": ["errors:1.1%"]}, "accepts 1.1 % more"),
        ({"gates": ["latency:5.1%"]}, "accepts 5.1 % more"),
    ],
)
def test_a_shadow_a_bake_time_and_a_gate_demand_as_much(words: dict[str, object], wrong: str | None) -> None:
    said = laxer(BOTH, **words)  # type: ignore[arg-type]
    assert said is None if wrong is None else said is not None and wrong in said


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        (LiveGateSpec(metric=LiveMetric.ERRORS, blocking=False), "is advisory"),
        (LiveGateSpec(metric=LiveMetric.LATENCY, limit=900.0), "judges something else"),
        (LiveGateSpec(metric=LiveMetric.LATENCY, quantile=0.5), "judges something else"),
        (LiveGateSpec(metric=LiveMetric.LATENCY, limit=200.0, margin=0.01), None),
        (LiveGateSpec(metric=LiveMetric.PREDICTIONS, margin=0.9, blocking=False), None),
    ],
)
def test_a_blocking_gate_stays_one_and_judges_the_same(gate: LiveGateSpec, wrong: str | None) -> None:
    said = find_laxer(OWN, plan_of(OWN, None, AskedRollout(gates=(gate,))))
    assert said is None if wrong is None else said is not None and wrong in said
