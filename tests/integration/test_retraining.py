"""Retraining on a real Dagster instance: new data and drift start the release pipeline, up to Staging, never beyond."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import PARTITIONS_TAG, Platform, partition_tags
from release_platform.defs.retraining import RETRAIN_TAG, look
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.lifecycle import Move
from release_platform.domain.retrain_spec import RetrainSpec
from release_platform.domain.rollback import POLICY
from release_platform.project import Project, parse_spec
from tests.integration.homes import Home, changed, example, open_home, why
from tests.unit.test_drift_day import DRIFTED

NAME = "orders"
SOON = {"new_data": True, "minimum_interval_s": 0, "most_per_day": 24, "stop_after": 2}

ALARM = replace(DRIFTED, model=NAME, on_alarm=(OnAlarm.RETRAIN,))


def write_orders(folder: Path, seed: int, *, told: float = 3.0) -> None:
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=400)
    late = np.where(rng.random(400) < 1 / (1 + np.exp(-told * amount)), "yes", "no")
    pd.DataFrame({"amount": amount, "late": late}).to_csv(folder / "orders.csv", index=False)


class World:
    """A model whose source is a file, and its sensor as Dagster evaluates it: what it launches is run to its end."""

    def __init__(self, home: Home, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        self.home, self.folder = home, folder
        write_orders(folder, 1)
        attributes = {
            "name": NAME,
            "task": "binary",
            "owner": "team:ml",
            "source": {"csv": "orders.csv"},
            "contract": {
                "columns": {"amount": {"type": "number"}, "late": {"type": "category", "allowed": ["no", "yes"]}}
            },
            "target": {"column": "late", "positive": "yes"},
            "features": ["amount"],
            "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
            "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.7}],
            "policy": {"current_baseline": False},
            "drift": {"on_alarm": ["retrain"]},
            "retrain": SOON,
            **(more or {}),
        }
        self.project = Project(spec=parse_spec(attributes, file=folder / "defs.yaml"), folder=folder)

    def tick(self) -> dg.RunRequest | str:
        """Returns what the sensor launches first, or why nothing."""
        definitions = self.home.definitions(self.project)
        sensor = definitions.resolve_sensor_def(f"retrain_{NAME}")
        with dg.build_sensor_context(
            instance=self.home.instance, resources={"platform": Platform()}, definitions=definitions
        ) as context:
            found = sensor.evaluate_tick(context)
        return found.run_requests[0] if found.run_requests else str(found.skip_message)

    def carry_out(self, request: dg.RunRequest | str) -> dg.ExecuteInProcessResult:
        assert isinstance(request, dg.RunRequest), request
        assert request.job_name is not None
        job = self.home.definitions(self.project).resolve_job_def(request.job_name)
        return job.execute_in_process(instance=self.home.instance, raise_on_error=False, tags=dict(request.tags))

    def look_at_source(self) -> None:
        job = self.home.definitions(self.project).resolve_job_def(f"ingest_{NAME}")
        assert job.execute_in_process(instance=self.home.instance).success

    @property
    def head(self) -> tuple[str | None, str | None]:
        head = self.home.services.store.head(NAME)
        return head.staging, head.production


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("retraining")
    (root / "orders").mkdir()
    with open_home(root / "home") as home:
        yield World(home, root / "orders")


def test_new_data_is_trained_on_up_to_staging_and_once(world: World) -> None:
    assert "it was never released: the first release is a person's, `release run orders`" in str(world.tick())
    done = world.home.release(world.project)
    assert done.success, why(done)
    releases = world.home.services.releases
    releases.request(NAME, version="1", actor="ada", reason="first", request_id="q1")
    releases.promote("q1", world.project.spec.policy)
    assert world.tick() == "neither drift nor new data asks for a run", "it was just read, by the release"

    write_orders(world.folder, 2)
    hour = datetime.now(UTC) + timedelta(hours=1)
    (later,) = look(world.project, world.home.services, world.home.instance, now=hour)
    assert isinstance(later, dg.RunRequest)
    assert later.job_name == f"ingest_{NAME}"
    assert later.run_key == f"ingest-{NAME}-3600-{int(hour.timestamp() // 3600)}"
    assert world.carry_out(later).success
    request = world.tick()
    assert isinstance(request, dg.RunRequest)
    assert request == world.tick(), "a tick that is repeated asks for the same run, by the same key"
    assert (request.job_name, request.run_key) == (f"release_{NAME}", f"retrain-{NAME}-{request.tags[RETRAIN_TAG]}")
    done = world.carry_out(request)
    assert done.success, why(done)
    assert world.head == ("2", "1"), "in Staging, not beyond"
    assert [one.request_id for one in world.home.services.store.requests(NAME)] == ["q1"]
    assert world.tick() == "neither drift nor new data asks for a run"


def test_a_drift_alarm_waits_for_the_person_who_has_a_newer_version_in_staging(world: World) -> None:
    store, releases = world.home.services.store, world.home.services.releases
    store.drift.record(replace(ALARM, version="1"))
    assert "version 2 in Staging waits for a person first" in str(world.tick())
    releases.request(NAME, version="2", actor="ada", reason="newer", request_id="q2")
    releases.promote("q2", world.project.spec.policy)
    assert world.tick() == "neither drift nor new data asks for a run", "it was an alarm of the version before"

    store.drift.record(replace(ALARM, version="2"))
    request = world.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.tags[RETRAIN_TAG] == "drift-2-2026-03-01"
    assert request.tags["release/retrained_because"].startswith("drift on 2026-03-01")
    assert world.carry_out(request).success
    assert world.head[1] == "2"


def test_a_storm_is_bounded(world: World) -> None:
    store, bounds = world.home.services.store, RetrainSpec(new_data=True, minimum_interval_s=0, most_per_day=2)
    store.drift.record(replace(ALARM, version="2", on_alarm=()))
    write_orders(world.folder, 3)
    world.look_at_source()
    wide, world.project = world.project, changed(world.project, retrain=bounds)
    assert "most_per_day: 2; the next one may start at" in str(world.tick()), "two were started today"
    due = datetime.now(UTC) + timedelta(hours=2)
    held = look(world.project, world.home.services, world.home.instance, now=due)
    assert isinstance(held, list)
    assert "most_per_day: 2" in "".join(held), "the source is due, and is not read for nothing"
    world.project = changed(wide, retrain=replace(bounds, most_per_day=24, minimum_interval_s=3600))
    assert "minimum_interval_s: 3600; the next one may start at" in str(world.tick())
    world.project = wide

    job, instance = world.home.definitions(wide).resolve_job_def(f"release_{NAME}"), world.home.instance
    waiting = instance.create_run_for_job(job)
    assert "a run is under way, or waits in the queue" in str(world.tick())
    instance.delete_run(waiting.run_id)


def test_after_gated_runs_in_a_row_it_stops_until_a_person_starts_one(world: World) -> None:
    for seed in (4, 5):
        write_orders(world.folder, seed, told=0.0)  # nothing to be learnt: the gate stops it
        world.look_at_source()
        assert not world.carry_out(world.tick()).success
    write_orders(world.folder, 6)
    world.look_at_source()
    assert "2 retraining(s) in a row did not reach Staging" in str(world.tick())
    assert world.home.release(world.project).success
    write_orders(world.folder, 7)
    world.look_at_source()
    assert isinstance(world.tick(), dg.RunRequest)


def test_an_alarm_that_took_its_version_back_is_retrained_for_whichever_sensor_was_first(world: World) -> None:
    store, releases = world.home.services.store, world.home.services.releases
    head = store.head(NAME)
    assert head.staging is not None
    releases.request(NAME, version=head.staging, actor="ada", reason="newest", request_id="q9")
    releases.promote("q9", world.project.spec.policy)
    drifted = store.head(NAME)
    store.drift.record(replace(ALARM, version=head.staging))
    before = drifted.previous[-1]
    releases.rollback(NAME, to=before, actor=POLICY, reason="drift", request_id="b9", expected_epoch=drifted.epoch)
    asked = world.tick()
    assert isinstance(asked, dg.RunRequest), asked
    assert asked.tags[RETRAIN_TAG] == f"drift-{head.staging}-2026-03-01"


def test_of_partitions_all_are_taken(world: World) -> None:
    drift = DriftSpec(on_alarm=(OnAlarm.RETRAIN,))
    flights = changed(example("flight_delay"), drift=drift, retrain=RetrainSpec())
    store = world.home.services.store
    for epoch, move in enumerate((Move.STAGED, Move.PROMOTED)):
        of = {"model": "flight_delay", "move": move, "version": "1", "actor": "ada", "reason": "r", "evidence": ""}
        store.commit_move(**of, expected_epoch=epoch, request_id=f"f{epoch}", digest="sha256:d")
    store.drift.record(replace(DRIFTED, model="flight_delay", version="1"))
    (request,) = look(flights, world.home.services, world.home.instance, now=datetime.now(UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.tags[PARTITIONS_TAG] == "2013-01:2013-12"


class Months:
    """A model whose raw data is by month, without a last one: the source is told which months it holds."""

    def __init__(self, home: Home, folder: Path) -> None:
        over = pd.period_range(end=pd.Period(datetime.now(UTC), "M") - 1, periods=4, freq="M")
        self.over = [str(month) for month in over]
        partitions = {"column": "at", "start": self.over[0]}
        columns = {"at": {"type": "timestamp"}, "amount": {"type": "number"}, "late": {"type": "category"}}
        self.world = World(home, folder, {"partitions": partitions, "contract": {"columns": columns}})
        self.hour = 0

    def hold(self, n_months: int) -> None:
        rng = np.random.default_rng(9)
        amount = rng.normal(size=400 * n_months)
        late = np.where(rng.random(amount.size) < 1 / (1 + np.exp(-3 * amount)), "yes", "no")
        at = np.repeat([f"{month}-15T12:00:00" for month in self.over[:n_months]], 400)
        pd.DataFrame({"at": at, "amount": amount, "late": late}).to_csv(self.world.folder / "orders.csv", index=False)

    def look_later(self) -> dict[str, dg.RunRequest]:
        """Returns what the sensor launches some hours later, by the months that each is over."""
        self.hour += 2
        now = datetime.now(UTC) + timedelta(hours=self.hour)
        found = look(self.world.project, self.world.home.services, self.world.home.instance, now=now)
        return {run.tags[PARTITIONS_TAG]: run for run in found if isinstance(run, dg.RunRequest)}

    @property
    def trained_on(self) -> list[str]:
        return sorted(self.world.home.record(self.world.project, "features").raw)


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Months]:
    root = tmp_path_factory.mktemp("months")
    (root / "orders").mkdir()
    with open_home(root / "home") as home:
        yield Months(home, root / "orders")


def test_a_month_that_is_over_is_a_partition_and_waited_for_until_the_source_holds_it(months: Months) -> None:
    first, second, third, fourth = months.over
    world, key = months.world, asset_key(NAME, "raw_data")
    months.hold(2)
    done = world.home.release(world.project, tags=partition_tags([first, second]))
    assert done.success, why(done)
    assert months.trained_on == [first, second]

    looks = months.look_later()
    assert list(looks) == [f"{first}:{second}", f"{third}:{third}", f"{fourth}:{fourth}"]
    assert len({run.run_key for run in looks.values()}) == 3
    late = world.carry_out(looks[f"{third}:{third}"])
    assert not late.success
    assert f"no row has its 'at' in {third}" in why(late)
    assert f"{third}, {fourth} is over and was never read" in str(world.tick())

    months.hold(3)
    assert world.carry_out(months.look_later()[f"{third}:{third}"]).success
    assert world.home.instance.get_materialized_partitions(key) == {first, second, third}
    request = world.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.tags[PARTITIONS_TAG] == f"{first}:{third}", "pinned to the months that were read"
    done = world.carry_out(request)
    assert done.success, why(done)
    assert world.head == ("2", None), "in Staging, not beyond"
    assert months.trained_on == [first, second, third]
    assert world.home.materialization(world.project, "features").metadata["partitions"].value == (
        f"{first}, {second}, {third}"
    )


def test_one_month_is_filled_in_again_by_itself(months: Months) -> None:
    world, (first, second, third, _) = months.world, months.over
    job = world.home.definitions(world.project).resolve_job_def(f"ingest_{NAME}")
    before = world.home.registrations(world.project)[-1]
    assert job.execute_in_process(instance=world.home.instance, tags=partition_tags([second])).success
    assert str(world.tick()).startswith("neither drift nor new data"), "it holds what it held"
    recorded = world.home.services.tracking.get_run(before.mlflow_run_id).data.tags["release.snapshots"]
    assert sorted(json.loads(recorded)) == [first, second, third], "what a version was trained on is with its run"


def test_a_model_that_does_not_ask_for_it_has_no_such_sensor(world: World) -> None:
    plain = changed(world.project, drift=DriftSpec(), retrain=RetrainSpec())
    definitions = world.home.definitions(plain)
    with pytest.raises(dg.DagsterInvariantViolationError):
        definitions.resolve_sensor_def(f"retrain_{NAME}")
    with pytest.raises(dg.DagsterInvariantViolationError):
        definitions.resolve_job_def(f"ingest_{NAME}")
