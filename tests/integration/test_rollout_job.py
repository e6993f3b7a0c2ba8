"""A rollout in Dagster: the promotion job begins it, the sensor carries it on, and two assets show it."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.defs.rollout import in_turn
from release_platform.domain.coverage import Owed
from release_platform.domain.errors import Unavailable
from release_platform.domain.lifecycle import Share
from release_platform.domain.policy import RequestState
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.rollout import Order
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, StepSpec, Strategy
from release_platform.domain.windows import Route, Window, WindowKey
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import Settings
from tests.integration.homes import Done, Home, changed, example, open_home, warm_release, why

MODEL = "diabetes"
PLAN = RolloutSpec(
    strategy=Strategy.CANARY,
    canary=(StepSpec(weight=0.2, minimum_s=60),),
    bake_s=0,
    gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.05),),
)
PROJECT: Project = changed(example(MODEL), rollout=PLAN)


@pytest.fixture(scope="module")
def staged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 in Production and version 2 in Staging."""
    folder = tmp_path_factory.mktemp("rollout") / "home"
    with open_home(folder) as home:
        for request_id in ("first", ""):
            result = home.release(PROJECT)
            assert result.success, why(result)
            if request_id:
                promote(home, request_id)
        home.services.store.close()
    return folder


@pytest.fixture
def home(staged_once: Path, tmp_path: Path) -> Iterator[Home]:
    with open_home(shutil.copytree(staged_once, tmp_path / "home")) as opened, closing(opened.services.store):
        yield opened


def promote(home: Home, request_id: str, project: Project = PROJECT, **form: Any) -> None:
    asked = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": request_id, **form}
    assert home.launch("request_promotion", project, **asked).success
    result = home.launch("promote", project, request_id=request_id)
    assert result.success, why(result)


class Daemon:
    """Evaluates the rollout sensor as Dagster's daemon does: what it returns is recorded, and its cursor kept."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._cursor: str | None = None

    def tick(self, project: Project = PROJECT) -> str:
        sensor = self._home.definitions(project).resolve_sensor_def("rollout_sensor")
        resources = {"platform": Platform()}
        with dg.build_sensor_context(self._home.instance, cursor=self._cursor, resources=resources) as context:
            data = sensor.evaluate_tick(context)
        for event in data.asset_events:
            self._home.instance.report_runless_asset_event(event)
        self._cursor = data.cursor
        return data.skip_message or ""

    def shown(self, asset: str = "rollout") -> list[dg.AssetMaterialization]:
        records = self._home.instance.fetch_materializations(asset_key(MODEL, asset), limit=50).records
        return [record.asset_materialization for record in reversed(records) if record.asset_materialization]


@pytest.fixture
def daemon(home: Home) -> Daemon:
    return Daemon(home)


def measured(home: Home, *, errors: int = 0, minutes: int = 10) -> None:
    """Makes the rollout some minutes old, with traffic in each of them."""
    store = home.services.store
    kept = store.rollouts.find_current(MODEL)
    assert kept is not None
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    assert store.rollouts.save(kept, replace(kept.rollout, since=since)) is not None
    first = int(since.timestamp() // 60)
    failed = {"timeout": errors} if errors else {}
    for minute in range(first, first + minutes + 1):
        canary = WindowKey(model=MODEL, version="2", route=Route.CANARY, minute=minute)
        stable = WindowKey(model=MODEL, version="1", route=Route.STABLE, minute=minute)
        store.windows.record("r", [Window(key=canary, requests=100, errors=failed), Window(key=stable, requests=400)])
        owed = [Owed(minute=minute, url=url, told=True) for url in home.services.server_urls]
        store.windows.record_owed(MODEL, owed)


def values(of: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in of.metadata.items()}


def test_each_round_begins_with_another_model() -> None:
    projects, shown = dict.fromkeys("abc", PROJECT), dict[str, Any]()
    rounds = ["".join(name for name, _ in in_turn(projects, shown)) for _ in range(4)]
    assert rounds == ["abc", "bca", "cab", "abc"]
    assert in_turn({}, shown) == []


def test_a_good_version_goes_its_way_in_dagster(home: Home, daemon: Daemon) -> None:
    promote(home, "second")
    assert home.services.store.head(MODEL).canary == Share(version="2", weight=0.2)
    assert [values(of)["version"] for of in daemon.shown("production_version")] == ["1"]
    assert "running in stage 1 of 2, canary 20 %" in daemon.tick()
    assert "hands in no windows" in daemon.tick()
    assert len(daemon.shown()) == 1
    measured(home)
    daemon.tick()
    daemon.tick()
    daemon.tick()
    head = home.services.store.head(MODEL)
    assert (head.production, head.canary) == ("2", None)
    begun, full, last = daemon.shown()
    assert values(begun) | {"canary_weight": 0.2, "state": "running", "stage": 1} == values(begun)
    assert values(full) | {"canary_weight": 0.0, "state": "running", "stage": 2} == values(full)
    assert values(full) | {"judged_stage": 1, "errors_difference": 0.0} == values(full)
    assert values(full)["gates"].records[0].data["verdict"] == "passed"
    assert values(full)["plot"].startswith("![arms](data:image/png;base64,")
    assert values(last) | {"stage": 2, "state": "completed", "version": "2"} == values(last)
    moved = values(daemon.shown("production_version")[-1])
    assert (moved["version"], moved["epoch"], moved["request"]) == ("2", head.epoch, "second")
    assert len(daemon.shown("production_version")) == 2
    assert daemon.tick() == "no rollout is under way"


def test_a_bad_version_is_shown_with_what_the_judge_found(home: Home, daemon: Daemon) -> None:
    promote(home, "second")
    daemon.tick()
    measured(home, errors=40)
    daemon.tick()
    assert home.services.store.head(MODEL).canary is None
    last = values(daemon.shown()[-1])
    assert (last["state"], last["errors_difference"], last["errors_margin"]) == ("aborted", 0.4, 0.05)
    assert last["plot"].startswith("![arms](data:image/png;base64,")
    assert last["gates"].records[0].data["verdict"] == "failed"
    assert home.services.store.get_request("second").state is RequestState.REFUSED


def test_an_order_of_a_person_is_shown_with_their_name(home: Home, daemon: Daemon) -> None:
    promote(home, "second")
    policy = PROJECT.spec.policy
    home.services.rollouts.order(MODEL, Order.PAUSE, actor="grace", reason="lunch", policy=policy)
    daemon.tick()
    assert (values(daemon.shown()[-1])["state"], values(daemon.shown()[-1])["actor"]) == ("paused", "grace")


def test_a_request_goes_by_the_steps_and_gates_that_it_names(home: Home) -> None:
    promote(home, "second", steps=["5%:2000:10m", "20%:5000:15m:2h"], gates=["errors:2%"], bake="1m")
    plan = home.services.store.rollouts.find("second").rollout.plan  # type: ignore[union-attr]
    assert [stage.said for stage in plan.stages] == ["canary 5 %", "canary 20 %", "all traffic"]
    assert (plan.canary[1].minimum_requests, plan.canary[1].maximum_s, plan.bake_s) == (5000, 7200, 60)
    assert plan.gates[0].margin == 0.02
    assert home.services.store.get_request("second").asked.canary == plan.canary


def test_a_request_that_would_skip_what_the_yaml_demands_is_refused(home: Home) -> None:
    asked = {"model": MODEL, "actor": "ada", "reason": "better"}
    for laxer, why_not in (
        ({"strategy": "all_at_once"}, "its defs.yaml demands a canary"),
        ({"steps": ["20%:99:10m"]}, "it asks for 99 request"),
        ({"gates": ["errors:6%"]}, "accepts 6 % more"),
    ):
        result = home.launch("request_promotion", PROJECT, **asked, **laxer)
        assert not result.success
        assert why_not in why(result)
    assert home.services.store.requests(MODEL, RequestState.OPEN) == ()


def test_a_yaml_that_demands_more_meanwhile_counts(home: Home) -> None:
    open_yaml = changed(PROJECT, rollout=RolloutSpec())
    asked = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": "second", "strategy": "all_at_once"}
    assert home.launch("request_promotion", open_yaml, **asked).success
    result = home.launch("promote", PROJECT, request_id="second")
    assert not result.success
    assert "its defs.yaml demands a canary" in why(result)
    assert home.services.store.head(MODEL).production == "1"


def test_a_strategy_that_there_is_not_is_refused_with_the_nearest_one(home: Home) -> None:
    asked = {"model": MODEL, "actor": "ada", "reason": "better", "strategy": "canray"}
    result = home.launch("request_promotion", PROJECT, **asked)
    assert not result.success
    assert "did you mean 'canary'?" in why(result)


def test_a_sensor_that_was_killed_before_it_said_so_says_it_at_the_next_look(home: Home, daemon: Daemon) -> None:
    promote(home, "second")
    measured(home)
    for _ in range(3):  # what it returned was lost each time
        home.services.rollouts.step(MODEL, PROJECT.spec)
    daemon.tick()
    assert values(daemon.shown()[-1])["state"] == "completed"
    assert values(daemon.shown("production_version")[-1])["version"] == "2"


def test_a_rollback_by_policy_is_shown_as_every_move(home: Home, daemon: Daemon) -> None:
    promote(home, "second", changed(PROJECT, rollout=RolloutSpec()))
    home.services.releases.rollback(MODEL, to="1", actor=POLICY, reason="errors: 20 % of 900 bad")
    for _ in range(2):
        daemon.tick()
    moves = [values(of) for of in daemon.shown("production_version")]
    assert [(of["version"], of["actor"]) for of in moves] == [("1", "ada"), ("2", "ada"), ("1", POLICY)]


def test_a_policy_says_why_it_does_not_act(home: Home, daemon: Daemon) -> None:
    watched = changed(PROJECT, rollback_policy=RollbackSpec())
    assert f"{MODEL}: there is no version before to go back to" in daemon.tick(watched)


def test_a_policy_looks_while_a_rollout_waits_for_the_registry(
    home: Home, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a version that got all traffic while the registry was away, so that its rollout is not through with it
    policy = RollbackSpec(gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.05),))
    project = changed(example(MODEL), rollout=replace(PLAN, bake_s=600), rollback_policy=policy)
    promote(home, "second", project)
    monkeypatch.setenv("RELEASE_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    away = Services(Settings())
    with pytest.raises(Unavailable):
        away.rollouts.order(MODEL, Order.PROMOTE, actor="ada", reason="at once", policy=project.spec.policy)
    assert home.services.store.head(MODEL).production == "2"

    # When the sensor looks, then the rollout waits, and the policy watches the version all the same
    said = daemon.tick(project)
    assert "127.0.0.1:9) does not answer" in said
    assert "errors: no minute of version" in said


def test_a_rollout_from_the_command_line(home: Home) -> None:
    with warm_release() as command:

        def release(*arguments: str) -> Done:
            return command(home.folder, *arguments, RELEASE_SERVING_URL="", RELEASE_ACTOR="ada")

        def order(name: str) -> dict[str, Any]:
            done = release("rollout", name, MODEL, "--reason", f"to {name}", "--actor", "grace", "--json")
            assert done.exit_code == 0, done.err
            return dict(done.json)

        begun = release("promote", MODEL, "--strategy", "canary", "--reason", "better")
        assert begun.exit_code == 0, begun.err
        assert "diabetes: version 2 beside version 1, canary" in begun.out
        assert "running in stage 1 of 4, canary 5 %" in begun.out
        assert "no Dagster daemon runs here" in begun.err
        again = release("promote", MODEL, "--reason", "better", "--json")
        assert (again.json["state"], again.json["stage"]) == ("running", 1)
        assert "canary: version 2 with 5 % of the traffic" in release("status", MODEL).out
        paused = order("pause")
        assert (paused["state"], paused["actor"], paused["reason"]) == ("paused", "grace", "pause by grace: to pause")
        assert order("resume")["state"] == "running"
        assert order("promote")["stage"] == 4
        aborted = order("abort")
        assert (aborted["state"], aborted["settled"]) == ("aborted", True)
        refused = release("rollout", "pause", MODEL, "--reason", "late")
        assert refused.exit_code != 0
        assert "it is aborted already" in refused.err
        shown = release("rollout", "status", MODEL, "--watch")
        assert shown.exit_code == 0
        assert "aborted: abort by grace: to abort" in shown.out
        moves = [(row["move"], row["version"], row["actor"]) for row in release("history", MODEL, "--json").json]
        assert moves[-3:] == [("canary_set", "2", "ada"), ("promoted", "2", "ada"), ("rolled_back", "1", "grace")]
        audit = release("audit", MODEL)
        assert audit.exit_code == 0, audit.err


def test_a_model_without_a_rollout_says_how_one_begins(home: Home) -> None:
    with warm_release() as command:
        done = command(home.folder, "rollout", "status", MODEL, RELEASE_SERVING_URL="")
    assert done.exit_code == 5
    assert "there is no rollout" in done.err
    assert "--strategy canary" in done.err
