"""A drill over two real servers under load: to the previous version and back, cut off between, and overtaken.

Release store, packages, signatures, servers and HTTP are real.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import httpx
import pytest
import uvicorn
from pydantic import SecretStr

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.adapters.key_ring import KeyRing
from release_platform.adapters.operators_api import OperatorsApi
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.servers import Servers
from release_platform.api.app import create_app
from release_platform.api.routes import act_id
from release_platform.cli import remote
from release_platform.defs.drill import CHECK, DAILY, SCHEDULE, build_drill
from release_platform.defs.naming import asset_key
from release_platform.domain.api_keys import Scope
from release_platform.domain.drill import Drilled, Outcome, find_unfinished
from release_platform.domain.errors import NotFound, Refused, SpecError, Unavailable, VerificationFailed
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.rollout import Order as RolloutOrder
from release_platform.domain.stamps import OPERATOR_TAG
from release_platform.domain.strategy import Strategy
from release_platform.drills import AUTOMATIC, CUT_OFF_S, Drills, Order, failure_of
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import Settings
from release_platform.standing import rollback_status
from tests.fakes.clock import FakeClock
from tests.fakes.meddler import as_it_is, last_bit, meddling
from tests.fakes.operators import write_model
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, build_onnx_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.rollout_world import MODEL, World
from tests.fakes.server import on_a_thread, running, settings_for, until, until_version
from tests.fakes.servers import FakeServers
from tests.unit.test_drill import drilled

ROW = dict.fromkeys(CANCER_INPUTS, 1.5)
POLICY = PolicySpec(current_baseline=False)
CLOSED = FreezeWindow(reason="closing", from_="2020-01-01T00:00:00+00:00", until="2999-01-01T00:00:00+00:00")
NOBODY = "http://127.0.0.1:1"


@dataclass
class Live:
    """A platform with version 2 in Production after 1, and two servers under load."""

    world: World
    urls: tuple[str, ...]
    client: httpx.Client
    n_drills: int = 0
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)

    def drills(self, *urls: str) -> Drills:
        return Drills(self.world.releases, urls or self.urls)

    def order(self, actor: str = "grace") -> Order:
        self.n_drills += 1
        return Order(model=MODEL, drill_id=f"d{self.n_drills}", actor=actor, reason="every month")

    def run(self, moved: Callable[..., None] = lambda *_: None, *urls: str) -> Drilled:
        return self.drills(*urls).run(self.order(), POLICY, moved=moved)

    def stand(self) -> tuple[str | None, tuple[str, ...]]:
        head = self.world.store.head(MODEL)
        return head.production, head.previous

    def cut_off(self) -> None:
        """Leaves a drill as a process that was killed between its moves does."""
        self.n_drills += 1
        cut_off(self.world, f"d{self.n_drills}")

    def ask(self, version: str, strategy: Strategy, request_id: str) -> None:
        """Asks for a version that needs no approval, and begins to carry that out."""
        if self.world.store.head(MODEL).staging != version:
            self.world.stage(version)
        of = {"version": version, "actor": "ada", "reason": "better", "strategy": strategy}
        self.world.releases.request(MODEL, request_id=request_id, **cast(Any, of))
        self.world.rollouts.carry_out(request_id, self.world.spec)

    def load(self, ended: Event) -> None:
        while not ended.wait(0.02):
            for url in self.urls:
                answer = self.client.post(f"{url}/v1/models/{MODEL}/predict", json={"rows": [ROW]})
                self.answers[answer.status_code, answer.headers.get("x-model-version", "")] += 1


def cut_off(world: World, drill_id: str) -> None:
    """Leaves a drill as a process that was killed between its moves does."""
    world.releases.rollback(MODEL, to="1", actor="ada", reason="drill: cut", request_id=f"{drill_id}#drill-there")


def services_of(world: World, urls: Sequence[str]) -> Services:
    """Returns the services of a process that drills."""
    settings = Settings(home=world.home, models=world.home / "models", serving_url=",".join(urls))
    of = {"store": world.store, "releases": world.releases, "rollouts": world.rollouts}
    return cast(Services, SimpleNamespace(settings=settings, server_urls=settings.serving_urls, **of))


def location_of(world: World, services: Services) -> dg.Definitions:
    """Returns the drills of a code location that has this model."""
    project = Project(spec=world.spec, folder=world.home)
    platform = dg.ResourceDefinition.hardcoded_resource(SimpleNamespace(services=services))
    resources = dg.Definitions(resources={"platform": platform})
    return dg.Definitions.merge(build_drill({MODEL: project}, ""), resources)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    good = {(MODEL, n): build_linear_classifier(root / n, model=MODEL, n_rows=300 + 50 * int(n)) for n in ("1", "2")}
    return good | {(MODEL, "3"): build_onnx_classifier(root / "3", model=MODEL)}  # its columns have other names


@pytest.fixture(scope="module")
def live(folders: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("drill")
    (root / "home").mkdir()
    world = World.make(folders, root / "home")
    world.spec = replace(world.spec, rollout=replace(world.spec.rollout, strategy=Strategy.ALL_AT_ONCE))
    world.ask("2")
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=30))
        settings = [settings_for(root / n / "cache", key_folder=world.home / "keys", refresh_s=2.0) for n in ("a", "b")]
        urls = tuple(stack.enter_context(running(one, world.registry)) for one in settings)
        for url in urls:
            with httpx.Client(base_url=url) as one:
                until_version(one, MODEL, "2")
        world.servers = cast(Any, Servers(urls))
        world.store.close()
        world.clock, world.store = cast(Any, SystemClock()), ReleaseStore(f"sqlite:///{world.home / 'release.db'}")
        world.compose(world.store, world.registry, world.keys)
        yield Live(world, urls, client)
    world.store.close()


@pytest.fixture(autouse=True)
def _as_before(live: Live) -> Iterator[None]:
    assert live.stand() == ("2", ("1",))
    yield
    assert live.stand() == ("2", ("1",)), "a drill leaves Production as it was"


@pytest.mark.timeout(300)
def test_a_drill_swaps_and_comes_back_while_every_answer_is_right(live: Live) -> None:
    moves: list[LedgerRow] = []
    ended = Event()
    load = Thread(target=live.load, args=(ended,))
    load.start()
    try:
        found = live.run(lambda row, said: moves.append(row))
    finally:
        ended.set()
        load.join()
    assert (found.problems, found.n_failures) == ((), 0), found
    assert found.outcome is Outcome.READY
    assert found.there_ms is not None
    assert found.back_ms is not None
    assert set(found.servers) == set(live.urls)
    assert found.there_ms in {times[0] for times in found.servers.values()}
    assert found.n_requests >= 20
    assert [(row.move, row.version, row.actor, row.reason) for row in moves] == [
        ("rolled_back", "1", "grace", "drill: every month"),
        ("rolled_back", "2", "grace", "drill: every month"),
    ]
    assert {status for status, _ in live.answers} == {200}, "no client was let down"
    assert {version for _, version in live.answers} == {"1", "2"}
    assert failure_of(found) is None
    shown = rollback_status(live.world.releases, live.world.store.head(MODEL))
    assert shown is not None
    assert shown["said"].startswith(f"rollback-ready, {found.slowest_ms:.0f} ms, ")
    assert live.world.wrong() == []


@pytest.mark.timeout(300)
def test_a_drill_that_is_killed_between_its_moves_is_brought_back_by_the_next_look(live: Live) -> None:
    live.cut_off()
    store = live.world.store
    assert find_unfinished(store.ledger(MODEL)) is not None
    shown = rollback_status(live.world.releases, store.head(MODEL))
    assert shown is not None
    assert "or was cut off" in shown["said"]
    assert live.drills().recover(MODEL) is None, "it may be under way"
    found = live.drills().recover(MODEL, older_than_s=0)
    assert found is not None
    assert found.outcome is Outcome.CUT_OFF
    assert store.ledger(MODEL)[-1].actor == AUTOMATIC
    assert isinstance(failure_of(found), Refused)
    live.cut_off()
    assert live.run().outcome is Outcome.CUT_OFF, "so does the command, at once"
    assert find_unfinished(store.ledger(MODEL)) is None


@pytest.mark.timeout(300)
def test_whatever_stops_a_drill_in_its_own_process_production_comes_back(live: Live) -> None:
    class Away(Exception):
        pass

    def stop(row: LedgerRow, said: object) -> None:
        if row.version == "1":
            live.world.stage("3")  # moves no version of Production, so it holds nothing up
            raise Away

    order = live.order()
    with pytest.raises(Away):
        live.drills().run(order, POLICY, moved=stop)
    assert live.stand() == ("2", ("1",))
    assert live.world.store.ledger(MODEL)[-1].actor == "grace"
    with pytest.raises(Refused, match="what it showed was not kept"):
        live.drills().run(order, POLICY)


@pytest.mark.timeout(300)
def test_a_move_of_somebody_else_meanwhile_stays(live: Live) -> None:
    def move(row: LedgerRow, said: object) -> None:
        if row.version == "1":
            live.world.releases.rollback(MODEL, to="2", actor="ada", reason="the outage")

    found = live.run(move)
    assert (found.outcome, len(found.problems)) == (Outcome.OVERTAKEN, 1)
    assert "by ada meanwhile (the outage), and stays" in found.problems[0]
    assert live.world.store.ledger(MODEL)[-1].actor == "ada"
    assert isinstance(failure_of(found), Refused)


def test_no_drill_where_it_could_do_harm_and_nothing_moves(live: Live) -> None:
    epoch = live.world.store.head(MODEL).epoch
    frozen = replace(POLICY, freeze=(CLOSED,))
    with pytest.raises(Refused, match="closing"):
        live.drills().run(live.order(), frozen)
    with pytest.raises(NotFound, match="names no server"):
        Drills(live.world.releases, ()).run(live.order(), POLICY)
    with pytest.raises(Refused, match="an actor and a reason"):
        live.drills().run(live.order(actor=" "), POLICY)
    with pytest.raises(Unavailable, match="cannot be reached"):
        live.run(lambda *_: None, live.urls[0], NOBODY)
    assert live.world.store.head(MODEL).epoch == epoch


@pytest.mark.timeout(300)
def test_a_server_that_answers_wrongly_is_not_drilled(live: Live) -> None:
    epoch = live.world.store.head(MODEL).epoch
    with meddling(live.urls[0], change=last_bit) as wrong, pytest.raises(VerificationFailed) as failed:
        live.run(lambda *_: None, wrong, live.urls[1])
    assert failed.value.problem.startswith(f"{wrong}: ")
    assert live.urls[1] not in failed.value.problem
    assert "nothing was moved" in failed.value.remedy
    assert live.world.store.head(MODEL).epoch == epoch


@pytest.mark.timeout(300)
def test_a_server_that_answers_wrongly_with_the_previous_version_is_not_rollback_ready(live: Live) -> None:
    def spoil(response: httpx.Response) -> tuple[dict[str, str], bytes]:
        return (last_bit if response.headers.get("x-model-version") == "1" else as_it_is)(response)

    with meddling(live.urls[0], change=spoil) as wrong:
        found = live.run(lambda *_: None, wrong, live.urls[1])
    assert found.outcome is Outcome.NOT_READY
    assert 1 <= found.n_failures < found.n_requests
    assert {problem.partition(": ")[0] for problem in found.problems} == {wrong}
    assert isinstance(failure_of(found), VerificationFailed)
    shown = rollback_status(live.world.releases, live.world.store.head(MODEL))
    assert shown is not None
    assert shown["ready"] is False
    assert shown["said"].startswith(f"not rollback-ready: {wrong}: ")


@pytest.mark.timeout(300)
def test_a_previous_version_that_takes_other_columns_is_not_rollback_ready_and_nothing_moves(live: Live) -> None:
    live.ask("3", Strategy.ALL_AT_ONCE, "other columns")
    assert live.stand() == ("3", ("1", "2"))
    epoch = live.world.store.head(MODEL).epoch
    try:
        found = live.run()
        assert live.world.store.head(MODEL).epoch == epoch
    finally:
        live.world.releases.rollback(MODEL, to=None, actor="ada", reason="as before")
    assert (found.outcome, found.home, found.away, found.n_requests) == (Outcome.NOT_READY, "3", "2", 0)
    (problem,) = found.problems
    assert "takes other rows than are asked now: mean area" in problem
    assert isinstance(failure_of(found), VerificationFailed)


@pytest.mark.timeout(300)
def test_no_drill_while_a_rollout_of_the_model_runs(live: Live) -> None:
    live.ask("3", Strategy.CANARY, "a canary")
    epoch = live.world.store.head(MODEL).epoch
    try:
        with pytest.raises(Refused, match="the rollout of version 3 is under way") as refused:
            live.run()
        assert f"release rollout status {MODEL}" in refused.value.remedy
        assert live.world.store.head(MODEL).epoch == epoch
    finally:
        live.world.order(RolloutOrder.ABORT)


# Through the operators' API


@pytest.fixture(scope="module")
def api(live: Live) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of the operators' API of this platform, and the keys of who may call it."""
    write_model(live.world.home / "models", MODEL)
    file = ApiKeyFile(live.world.home / "api-keys.json")
    scopes = {"grace": Scope.OPERATOR, "ada": Scope.OPERATOR, "reader": Scope.READ}
    keys = {name: file.create(name, [scope])[1] for name, scope in scopes.items()}
    app = create_app(services_of(live.world, live.urls), KeyRing(live.world.home / "api-keys.json"))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    with on_a_thread(uvicorn.Server(config)) as url:
        yield url, keys


@pytest.mark.timeout(300)
def test_a_drill_is_begun_once_by_one_caller_and_polled_by_all(live: Live, api: tuple[str, dict[str, str]]) -> None:
    url, keys = api
    client = httpx.Client(base_url=f"{url}/v1/models/{MODEL}", timeout=30)

    def begin(name: str, **body: str) -> httpx.Response:
        headers = {"idempotency-key": "one", "x-api-key": keys[name]}
        return client.post("/drills", json=body, headers=headers)

    def look() -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/drills/{drill_id}", headers={"x-api-key": keys["reader"]}).json()
        return found

    with client:
        assert begin("reader").status_code == 403
        first = begin("grace", reason="the holidays")
        assert (first.status_code, first.json()["state"]) == (202, "under_way")
        drill_id = first.json()["drill_id"]
        assert first.headers["location"] == f"/v1/models/{MODEL}/drills/{drill_id}"
        other = begin("ada")
        assert (other.status_code, f"drill {drill_id} of grace is under way" in other.json()["detail"]) == (409, True)
        assert begin("grace", reason="the holidays").json() == first.json()
        until(lambda: look()["state"] != "under_way", within_s=120)
        assert begin("grace", reason="the holidays").json() == look()
        assert client.get("/drills/none", headers={"x-api-key": keys["reader"]}).status_code == 404
        shown = look()
    assert (shown["state"], shown["problem"], shown["drill"]["outcome"]) == ("ended", None, "ready"), shown
    assert live.world.store.drills.find(drill_id) == Drilled.from_json(shown["drill"])
    moves = [row for row in live.world.store.ledger(MODEL) if row.request_id.startswith(drill_id)]
    assert [(row.version, row.actor, row.reason) for row in moves] == [
        ("1", "grace", "drill: the holidays"),
        ("2", "grace", "drill: the holidays"),
    ]


def test_an_operator_elsewhere_brings_back_what_was_cut_off(live: Live, api: tuple[str, dict[str, str]]) -> None:
    url, keys = api
    live.cut_off()
    with httpx.HTTPTransport() as transport:
        found = remote.drill(OperatorsApi(url, keys["grace"], transport=transport), MODEL, "is it back?")
    assert (found.drill_id, found.outcome) == (f"d{live.n_drills}", Outcome.CUT_OFF)
    assert live.world.store.ledger(MODEL)[-1].actor == "grace"


def test_a_drill_that_another_process_of_the_api_makes_is_not_begun_again(
    live: Live, api: tuple[str, dict[str, str]]
) -> None:
    url, keys = api
    drill_id = f"drill-{act_id('grace', f'drill {MODEL}', 'two')}"
    cut_off(live.world, drill_id)
    headers = {"idempotency-key": "two", "x-api-key": keys["grace"]}
    sent = httpx.post(f"{url}/v1/models/{MODEL}/drills", json={}, headers=headers).json()
    assert (sent["drill_id"], sent["state"], live.stand()) == (drill_id, "under_way", ("1", ()))
    live.drills().recover(MODEL, older_than_s=0)
    shown = httpx.get(f"{url}/v1/models/{MODEL}/drills/{drill_id}", headers=headers).json()
    assert (shown["state"], shown["drill"]["outcome"]) == ("ended", "cut_off")


def test_a_process_of_the_api_that_knows_of_no_drill_is_asked_again() -> None:
    found = drilled()
    under_way = {"drill_id": "d1", "model": "m", "state": "under_way", "drill": None, "problem": None}
    unknown = {"type": "urn:model-release:problem:not-found", "detail": "there is no drill d1", "remedy": "look"}
    ended = under_way | {"state": "ended", "drill": found.to_json()}
    answers = iter([(202, under_way), (404, unknown), (200, ended)])

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = next(answers)
        return httpx.Response(status, json=body)

    api = OperatorsApi("http://api", "key", transport=httpx.MockTransport(answer))
    assert remote.drill(api, "m", "") == Drilled.from_json(found.to_json())


# In Dagster


def test_the_sensor_brings_back_what_was_cut_off_two_minutes_ago_and_nothing_else(
    folders: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    clock = FakeClock(datetime.now(UTC) - timedelta(seconds=CUT_OFF_S + 1))
    world = World(tmp_path, FakeRegistry(folders, signs=False), clock, FakeServers())
    world.release_first()
    world.ask("2", Strategy.ALL_AT_ONCE)
    services = services_of(world, ())
    (sensor,) = location_of(world, services).sensors or ()
    resources = {"platform": SimpleNamespace(services=services)}

    def look(instance: dg.DagsterInstance) -> tuple[str, list[Any]]:
        with dg.build_sensor_context(instance, resources=resources) as context:
            found = cast(Any, sensor)(context)
        assert not found.run_requests
        return found.skip_reason.skip_message, found.asset_events

    with dg.DagsterInstance.ephemeral() as instance:
        assert look(instance) == ("no drill was cut off", [])
        cut_off(world, "old")
        said, (move, check) = look(instance)
        assert look(instance) == ("no drill was cut off", [])
        row = world.store.ledger(MODEL)[-1]
        clock.pass_s(31)
        cut_off(world, "young")
        assert look(instance) == ("no drill was cut off", []), "it may be under way"
    assert said == f"{MODEL}: the drill was cut off; version 2 was rolled_back by {AUTOMATIC}"
    assert (move.asset_key, move.metadata["version"].value) == (asset_key(MODEL, "production_version"), "2")
    assert (check.check_name, check.passed, check.severity) == (CHECK, False, dg.AssetCheckSeverity.WARN)
    assert (row.version, row.actor, row.reason) == ("2", AUTOMATIC, "drill: the one of ada was cut off")
    assert world.store.head(MODEL).production == "1"
    world.store.close()


@pytest.mark.timeout(300)
def test_the_job_shows_both_moves_and_the_check_their_times(live: Live) -> None:
    job = location_of(live.world, services_of(live.world, live.urls)).resolve_job_def("drill")
    form = {"model": MODEL, "actor": "grace", "reason": "every month"}
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            run_config={"ops": {"swap_and_return": {"config": form}}},
            instance=instance,
        )
        moves = instance.fetch_materializations(asset_key(MODEL, "production_version"), limit=5).records
        events = [event for event in result.all_events if event.event_type_value == "ASSET_CHECK_EVALUATION"]
    (check,) = [event.event_specific_data for event in events]
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert (check.check_name, check.passed) == (CHECK, True)
    assert {"there_ms", "back_ms", "requests", "failures"} <= set(check.metadata)
    shown = [record.asset_materialization for record in moves]
    assert [one.metadata["version"].value for one in shown if one] == ["2", "1"], "the newest first"


def test_the_schedule_is_off_until_somebody_says_when() -> None:
    (off,), (on,) = (list(build_drill({}, cron).schedules or ()) for cron in ("", "41 4 * * 1"))
    assert isinstance(off, dg.ScheduleDefinition)
    assert isinstance(on, dg.ScheduleDefinition)
    assert (off.default_status, off.cron_schedule) == (dg.DefaultScheduleStatus.STOPPED, DAILY)
    assert (on.default_status, on.cron_schedule) == (dg.DefaultScheduleStatus.RUNNING, "41 4 * * 1")
    with pytest.raises(SpecError, match="no cron expression"):
        build_drill({}, "every monday")


@pytest.mark.parametrize(
    ("tags", "runs"),
    [
        ({}, False),
        ({"dagster/schedule_name": SCHEDULE}, True),
        ({"dagster/schedule_name": SCHEDULE, OPERATOR_TAG: "ada"}, False),
    ],
    ids=["nobody", "the schedule", "who signed in and hides behind the schedule"],
)
def test_where_keys_are_required_only_what_nobody_launched_is_the_schedules(tags: dict[str, str], runs: bool) -> None:
    settings = Settings(require_keys=True, stamp_secret=SecretStr("s" * 40))
    platform = SimpleNamespace(services=SimpleNamespace(settings=settings, server_urls=settings.serving_urls))
    resources = {"platform": dg.ResourceDefinition.hardcoded_resource(platform)}
    location = dg.Definitions.merge(build_drill({}, ""), dg.Definitions(resources=resources))
    with dg.DagsterInstance.ephemeral() as instance:
        result = location.resolve_job_def("drill").execute_in_process(
            instance=instance, tags=tags, raise_on_error=False
        )
    assert result.success is runs
