"""Drift on a real platform: requests, the sensor that records them, the asset that goes on, its check, the command."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pandas as pd
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.defs.monitoring import STAGE, STATE
from release_platform.defs.naming import asset_key
from release_platform.defs.recordings import build_recordings_sensor
from release_platform.defs.resources import Platform
from release_platform.domain.api_keys import Scope
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.errors import IntegrityError
from release_platform.domain.messages import MessageKind
from release_platform.domain.messages import State as MessageState
from release_platform.drift_pages import drop_pages, keep_page
from release_platform.examples.breast_cancer.source import load
from release_platform.references import keep_reference, load_known
from release_platform.standing import status_of
from tests.fakes.clock import FakeClock
from tests.fakes.server import running, settings_for, until
from tests.integration.homes import Command, Home, changed, example, open_home, warm_release, why

MODEL = changed(example("breast_cancer"), drift=DriftSpec(on_alarm=(OnAlarm.NOTIFY, OnAlarm.HOLD)))
NAME = MODEL.spec.name
TODAY = datetime.now(UTC).date()
GROWN = "mean_radius"
LABELS = 60


class Live:
    """A home with breast_cancer in Production, and a server that samples every request; its days pass as told."""

    def __init__(self, home: Home, client: httpx.Client, clock: FakeClock) -> None:
        self.home, self.client, self.clock = home, client, clock
        self.cursor: str | None = None
        self.said = self.first_said = ""

    def serve_day(self, *, times: float = 1.0, labelled: int = 0) -> None:
        """Asks 200 rows in one minute, goes on to the next, and lets the sensor look; then a day is over.

        Beside that so many requests of one row are asked, and their labels are told.
        """
        for number in range(labelled):
            row = load().iloc[[number * 7]]
            inputs = row[[column.name for column in MODEL.spec.plan.inputs]].to_dict("list")
            answer = self.client.post(f"/v1/models/{NAME}/predict", json={"columns": inputs}).json()
            label = row[MODEL.spec.target.column].iloc[0]
            told = [{"prediction_id": answer["prediction_id"], "label": label}]
            assert self.client.post("/v1/outcomes", json=told).json()["counted"] == 1
        began = self.clock.now()
        self.clock.pass_s(60)  # of one minute no more than 200 rows are kept
        table = rows(began.day, times=times)
        for half in (table[:100], table[100:]):
            asked = self.client.post(f"/v1/models/{NAME}/predict", json={"columns": half.to_dict("list")})
            assert asked.status_code == 200, asked.text
        self.clock.pass_s(60)
        self.tick()
        self.clock.pass_s(86_400 - 120)

    def tick(self) -> None:
        context = dg.build_sensor_context(
            instance=self.home.instance, cursor=self.cursor, resources={"platform": Platform()}
        )
        done = build_recordings_sensor({NAME: MODEL})(context)
        assert isinstance(done, dg.SensorResult)
        assert isinstance(done.skip_reason, dg.SkipReason)
        self.cursor, self.said = done.cursor, str(done.skip_reason.skip_message)
        self.first_said = self.first_said or self.said


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A version in Production, and five days of requests like its training data, which the sensor recorded."""
    root = tmp_path_factory.mktemp("drift")
    with ExitStack() as stack:
        home = stack.enter_context(open_home(root / "home"))
        done = home.release(MODEL)
        assert done.success, why(done)
        releases = home.services.releases
        releases.request(NAME, version="1", actor="ada", reason="better", request_id="q1")
        releases.promote("q1", MODEL.spec.policy)
        clock, keys = FakeClock(datetime.combine(TODAY - timedelta(days=6), time(0), tzinfo=UTC)), root / "keys.json"
        predict, admin = (ApiKeyFile(keys).create(scope, [scope])[1] for scope in (Scope.PREDICT, Scope.ADMIN))
        settings = settings_for(
            root / "cache", key_folder=home.folder / "keys", api_keys=keys, sample_share=1.0, refresh_s=3600.0
        )
        registry = MlflowRegistry(home.services.settings.tracking_uri)
        url = stack.enter_context(running(settings, registry, clock=clock))
        client = stack.enter_context(httpx.Client(base_url=url, headers={"x-api-key": predict}, timeout=30))
        until(lambda: client.get("/readyz").status_code == 200)
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("RELEASE_SERVING_URL", url)
        environment.setenv("RELEASE_SERVING_ADMIN_KEY", admin)
        made = Live(home, client, clock)
        for number in range(5):
            made.serve_day(labelled=0 if number else LABELS)
        yield made


@pytest.fixture(scope="module")
def home(live: Live) -> Home:
    return live.home


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as command:
        yield command


def rows(seed: int, *, times: float = 1.0) -> pd.DataFrame:
    inputs = [column.name for column in MODEL.spec.plan.inputs]
    found = load()[inputs].sample(200, replace=True, random_state=seed).reset_index(drop=True)
    return found.assign(**{GROWN: found[GROWN] * times})


class Report:
    """What a run over some days shows: of each day, and its check."""

    def __init__(self, home: Home, days: Sequence[date]) -> None:
        done = home.materialize(MODEL, STAGE, days=days)
        assert done.success, why(done)
        (self.check,) = done.get_asset_check_evaluations()
        made = [event.step_materialization_data.materialization for event in done.get_asset_materialization_events()]
        self.days = {
            date.fromisoformat(str(one.partition)): {name: value.value for name, value in one.metadata.items()}
            for one in made
        }
        self.last = self.days[days[-1]]


def due(home: Home, day: date) -> list[date]:
    """Returns the days that are asked for on the morning of a day."""
    begins = datetime.combine(day, time(2, 20), tzinfo=UTC)
    of, cursor = dg.AssetSelection.assets(asset_key(NAME, STAGE)), None
    for after_s in (0, 30, 300):  # nothing is asked for before it is time, or twice
        found = dg.evaluate_automation_conditions(
            home.definitions(MODEL),
            instance=home.instance,
            asset_selection=of,
            evaluation_time=begins + timedelta(seconds=after_s),
            cursor=cursor,
        )
        assert after_s == 300 or found.total_requested == 0
        cursor = found.cursor
    return sorted(date.fromisoformat(key) for key in found.get_requested_partitions(asset_key(NAME, STAGE)) if key)


def test_the_sensor_keeps_each_request_once_and_says_what_it_did(live: Live) -> None:
    day = TODAY - timedelta(days=2)
    assert live.said.splitlines() == [
        f"{NAME}: 200 rows more are recorded",
        f"{NAME}: 1 file(s) of recorded requests of version 1 on {day} are one now",
    ]
    assert live.first_said.startswith(
        f"{NAME}: {200 + LABELS} rows more are recorded\n{NAME}: {LABELS} labels of recorded rows came"
    )
    for _ in range(2):  # the labels' day is joined, then nothing is left
        live.tick()
        assert "no server has a new sample" in live.said

    kept, live.cursor = live.cursor, "somebody wrote this"
    live.tick()  # asks for all that the server still has
    assert "no server has a new sample" in live.said
    assert live.cursor == kept


def test_the_report_goes_on_from_day_to_day_and_its_check_names_what_drifted(live: Live, release: Command) -> None:
    home, yesterday = live.home, TODAY - timedelta(days=1)
    assert due(home, yesterday) == [], "as far as Dagster knows nothing was ever in Production"
    home.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(NAME, "production_version")))
    asked = due(home, yesterday)
    assert (asked[0], asked[-1], len(asked)) == (yesterday - timedelta(days=31), yesterday - timedelta(days=1), 31)
    made = Report(home, asked)
    assert made.check.passed, made.check.description
    recorded = {day: of for day, of in made.days.items() if of["dagster/row_count"]}
    assert [of["dagster/row_count"] for of in recorded.values()] == [200 + LABELS, 200, 200, 200, 200]
    assert_tracked(home, made.last)
    assert made.last["days"] == 5
    assert made.last[f"psi/{GROWN}"] < 0.2
    assert made.last[f"share/{GROWN}"] < 0.2
    assert made.last[f"missing/{GROWN}"] == 0
    assert f"unseen/{GROWN}" not in made.last
    assert made.last["reference"] == "kept with the version"
    assert made.last["calibrated_on_days"] == 0
    learned = [day.shape for day in home.services.store.drift.days(NAME, "1")]
    assert [shape.n_rows[GROWN] for shape in learned if shape is not None] == [200 + LABELS, 200, 200, 200, 200]
    assert [shape.apart is None for shape in learned if shape is not None] == [True, False, False, False, False]
    assert page_of(home, made.last).startswith("<!DOCTYPE html>")
    assert due(home, yesterday) == [], "no day was finished meanwhile"

    live.serve_day(times=1.6)
    live.serve_day(times=1.6)  # today is not finished
    assert due(home, TODAY) == [yesterday]
    made = Report(home, [yesterday])
    assert not made.check.passed
    assert made.check.severity is dg.AssetCheckSeverity.WARN
    assert GROWN in str(made.last["columns_that_drifted"])
    assert made.last["days"] == 1
    shape = home.services.store.drift.days(NAME, "1")[-1].shape
    assert shape is not None
    assert shape.apart is not None, "the day before is read for it"
    state = made.last[STATE]
    assert state["last_day"] == yesterday.isoformat()
    assert state["detector"]["n_windows"] == 6
    assert_follows(home, release, made.last["report"])


def page_of(home: Home, shown: Mapping[str, Any]) -> str:
    """Returns the page that a report links to: it is among the artefacts of the version's run."""
    _, _, place = str(shown["report"]).partition("/runs/")
    run, _, path = place.partition("/artifactPath/")
    found = home.services.tracking.find_file(run, path)
    assert found is not None
    return found.decode()


def assert_tracked(home: Home, shown: Mapping[str, Any]) -> None:
    """The quality that was expected stands beside the one that labels showed."""
    names = [f"{what}_roc_auc_31_days" for what in ("real", "expected_of_labelled", "estimate_error")]
    real, expected, error = (shown[name] for name in names)
    assert shown["labelled_rows_31_days"] == LABELS
    assert real > 0.9
    assert error == pytest.approx(expected - real)
    assert 0.9 < shown["expected_roc_auc"] <= 1
    assert "Expected and real quality" in page_of(home, shown)


def assert_follows(home: Home, release: Command, page: str) -> None:
    """The alarm is told once, with its columns and its report, and holds promotions until it is lifted."""
    (posted,) = home.services.store.outbox.find(MessageState.WAITING)
    told = posted.message.details
    assert posted.message.kind is MessageKind.DRIFT_ALARM
    assert told["day"] == (TODAY - timedelta(days=1)).isoformat()
    assert told["statistics"][GROWN]["share"] > 0.3
    assert told["report"] == page
    assert told["run_url"].startswith(home.services.settings.dagster_url)
    status = status_of(home.services.releases, MODEL)["drift"]
    assert status["holds"]
    assert page in status["said"]
    assert "this holds promotions" in release(home.folder, "status", NAME).out
    done = release(home.folder, "lift-hold", NAME, "--reason", "known", "--actor", "ada")
    assert "lifted by ada: known" in done.out, done.err
    assert not status_of(home.services.releases, MODEL)["drift"]["holds"]
    assert "lifted by ada: known" in release(home.folder, "status", NAME).out


def test_days_are_partitions_that_can_be_reported_again(home: Home) -> None:
    store = home.services.store
    days = [TODAY - timedelta(days=ago) for ago in range(6, 0, -1)]
    reported = {(TODAY - timedelta(days=ago)).isoformat() for ago in range(32, 0, -1)}
    assert home.instance.get_materialized_partitions(asset_key(NAME, STAGE)) == reported
    before, told = store.drift.days(NAME, "1"), store.outbox.find(MessageState.WAITING)
    state = home.materialization(MODEL, STAGE).metadata[STATE].value

    last = Report(home, days[-1:]).last
    assert last[STATE] == state, "the same rows after the same days say the same"
    assert GROWN in last["columns_that_drifted"]
    assert last[f"psi/{GROWN}"] > 0.2
    early = Report(home, [days[0] - timedelta(days=1), *days[:2]]).days
    assert early[days[0] - timedelta(days=1)] == {"dagster/row_count": 0}
    assert [early[day][STATE]["detector"]["n_windows"] for day in days[:2]] == [1, 2]
    assert early[days[0]]["labelled_rows"] == LABELS

    assert [(day.day, day.columns, day.lift) for day in store.drift.days(NAME, "1")] == [
        (day.day, day.columns, day.lift) for day in before
    ]
    assert store.outbox.find(MessageState.WAITING) == told, "nothing is told again"
    again = Report(home, days[-1:]).last
    assert again[STATE] == state, "what comes next goes on from the day before, not from what was made last"


def test_the_reference_is_kept_with_the_version_and_needs_no_training_data(home: Home) -> None:
    services, data = home.services, Path(home.services.settings.snapshot_root)
    registration = services.store.get_registration(NAME, "1")
    (file,) = home.folder.glob("artifacts/**/drift/reference-*.parquet")
    data.rename(data.with_name("gone"))
    try:
        kept = load_known(services, registration)
    finally:
        data.with_name("gone").rename(data)
    assert kept.made_anew == ""
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    with pytest.raises(IntegrityError, match="its drift reference in MLflow is not the one that was registered"):
        load_known(services, registration)
    file.unlink()
    made = load_known(services, registration)
    assert "is gone from MLflow; it was made anew" in made.made_anew
    assert made.known.reference == kept.known.reference
    assert keep_reference(services, registration)
    assert file.read_bytes() == before, "the same data gives the same bytes"


def test_pages_that_are_too_old_are_removed_and_no_others(home: Home) -> None:
    registration = home.services.store.get_registration(NAME, "1")
    run, first = registration.mlflow_run_id, TODAY - timedelta(days=35)
    for ago in (0, 1, 400):
        keep_page(home.services, registration, "old", day=first - timedelta(days=ago))

    assert drop_pages(home.services, NAME, before=first) == 2
    assert home.services.tracking.find_file(run, f"drift/reports/{first}.html") == b"old"
    assert drop_pages(home.services, NAME, before=first) == 0


def test_no_release_materializes_it(home: Home) -> None:
    job = home.definitions(MODEL).resolve_job_def(f"release_{NAME}")

    assert asset_key(NAME, STAGE) not in job.asset_layer.executable_asset_keys


def test_the_command_compares_a_file_and_writes_a_page(home: Home, release: Command, tmp_path: Path) -> None:
    file, page = tmp_path / "july.parquet", tmp_path / "july.html"
    rows(1, times=1.6).to_parquet(file)
    done = release(home.folder, "drift", NAME, "--data", str(file), "--html", str(page), "--json")

    assert done.exit_code == 0, done.err
    assert done.json["drifted"] is True
    assert GROWN in done.json["columns"]
    assert done.json["rows"] == 200
    assert page.read_text().count("data:image/png;base64,") > 5


def test_the_command_finds_the_days_on_which_recorded_requests_shifted(home: Home, release: Command) -> None:
    done = release(home.folder, "drift", NAME, "--json")  # as far back as the model's YAML says

    assert done.exit_code == 0, done.err
    days = {window["begins"][:10]: window for window in done.json["windows"]}
    shifted = (TODAY - timedelta(days=1)).isoformat()
    assert {window["rows"] for window in days.values()} - {0} == {200, 200 + LABELS}  # 0: of today, see below
    every, day = done.json["with_labels"]
    assert (every["rows"], day["rows"], day["day"]) == (LABELS, LABELS, (TODAY - timedelta(days=6)).isoformat())
    assert day["qualities"]["roc_auc"]["real"] > 0.9
    assert GROWN in days.pop(shifted)["alarm"]
    days.pop(TODAY.isoformat(), None)  # its rows are of noon, which may be to come
    assert len(days) == 5
    assert not any(window["alarm"] or window["schema"] for window in days.values())


def test_the_command_shows_recorded_requests_to_people(home: Home, release: Command) -> None:
    done = release(home.folder, "drift", NAME, "--since", "4d")

    assert done.exit_code == 0, done.err
    assert "rows of" in done.out
    assert "calibrated on: 0 days; rows are taken to be independent until 10 days are recorded" in done.out
    assert "expected roc_auc, without labels" in done.out


def test_the_days_of_the_version_before_teach_those_of_the_next(home: Home, release: Command) -> None:
    store = home.services.store.drift
    one = store.days(NAME, "1")[0]
    assert one.shape is not None
    for days in range(8, 20):
        day = TODAY - timedelta(days=days)
        store.record(replace(one, version="0", day=day, shape=replace(one.shape, version="0", day=day)))
    done = release(home.folder, "drift", NAME, "--since", "7d", "--json")

    assert done.exit_code == 0, done.err
    windows = [window["calibrated_on"] for window in done.json["windows"] if window["rows"]]
    assert windows == [*range(12, 12 + len(windows))]
    told = release(home.folder, "drift", NAME, "--since", "7d").out
    assert f"calibrated on: {windows[-1]} recorded days of this model" in told


def test_without_rows_it_says_what_to_do(home: Home, release: Command, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    rows(1).head(0).to_parquet(empty)
    done = release(home.folder, "drift", NAME, "--data", str(empty))

    assert done.exit_code == 5
    assert "there are no rows" in done.err
    assert release(home.folder, "drift", NAME, "--since", "soon").exit_code == 2


def test_nothing_makes_the_report_until_somebody_switches_it_on(home: Home) -> None:
    sensor = home.definitions(MODEL).resolve_sensor_def(f"drift_{NAME}_daily")

    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_a_run_without_days_says_what_to_do(home: Home) -> None:
    done = home.materialize(MODEL, STAGE)
    assert not done.success
    assert "choose days under Materialize" in why(done)
