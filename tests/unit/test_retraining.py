"""When the release pipeline starts by itself: once for each cause, one at a time, so often, and not for ever."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.lifecycle import Head
from release_platform.domain.retrain_spec import RetrainSpec
from release_platform.domain.retraining import PastRun, Start, Wait, Wanted, decide_retraining, find_wanted_by_drift
from tests.unit.test_drift_day import DRIFTED, LIFT, QUIET

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SPEC = RetrainSpec(minimum_interval_s=3600, most_per_day=3, stop_after=2)
DATA, DRIFT = Wanted(key="data-a", why="the source holds other data"), Wanted(key="drift-3-2026-03-09", why="drift")
HEAD = Head(model="m", epoch=3, production="3")


def run(hours_ago: float, key: str = "", **changes: bool) -> PastRun:
    return PastRun(at=NOW - timedelta(hours=hours_ago), key=key, **{"ended": True, "succeeded": True, **changes})


def failed(hours_ago: float, key: str = "") -> PastRun:
    return run(hours_ago, key, succeeded=False)


def reason(spec: RetrainSpec, *runs: PastRun) -> str:
    found = decide_retraining(spec, [DATA], runs, NOW)
    return found.reason if isinstance(found, Wait) else ""


def test_without_a_cause_nothing_starts() -> None:
    assert decide_retraining(SPEC, [], [], NOW) == Wait(reason="neither drift nor new data asks for a run")


def test_a_cause_starts_it_once_whatever_became_of_the_run() -> None:
    assert decide_retraining(SPEC, [DRIFT, DATA], [run(100)], NOW) == Start(wanted=DRIFT)
    assert decide_retraining(SPEC, [DRIFT, DATA], [failed(99, DRIFT.key)], NOW) == Start(wanted=DATA)
    assert "was started for that already" in reason(SPEC, failed(99, DATA.key))


@pytest.mark.parametrize("key", ["", "data-z"])
def test_one_at_a_time_whoever_started_it(key: str) -> None:
    assert "under way, or waits in the queue" in reason(SPEC, run(9, key, ended=False, succeeded=False))


@pytest.mark.parametrize(("hours", "starts"), [(0.999, False), (1.0, True), (1.001, True)])
def test_it_keeps_its_distance_from_its_own_last_start(hours: float, starts: bool) -> None:
    assert (reason(SPEC, run(hours, "data-z")) == "") is starts
    assert reason(SPEC, run(hours)) == "", "a person's run costs nothing"


def test_no_more_than_so_many_in_any_day() -> None:
    runs = [run(hours, f"data-{hours}") for hours in (2, 9, 23)]
    assert "may start at 2026-03-10 13:00:00+00:00" in reason(SPEC, *runs)
    assert reason(SPEC, *runs[:2], run(24, "data-z")) == ""


def test_after_so_many_failures_in_a_row_it_ends_until_a_person_starts_one() -> None:
    row = [failed(30, "data-y"), failed(60, "data-x")]
    assert "stop_after: 2 retraining(s) in a row did not reach Staging; nothing starts until a person" in reason(
        SPEC, *row
    )
    assert reason(SPEC, run(29), *row) == reason(SPEC, failed(29), *row) == ""
    assert reason(SPEC, row[0], run(40, "data-w"), row[1]) == ""
    assert reason(SPEC, failed(30, "data-y"), failed(31, "data-y"), run(90)) == "", "a crash that was retried"


@pytest.mark.parametrize("wanted", [[], [DATA], [Wanted(key="data-z", why="it was answered")]])
@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([run(1, "data-z", ended=False)], "one at a time: a run is under way"),
        ([failed(30, "data-y"), failed(60, "data-x")], "stop_after: 2 retraining(s)"),
        ([run(0.5, "data-z")], "minimum_interval_s: 3600; the next one may start at 2026-03-10 12:30:00+00:00"),
        (
            [run(hours, f"data-{hours}") for hours in (2, 9, 23)],
            "most_per_day: 3; the next one may start at 2026-03-10 13:00:00+00:00",
        ),
    ],
)
def test_a_bound_says_which_it_is_and_until_when_whether_anything_asks_or_not(
    wanted: list[Wanted], runs: list[PastRun], said: str
) -> None:
    found = decide_retraining(SPEC, wanted, runs, NOW)
    assert isinstance(found, Wait)
    assert found.bounded
    assert said in found.reason


def test_who_waits_for_something_else_may_look_for_more() -> None:
    assert decide_retraining(SPEC, [], [run(1, "data-a")], NOW) == Wait(
        reason="neither drift nor new data asks for a run"
    )
    answered = decide_retraining(SPEC, [DATA], [run(1, DATA.key)], NOW)
    assert isinstance(answered, Wait)
    assert not answered.bounded


def test_a_standing_alarm_asks_for_it_where_the_yaml_does() -> None:
    assert find_wanted_by_drift(DRIFTED, HEAD) == Wanted(key="drift-3-2026-03-01", why=DRIFTED.said)
    assert find_wanted_by_drift(None, HEAD) is None
    assert find_wanted_by_drift(QUIET, HEAD) is None
    assert find_wanted_by_drift(replace(DRIFTED, lift=LIFT), HEAD) is None
    assert find_wanted_by_drift(replace(DRIFTED, on_alarm=(OnAlarm.HOLD,)), HEAD) is None
    assert find_wanted_by_drift(DRIFTED, replace(HEAD, production="4")) is None


def test_an_alarm_asks_although_its_version_was_taken_back_for_it() -> None:
    back = replace(HEAD, production="2")
    wanted = Wanted(key="drift-3-2026-03-01", why=DRIFTED.said)
    assert find_wanted_by_drift(DRIFTED, back) is None
    assert find_wanted_by_drift(DRIFTED, back, "3") == wanted, "the same cause as before, so it starts one run"
    assert find_wanted_by_drift(DRIFTED, replace(back, staging="3"), "3") == wanted
    assert isinstance(find_wanted_by_drift(DRIFTED, replace(back, staging="4"), "3"), Wait)


@pytest.mark.parametrize(("staging", "waits"), [(None, False), ("2", False), ("4", True), ("10", True)])
def test_a_newer_version_in_staging_is_decided_on_first(staging: str | None, waits: bool) -> None:
    found = find_wanted_by_drift(DRIFTED, replace(HEAD, staging=staging))
    assert isinstance(found, Wait if waits else Wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"look_every_s": 59},
        {"look_every_s": float("nan")},
        {"minimum_interval_s": -1},
        {"minimum_interval_s": 2_592_001},
        {"most_per_day": 0},
        {"most_per_day": 25},
        {"stop_after": 0},
        {"stop_after": 21},
    ],
)
def test_bounds_cannot_be_written_away(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"look_every_s|most_per_day"):
        RetrainSpec(**wrong)  # type: ignore[arg-type]
