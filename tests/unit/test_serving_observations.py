"""Windows hold every routed request once, in minutes that are closed once."""

from datetime import UTC, datetime
from math import nan
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.adapters.trust import Proof
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import EVERY_SLICE, NOT_FINITE, Route, Window
from serving.errors import (
    DeadlinePassed,
    InvalidInput,
    NonFinitePrediction,
    Overloaded,
    PredictionFailed,
    Problem,
    Stopping,
)
from serving.metrics import Metrics
from serving.models import Beside, Live, LoadedModel, Origin, RouteTable
from serving.observations import KEPT_MINUTES, Observations, Reflection, error_kind
from serving.tallies import first_answer

FIRST = 29_000_000
ANSWER = Predictions(values=np.array(["yes"], dtype=object), probabilities=np.array([[0.25, 0.75]]))


def loaded(version):
    return LoadedModel(
        model="m",
        epoch=1,
        proof=Proof(signature="", certificate=""),
        version=version,
        digest="d",
        package=SimpleNamespace(task=Task.BINARY, classes=("no", "yes"), engine_name="fake"),
        since=datetime(2026, 1, 1, tzinfo=UTC),
        origin=Origin.REGISTRY,
    )


STABLE, CANARY, SHADOW = loaded("1"), loaded("2"), loaded("3")


class Server:
    """Observations under a clock that is set by hand; both its clocks go on together, unless one is put back."""

    def __init__(self, *, canary=True, **settings):
        beside = {"m": Beside(loaded=CANARY, weight=0.5)} if canary else {}
        self.live = Live(RouteTable(loaded={"m": STABLE}, canary=beside))
        self.wall_s, self.steady_s = FIRST * 60.0, 0.0
        self.metrics = Metrics(self.live)
        seconds = lambda: self.steady_s  # noqa: E731
        self.seen = Observations(live=self.live, metrics=self.metrics, clock=self, seconds=seconds, **settings)
        self.seen.count()

    def now(self):
        return datetime.fromtimestamp(self.wall_s, UTC)

    def pass_s(self, seconds, *, looks=True):
        while looks and seconds > 1:
            self.wall_s, self.steady_s, seconds = self.wall_s + 1, self.steady_s + 1, seconds - 1
            self.seen.count()
        self.wall_s, self.steady_s = self.wall_s + seconds, self.steady_s + seconds
        self.seen.count()

    def answer(self, version=STABLE, route=Route.STABLE, *, ms=2.0, error=""):
        answer, counted = (nan, nan) if error else first_answer(ANSWER)
        self.seen.put_down((version, route, self.steady_s - ms / 1000, self.steady_s, error, answer, counted, 1))

    def told(self, after=-1):
        sent = orjson.dumps(self.seen.closed_after(after))
        return [Window.from_json(window) for window in orjson.loads(sent)["windows"]]

    def counts(self):
        return {(w.key.version, w.key.minute - FIRST): w.requests for w in self.told()}


def test_a_minute_is_told_when_it_is_over_with_each_version_on_its_route():
    server = Server()
    for _ in range(3):
        server.answer()
    server.answer(CANARY, Route.CANARY)
    server.pass_s(59)
    assert server.told() == []
    server.pass_s(1)
    stable, canary = sorted(server.told(), key=lambda window: window.key.version)
    assert (stable.requests, stable.key.route, canary.requests, canary.key.route) == (3, "stable", 1, "canary")
    assert stable.predictions == {75: 3}
    assert sum(stable.latency.values()) == 3
    assert server.seen.closed_after(-1)["closed"] == FIRST


def test_what_versions_beside_production_are_given_is_told_of_each_model_that_is_served():
    assert Server().seen.closed_after(-1)["gives"] == {"m": [{"route": "canary", "version": "2", "weight": 0.5}]}
    assert Server(canary=False).seen.closed_after(-1)["gives"] == {"m": []}


def test_what_a_version_failed_is_counted_by_kind():
    server = Server()
    for error in ("", "prediction_failed", NOT_FINITE, NOT_FINITE):
        server.answer(error=error)
    server.pass_s(60)
    window = server.told()[0]
    assert (window.requests, window.errors) == (4, {"prediction_failed": 1, NOT_FINITE: 2})
    assert sum(window.predictions.values()) == 1
    text = server.metrics.exposition().decode()
    assert 'model_route="stable",result="not_finite",version="1"} 2.0' in text
    assert 'model_route="stable",result="answered",version="1"} 1.0' in text


def reflected(*reflections):
    """Returns the window of a shadow that made this of requests."""
    server = Server()
    server.seen.reflected(SHADOW, reflections)
    server.pass_s(60)
    return next(window for window in server.told() if window.key.route is Route.SHADOW)


def test_a_pair_is_counted_in_each_of_its_slices_with_what_became_what():
    pair = Reflection(number=1, ms=2.0, answer=1.0, counted=0.75, is_pair=True)
    window = reflected(pair._replace(flip="yes -> no", slices=("plan=pro",)), pair)
    assert window.pairs == {EVERY_SLICE: 2, "plan=pro": 1}
    assert window.flips == {EVERY_SLICE: {"yes -> no": 1}, "plan=pro": {"yes -> no": 1}}


def test_what_a_shadow_failed_is_its_error_and_no_pair():
    window = reflected(Reflection(number=1, ms=2.0, error="prediction_failed"))
    assert (window.requests, window.errors, window.pairs) == (1, {"prediction_failed": 1}, {})
    assert sum(window.latency.values()) == 1


def test_what_production_failed_has_no_pair():
    answer, counted = first_answer(ANSWER)
    window = reflected(Reflection(number=0, ms=2.0, answer=answer, counted=counted))
    assert (window.requests, window.errors, window.pairs, window.predictions) == (1, {}, {}, {75: 1})


def test_a_quiet_minute_has_windows_and_one_that_was_slept_through_has_none():
    server = Server()
    server.pass_s(120)
    assert server.counts() == {(version, minute): 0 for version in "12" for minute in (0, 1)}
    server.pass_s(180, looks=False)
    server.pass_s(60)
    assert {minute for _, minute in server.counts()} == {0, 1, 2, 5}


def test_a_route_that_is_gone_has_windows_until_the_minute_in_which_it_went():
    server = Server()
    server.pass_s(30)
    server.live.table = RouteTable(loaded={"m": STABLE})
    server.pass_s(90)
    assert server.counts() == {("1", 0): 0, ("2", 0): 0, ("1", 1): 0}


def test_a_request_that_is_counted_late_is_of_the_minute_in_which_it_was_answered_unless_that_is_closed():
    server = Server(canary=False)
    server.wall_s, server.steady_s = server.wall_s + 59.9, server.steady_s + 59.9
    server.answer()
    server.wall_s, server.steady_s = server.wall_s + 0.2, server.steady_s + 0.2
    server.seen.count()
    assert server.counts() == {("1", 0): 1}
    server.steady_s -= 10.0  # ... by a clock that is wrong about when
    server.answer()
    server.steady_s += 10.0
    server.pass_s(60)
    assert server.counts() == {("1", 0): 1, ("1", 1): 1}


def test_a_clock_that_is_put_back_reopens_no_minute():
    server = Server(canary=False)
    server.answer()
    server.pass_s(60)
    before = server.told()
    server.wall_s -= 45
    server.answer()
    server.pass_s(45)
    assert server.told() == before
    server.pass_s(60)
    assert server.counts() == {("1", 0): 1, ("1", 1): 1}


def test_only_later_minutes_are_told_and_what_was_told_never_changes():
    server = Server(canary=False)
    for _ in range(3):
        server.answer()
        server.pass_s(60)
    first = server.told()
    assert [window.key.minute for window in server.told(FIRST)] == [FIRST + 1, FIRST + 2]
    server.answer()
    server.pass_s(60)
    assert server.told()[:3] == first


def lost(server):
    lines = server.metrics.exposition().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith("serving_windows_lost_total")))


def test_windows_are_kept_for_an_hour_and_those_that_nobody_fetched_are_counted():
    server = Server(canary=False)
    server.pass_s(60 * KEPT_MINUTES)
    assert (len(server.told()), lost(server)) == (KEPT_MINUTES, 0)
    server.pass_s(60 * 5)
    assert lost(server) == 0  # they had been fetched
    server.pass_s(60 * (KEPT_MINUTES + 2))
    assert (len(server.told()), lost(server)) == (KEPT_MINUTES, 7)


def test_there_are_never_more_than_so_many():
    server = Server(most_windows=5)
    server.pass_s(600)
    assert (len(server.told()), lost(server)) == (5, 15)


@given(
    stream=st.lists(st.tuples(st.floats(0, 80), st.booleans(), st.sampled_from(["", "prediction_failed"])), max_size=40)
)
def test_every_request_is_in_one_window(stream):
    server = Server()
    for seconds, canary, error in stream:
        server.pass_s(seconds, looks=False)
        server.answer(CANARY if canary else STABLE, Route.CANARY if canary else Route.STABLE, error=error)
    server.pass_s(60)
    windows = server.told()
    assert len({window.key for window in windows}) == len(windows)
    assert sum(window.requests for window in windows) == len(stream)
    assert sum(sum(window.errors.values()) for window in windows) == sum(bool(error) for _, _, error in stream)
    assert sum(sum(window.predictions.values()) for window in windows) == sum(not error for _, _, error in stream)


def test_two_hundred_that_were_put_down_are_counted_without_waiting_for_the_second():
    server = Server(canary=False)
    for _ in range(430):
        server.answer()
    assert len(server.seen._put_down) == 30


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (NonFinitePrediction("", row=0), NOT_FINITE),
        (PredictionFailed(""), "prediction_failed"),
        (DeadlinePassed(""), "deadline_passed"),
        (Overloaded(""), "overloaded"),
        (Problem(""), "internal_error"),
        (Stopping(""), ""),
        (InvalidInput(""), ""),
    ],
)
def test_what_is_no_fault_of_the_version_is_no_error_of_it(problem, kind):
    assert error_kind(problem) == kind


def whole(server, after=-1):
    told = server.seen.closed_after(after)
    return told["since"] - FIRST, [minute - FIRST for minute in told["whole"]]


def test_the_minute_in_which_it_began_is_not_counted_from_beginning_to_end_and_later_ones_are():
    server = Server(canary=False)
    server.pass_s(60)
    assert whole(server) == (0, [])
    server.pass_s(150)
    assert whole(server) == (0, [1, 2])
    assert whole(server, FIRST + 1) == (0, [2])


def test_a_minute_that_was_slept_through_is_not_whole():
    server = Server(canary=False)
    server.pass_s(90)
    server.pass_s(180, looks=False)
    server.pass_s(60)
    assert whole(server) == (0, [1, 4])


def test_minutes_whose_windows_are_gone_are_not_whole_any_more():
    server = Server(canary=False, most_windows=3)
    server.pass_s(600)
    assert whole(server) == (0, [7, 8, 9])
    long = Server(canary=False)
    long.pass_s(60 * (KEPT_MINUTES + 5))
    assert whole(long) == (0, list(range(5, KEPT_MINUTES + 5)))


def test_at_its_end_a_process_tells_the_minute_that_is_not_over_and_its_successor_tells_it_when_it_is():
    first = Server()
    first.pass_s(61)
    first.answer()
    (ended,) = first.seen.end()
    assert (ended.replica, ended.since, ended.ended) == (first.seen.replica, FIRST, FIRST + 1)
    assert ended.whole == (FIRST + 1,)  # it began within the one before
    assert {(w.key.version, w.key.minute - FIRST): w.requests for w in ended.windows}["1", 1] == 1
    second = Server()
    second.seen.go_on_from((ended,))
    assert second.seen.closed_after(-1)["before"][0]["windows"] == []  # minute 1 is not over by its clock
    second.pass_s(120)
    told = orjson.loads(orjson.dumps(second.seen.closed_after(FIRST)))
    (before,) = told["before"]
    assert (before["replica"], before["ended"], before["whole"]) == (first.seen.replica, FIRST + 1, [FIRST + 1])
    assert sum(Window.from_json(window).requests for window in before["windows"]) == 1
    assert (told["since"], told["whole"]) == (FIRST, [FIRST + 1])
    assert second.seen.closed_after(FIRST - 1)["whole"] == [FIRST, FIRST + 1]  # it went on from the other


def test_who_ended_is_handed_on_for_an_hour():
    first = Server()
    first.pass_s(61)
    second = Server()
    second.seen.go_on_from(first.seen.end())
    second.pass_s(60)
    assert [one.replica for one in second.seen.end()] == [first.seen.replica, second.seen.replica]
    second = Server()
    second.seen.go_on_from(first.seen.end())
    second.pass_s(60 * (KEPT_MINUTES + 3))
    assert len(second.seen.end()) == 1
