"""Recorded requests in a bucket on a real S3 server: joined by day, read, and removed when they are old."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pandas as pd
import pytest

from release_platform.adapters.call_counts import table_of
from release_platform.adapters.recordings import AT, LABEL, PREDICTION_ID, Recordings
from release_platform.domain.refusals import Calls, Reason
from release_platform.examples.breast_cancer.source import load
from tests.integration.homes import example, open_home, release_in, why
from tests.integration.s3_server import S3Server, running_s3

MODEL = example("breast_cancer")
NAME = MODEL.spec.name
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=n) for n in (3, 2, 1)]
BUCKET = "release"
MINUTES, ROWS = 4, 50
LABELS, GONE = 60, "mean_radius"


class Bucket:
    """A bucket on a real server, and the recorded requests in it."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.recordings = Recordings(f"s3://{BUCKET}/snapshots/recordings")

    def keys(self, under: str) -> list[str]:
        """Returns what lies in the bucket below a prefix, without it, and without the marks that stand for folders."""
        found = self.server.client().list_objects_v2(Bucket=BUCKET, Prefix=under).get("Contents", [])
        return sorted(one["Key"].removeprefix(under) for one in found if not one["Key"].endswith("/"))

    def record(self, day: date) -> pd.DataFrame:
        """Keeps the rows of each minute of a day in a file of its own, as the sensor does."""
        kept = []
        for minute in range(MINUTES):
            rows = answered(datetime.combine(day, time(12, minute), tzinfo=UTC))
            assert self.recordings.add_new(NAME, "1", day, rows, name=f"12{minute:02d}-a")
            kept.append(rows)
        return pd.concat(kept, ignore_index=True)


def answered(at: datetime) -> pd.DataFrame:
    """Returns the rows of a minute as they are recorded."""
    rows = load().sample(ROWS, replace=True, random_state=int(at.timestamp()) // 60 % 2**32).reset_index(drop=True)
    ids = [f"{at.isoformat()}-{number}" for number in range(ROWS)]
    inputs = rows[[column.name for column in MODEL.spec.plan.inputs]]
    return inputs.assign(**{"prediction": rows[MODEL.spec.target.column], PREDICTION_ID: ids, AT: at})


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as environment:
        server.client().create_bucket(Bucket=BUCKET)
        for name, value in server.environment.items():
            environment.setenv(name, value)
        yield Bucket(server)


def test_minutes_in_the_bucket_are_joined_by_day_and_no_row_is_lost_or_doubled(bucket: Bucket) -> None:
    wanted = pd.concat([bucket.record(day) for day in DAYS])
    under = f"snapshots/recordings/{NAME}/1/"
    assert len(bucket.keys(under)) == len(DAYS) * MINUTES
    assert bucket.recordings.loose_days(NAME, before=DAYS[-1]) == (("1", DAYS[0]), ("1", DAYS[1]))
    assert [bucket.recordings.join_day(NAME, "1", day) for day in DAYS[:2]] == [MINUTES, MINUTES]
    assert bucket.keys(under)[:2] == [f"{day}/day.parquet" for day in DAYS[:2]]
    assert bucket.recordings.loose_days(NAME, before=TODAY) == (("1", DAYS[2]),)
    found = bucket.recordings.read(NAME, "1", DAYS)
    for column in (PREDICTION_ID, "mean_radius", "prediction"):
        assert found[column].tolist() == wanted[column].tolist()


def test_a_joining_that_was_cut_off_goes_on_and_a_minute_that_comes_again_counts_once(bucket: Bucket) -> None:
    recordings, day = bucket.recordings, DAYS[0]
    before = recordings.read(NAME, "1", [day])
    again = answered(datetime.combine(day, time(12, 0), tzinfo=UTC))
    assert not recordings.add_new(NAME, "1", day, again, name="1200-a"), "it is in the day already"
    recordings.add(NAME, "1", day, again, name="1200-a")  # as if it had not been removed yet
    pd.testing.assert_frame_equal(recordings.read(NAME, "1", [day]), before)
    late = answered(datetime.combine(day, time(13, 0), tzinfo=UTC))
    assert recordings.add_new(NAME, "1", day, late, name="1300-b")
    assert recordings.join_day(NAME, "1", day) == 2
    assert len(recordings.read(NAME, "1", [day])) == len(before) + ROWS
    since = datetime.combine(day, time(13), tzinfo=UTC)
    first, n_rows = recordings.read_first(NAME, "1", since=since, until=since + timedelta(hours=1), most=10)
    assert (len(first), n_rows) == (10, ROWS)


def test_what_is_too_old_is_removed_from_the_bucket(bucket: Bucket) -> None:
    recordings = bucket.recordings
    assert recordings.drop_before(NAME, DAYS[1]) == 1
    assert recordings.days(NAME, "1") == tuple(DAYS[1:])
    assert recordings.drop_before(NAME, TODAY) == 1 + MINUTES
    assert bucket.keys(f"snapshots/recordings/{NAME}/") == []


def test_what_is_recorded_in_the_bucket_is_in_the_report_of_the_asset_and_of_the_command(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given three recorded days, one of them joined, with labels and refused calls, when they are looked at."""
    monkeypatch.setenv("RELEASE_SNAPSHOTS", f"s3://{BUCKET}/snapshots")
    with open_home(tmp_path / "home") as home:
        done = home.release(MODEL)
        assert done.success, why(done)
        home.services.releases.request(NAME, version="1", actor="ada", reason="better", request_id="q1")
        home.services.releases.promote("q1", MODEL.spec.policy)
        kept = [bucket.record(day) for day in DAYS]
        assert bucket.recordings.join_day(NAME, "1", DAYS[0]) == MINUTES
        labels = kept[0][[PREDICTION_ID, "prediction"]].head(LABELS).rename(columns={"prediction": LABEL})
        home.services.labels.add(NAME, "1", DAYS[1], labels, name="1200-a")
        refused = Calls(answered=MINUTES, refused=1, faults={(GONE, Reason.MISSING): 1})
        home.services.calls.add(NAME, "1", DAYS[2], table_of(refused), name="1200-a")
        report = home.materialize(MODEL, "drift_report", days=DAYS)
        assert report.success, why(report)
        shown = home.materialization(MODEL, "drift_report").metadata
        said = release_in(home.folder, "drift", NAME, "--json", RELEASE_SNAPSHOTS=f"s3://{BUCKET}/snapshots")

    assert said.exit_code == 0, said.err
    days = {window["begins"][:10]: window["rows"] for window in said.json["windows"]}
    assert days == {day.isoformat(): MINUTES * ROWS for day in DAYS}
    assert said.json["with_labels"][0]["rows"] == LABELS
    assert said.json["real_quality"]["n_rows"] == LABELS
    assert said.json["calls"]["refused"] == 1
    assert shown["days"].value == len(DAYS)
    assert shown["dagster/row_count"].value == MINUTES * ROWS
    assert said.json["rows"] == len(DAYS) * MINUTES * ROWS
    assert [key for key in bucket.keys("snapshots/") if key.split("/")[0] not in {"recordings", "labels", "calls"}]
    assert not (home.folder / "recordings").exists()
