"""The sensor that records requests says why there are none, and removes days that are too old, once a day."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from release_platform.adapters.recordings import Recordings
from release_platform.defs.recordings import build_recordings_sensor
from release_platform.defs.resources import Platform
from release_platform.project import Project
from release_platform.settings import Settings
from tests.unit.test_spec import spec

NOBODY = "http://127.0.0.1:1"
PROJECTS = {"churn": Project(spec=spec(drift={"keep_days": 40}), folder=Path())}
TODAY = datetime.now(UTC).date()


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    monkeypatch.setenv("RELEASE_HOME", str(tmp_path))
    monkeypatch.setenv("RELEASE_SERVING_URL", NOBODY)
    return Recordings(Settings().recording_root)


def tick(cursor: str | None = None) -> tuple[str, str | None]:
    """Returns what the sensor says, and its cursor."""
    done = build_recordings_sensor(PROJECTS)(dg.build_sensor_context(cursor=cursor, resources={"platform": Platform()}))
    assert isinstance(done, dg.SensorResult)
    assert isinstance(done.skip_reason, dg.SkipReason)
    return str(done.skip_reason.skip_message), done.cursor


def add(recordings: Recordings, day: date) -> None:
    recordings.add("churn", "1", day, pd.DataFrame({"age": [1]}), name="a")


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize("cursor", [None, "no JSON", "[]", '{"seen": 3}', '{"seen": {"http://one": "x"}}'])
def test_a_server_that_does_not_answer_is_named_whatever_the_cursor_holds(cursor: str | None) -> None:
    said, kept = tick(cursor)

    assert said.startswith(f"{NOBODY} does not hand in all samples: {NOBODY} cannot be reached")
    assert tick(kept) == (said, kept)


@pytest.mark.usefixtures("recordings")
def test_without_samples_it_says_how_servers_keep_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_SERVING_URL", "")

    assert "SERVING_SAMPLE_SHARE" in tick()[0]


def test_days_older_than_the_yaml_says_are_removed_once_a_day(recordings: Recordings) -> None:
    old, last = (TODAY - timedelta(days=ago) for ago in (41, 39))
    add(recordings, old)
    add(recordings, last)
    said, cursor = tick()
    assert "churn: recorded requests were too old: 1 file(s)" in said
    assert recordings.days("churn", "1") == (last,)

    add(recordings, old)
    assert "too old" not in tick(cursor)[0]


def test_finished_days_are_joined_one_at_a_tick(recordings: Recordings) -> None:
    days = [TODAY - timedelta(days=ago) for ago in (4, 3, 0)]
    for day in days:
        for name in ("1-a", "2-a"):
            recordings.add("churn", "1", day, pd.DataFrame({"age": [1]}), name=name)
    cursor, said = None, []
    for _ in range(3):
        one, cursor = tick(cursor)
        said.append([line for line in one.splitlines() if "are one now" in line])

    assert said == [
        [f"churn: 2 file(s) of recorded requests of version 1 on {days[0]} are one now"],
        [f"churn: 2 file(s) of recorded requests of version 1 on {days[1]} are one now"],
        [],
    ]
    assert recordings.loose_days("churn", before=TODAY) == ()
    assert len(recordings.read("churn", "1", days)) == 6
