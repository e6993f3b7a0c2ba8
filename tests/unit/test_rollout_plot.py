"""The plot of a rollout's stage: there when both versions were measured, and the same for the same windows."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from release_platform.domain.judge import Plan, plan
from release_platform.domain.rollout import begin
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, Strategy
from release_platform.domain.windows import EVERY_SLICE, Route, Window, WindowKey, number_bucket
from release_platform.pipeline.rollout_plot import as_markdown, draw_arms

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST = int(START.timestamp() // 60)


def planned(strategy: Strategy, *metrics: LiveMetric) -> Plan:
    gates = tuple(LiveGateSpec(metric=metric) for metric in metrics)
    spec = RolloutSpec(strategy=strategy, gates=gates)
    found = plan(begin(rollout_id="q", model="m", candidate="2", stable="1", plan=spec, at=START)[0])
    assert found is not None
    return found


def window(route: Route, minute: int, **counts: Any) -> Window:
    version = "1" if route is Route.STABLE else "2"
    key = WindowKey(model="m", version=version, route=route, minute=FIRST + minute)
    return Window(key=key, requests=100, latency={number_bucket(5 + minute): 100}, **counts)


def windows(route: Route, n: int, **counts: Any) -> list[Window]:
    return [w for minute in range(n) for w in (window(route, minute, **counts), window(Route.STABLE, minute))]


def size(image: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(image)).size


def test_each_gate_has_a_panel() -> None:
    of = planned(Strategy.CANARY, LiveMetric.ERRORS, LiveMetric.LATENCY)
    image = draw_arms(of, windows(Route.CANARY, 5, errors={"timeout": 3}), until=FIRST + 9)
    assert image is not None
    one = draw_arms(replace(of, gates=of.gates[:1]), windows(Route.CANARY, 5), until=FIRST + 9)
    assert one is not None
    assert size(image)[1] - size(one)[1] == 150
    assert image == draw_arms(of, windows(Route.CANARY, 5, errors={"timeout": 3}), until=FIRST + 9)
    assert image != draw_arms(of, windows(Route.CANARY, 5), until=FIRST + 9)


def test_of_predictions_the_question_is_drawn_by_which_the_versions_differ_most() -> None:
    def drawn(n_high: int) -> bytes | None:
        pairs = [
            (
                window(Route.CANARY, minute, predictions={20: 100 - n_high, 80: n_high}),
                window(Route.STABLE, minute, predictions={20: 80, 80: 20}),
            )
            for minute in range(5)
        ]
        every = [one for pair in pairs for one in pair]
        return draw_arms(planned(Strategy.CANARY, LiveMetric.PREDICTIONS), every, until=FIRST + 9)

    assert drawn(50) is not None
    assert drawn(50) != drawn(70), "all rows of both are below the largest prediction, and that says nothing"


def test_a_shadow_is_drawn_by_its_pairs() -> None:
    found = windows(Route.SHADOW, 3, pairs={EVERY_SLICE: 50}, flips={EVERY_SLICE: {"no -> yes": 5}})
    assert draw_arms(planned(Strategy.SHADOW, LiveMetric.DISAGREEMENT), found, until=FIRST + 9) is not None


@pytest.mark.parametrize("found", [[], [window(Route.CANARY, 0)], [window(Route.CANARY, 0), window(Route.STABLE, 1)]])
def test_nothing_is_drawn_while_no_minute_has_both_versions(found: list[Window]) -> None:
    assert draw_arms(planned(Strategy.CANARY, LiveMetric.ERRORS), found, until=FIRST + 9) is None


def test_the_image_needs_no_file() -> None:
    text = as_markdown(b"png")
    assert base64.b64decode(text.removeprefix("![arms](data:image/png;base64,").removesuffix(")")) == b"png"
