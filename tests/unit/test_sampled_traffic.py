"""Samples become recordings: each once, of clients only, no more than there is room for, until they are too old."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from release_platform.adapters.call_counts import calls_of
from release_platform.adapters.recordings import Recordings
from release_platform.domain.refusals import Calls, CallsOfMinute, Reason, added
from release_platform.domain.samples import Label, Sample
from release_platform.domain.windows import Route
from release_platform.sampled_traffic import MOST_PAGES, SampledTraffic
from tests.fakes.servers import FakeServers

ONE, TWO = "http://one", "http://two"
DAY = date(2026, 3, 1)
MINUTE = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() // 60)


def sample(number: int, *, n_rows: int = 1, replica: str = "a", **changes: Any) -> Sample:
    given = {"model": "churn", "version": "3", "route": Route.STABLE, "minute": MINUTE}
    columns = {"age": [number] * n_rows, "city": ["Bern"] * n_rows}
    of = {"prediction_id": f"{replica}-{number:x}", "columns": columns, "predictions": ["no"] * n_rows}
    return Sample(**{**of, **given, **changes})


@pytest.fixture
def servers() -> FakeServers:
    made = FakeServers(ONE, TWO)
    made.closed = MINUTE
    return made


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    return Recordings(str(tmp_path / "recordings"))


def kept(recordings: Recordings, version: str = "3") -> pd.DataFrame:
    return recordings.read("churn", version, recordings.days("churn", version))


def test_rows_are_kept_by_version_and_day_with_what_was_answered(servers: FakeServers, recordings: Recordings) -> None:
    servers.sampled[ONE] = [sample(1, n_rows=2), sample(2, version="4", route=Route.CANARY)]
    found = SampledTraffic(recordings, recordings, servers).collect({"churn"}, {})

    assert (found.rows, found.problems, found.seen) == ({"churn": 3}, (), {ONE: MINUTE, TWO: MINUTE})
    assert recordings.days("churn", "3") == (DAY,)
    rows = kept(recordings)
    assert rows[["age", "city", "prediction", "prediction_id"]].values.tolist() == [[1, "Bern", "no", "a-1"]] * 2
    assert rows["at"].tolist() == [pd.Timestamp("2026-03-01T12:00Z")] * 2
    assert kept(recordings, "4")["prediction_id"].tolist() == ["a-2"]


def test_what_is_fetched_again_is_kept_once(servers: FakeServers, recordings: Recordings) -> None:
    servers.sampled[ONE], servers.sampled[TWO] = [sample(1)], [sample(1, replica="b")]
    traffic = SampledTraffic(recordings, recordings, servers)
    seen = traffic.collect({"churn"}, {}).seen

    assert traffic.collect({"churn"}, {}).rows == {}, "a cursor that was lost"
    servers.sampled[ONE].append(sample(2, minute=MINUTE + 1))
    servers.closed = MINUTE + 1
    assert traffic.collect({"churn"}, seen).rows == {"churn": 1}
    assert sorted(kept(recordings)["prediction_id"]) == ["a-1", "a-2", "b-1"]


def test_a_server_that_is_down_is_named_and_asked_for_the_same_minutes_later(
    servers: FakeServers, recordings: Recordings
) -> None:
    servers.sampled[ONE], servers.sampled[TWO] = [sample(1)], [sample(1, replica="b")]
    servers.down = {TWO}
    traffic = SampledTraffic(recordings, recordings, servers)
    found = traffic.collect({"churn"}, {})
    assert found.problems == (f"{TWO} does not hand in all samples: down",)
    assert found.seen == {ONE: MINUTE}

    servers.down = set()
    assert traffic.collect({"churn"}, found.seen).rows == {"churn": 1}


def test_a_server_that_tells_little_at_once_is_asked_again_and_no_other(
    servers: FakeServers, recordings: Recordings
) -> None:
    servers.sampled[ONE] = [sample(number, minute=MINUTE - number) for number in range(5)]
    servers.minutes_told = 2
    servers.down = {TWO}
    traffic = SampledTraffic(recordings, recordings, servers)
    found = traffic.collect({"churn"}, {})

    assert (found.rows, found.seen) == ({"churn": 5}, {ONE: MINUTE})
    assert found.problems == (f"{TWO} does not hand in all samples: down",), "once"


def test_what_is_too_much_for_one_time_is_fetched_the_next(servers: FakeServers, recordings: Recordings) -> None:
    servers.sampled[ONE] = [sample(number, minute=MINUTE - number) for number in range(MOST_PAGES + 5)]
    servers.minutes_told = 1
    traffic = SampledTraffic(recordings, recordings, servers)
    found = traffic.collect({"churn"}, {})
    assert found.rows == {"churn": MOST_PAGES}
    assert found.seen == {ONE: MINUTE - 5, TWO: MINUTE}

    assert traffic.collect({"churn"}, found.seen).rows == {"churn": 5}


def test_shadows_and_models_of_somebody_else_are_left(servers: FakeServers, recordings: Recordings) -> None:
    servers.sampled[ONE] = [sample(1, route=Route.SHADOW), sample(2, model="other")]

    assert SampledTraffic(recordings, recordings, servers).collect({"churn"}, {}).rows == {}
    assert recordings.days("churn", "3") == recordings.days("other", "3") == ()


def test_a_busy_minute_is_thinned_to_the_bound_whatever_is_in_it(servers: FakeServers, recordings: Recordings) -> None:
    servers.sampled[ONE] = [sample(number, n_rows=7) for number in range(100)]
    found = SampledTraffic(recordings, recordings, servers, most_rows=50).collect({"churn"}, {})

    assert found.rows == {"churn": 49}
    numbers = kept(recordings)["age"].unique()
    assert numbers.min() < 50 <= numbers.max(), "not only the first of the minute"


def test_how_many_calls_came_is_kept_by_day_each_minute_once(
    servers: FakeServers, recordings: Recordings, tmp_path: Path
) -> None:
    calls = Recordings(str(tmp_path / "calls"))
    counted = Calls(answered=7, refused=2, faults={("age", Reason.MISSING): 2})
    of = CallsOfMinute(model="churn", version="3", minute=MINUTE, replica="a", calls=counted)
    servers.called[ONE] = [of, replace(of, replica="b"), replace(of, model="other")]
    traffic = SampledTraffic(recordings, recordings, servers, calls=calls)
    for _ in range(2):
        traffic.collect({"churn"}, {})

    assert calls_of(calls.read("churn", "3", [DAY])) == added([counted, counted])
    assert calls.join_day("churn", "3", DAY) == 2
    assert calls_of(calls.read("churn", "3", [DAY])) == added([counted, counted])
    assert calls.days("other", "3") == ()


def test_the_probability_of_each_answer_is_recorded_where_a_server_tells_it(
    servers: FakeServers, recordings: Recordings
) -> None:
    servers.sampled[ONE] = [sample(1, n_rows=2, confidences=[0.75, 0.5]), sample(2, version="4")]
    SampledTraffic(recordings, recordings, servers).collect({"churn"}, {})

    assert kept(recordings)["confidence"].tolist() == [0.75, 0.5]
    assert "confidence" not in kept(recordings, "4")


def test_labels_are_kept_by_the_day_on_which_they_came_each_once(
    servers: FakeServers, recordings: Recordings, tmp_path: Path
) -> None:
    labels = Recordings(str(tmp_path / "labels"))
    of = {"model": "churn", "version": "3", "minute": MINUTE}
    told = [Label(prediction_id=f"a-{n}", label=label, **of) for n, label in ((1, "no"), (1, "no"), (2, True))]  # type: ignore[arg-type]
    servers.labelled[ONE] = [*told, Label(prediction_id="a-3", label="no", **of | {"model": "other"})]  # type: ignore[arg-type]
    traffic = SampledTraffic(recordings, labels, servers)

    assert traffic.collect({"churn"}, {}).labels == {"churn": 2}
    assert traffic.collect({"churn"}, {}).labels == {}
    assert labels.days("churn", "3") == (DAY,)
    assert labels.read("churn", "3", [DAY]).values.tolist() == [["a-1", "no"], ["a-2", "true"]]
    assert labels.days("other", "3") == ()


@pytest.mark.parametrize("wrong", [{"model": "../x"}, {"version": "one"}, {"prediction_id": "a"}, {"label": None}])
def test_a_label_without_sane_names_is_none(wrong: dict[str, Any]) -> None:
    of = {"prediction_id": "a-1", "model": "churn", "version": "3", "minute": MINUTE, "label": "no"}
    assert Label.from_json(of).replica == "a"
    with pytest.raises(ValueError, match="label"):
        Label.from_json(of | wrong)


def test_a_missing_value_and_an_input_with_a_name_of_ours_are_kept(
    servers: FakeServers, recordings: Recordings
) -> None:
    servers.sampled[ONE] = [
        sample(1, columns={"at": [5], "age": [None]}),
        sample(2, columns={"at": [6], "age": [4]}, minute=MINUTE - 1),
    ]
    SampledTraffic(recordings, recordings, servers).collect({"churn"}, {})

    assert kept(recordings)["at"].tolist() == [6, 5]
    assert kept(recordings)["age"].isna().tolist() == [False, True]


def test_days_that_are_too_old_are_removed_of_every_version(recordings: Recordings) -> None:
    for version, day in (("1", 1), ("1", 2), ("2", 1)):
        recordings.add("churn", version, date(2026, 3, day), pd.DataFrame({"x": [1]}), name="a")
    recordings.add("other", "1", DAY, pd.DataFrame({"x": [1]}), name="a")

    assert recordings.drop_before("churn", date(2026, 3, 2)) == 2
    assert recordings.drop_before("churn", date(2026, 3, 2)) == 0
    assert recordings.days("churn", "1") == (date(2026, 3, 2),)
    assert recordings.days("churn", "2") == ()
    assert recordings.days("other", "1") == (DAY,)
