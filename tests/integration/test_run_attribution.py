"""Who launched a run in Dagster: whoever signed in, and never who is named in form, tags or headers. Real processes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from release_platform.domain.ledger import LedgerRow
from release_platform.domain.policy import PromotionRequest, RequestState
from release_platform.domain.stamps import OPERATOR_TAG, STAMP_TAG, stamped
from release_platform.settings import Settings
from tests.chaos.operations import MODEL, POLICY, Parts, Place, log_package, open_parts, register
from tests.fakes.dagster_mutations import read_schema
from tests.fakes.dagster_stack import LOCATION, DagsterStack, ask, launch, launch_again, running_dagster
from tests.fakes.operators import Operators, running_api, secret_of, write_model
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.fakes.proxy import Proxy, running_proxy
from tests.fakes.server import until
from tests.integration.homes import blank_home

STAMPS = "stamps-of-a-test-0123456789abcdefghij"
PROXY = "proxy-secret-of-a-test-0123456789abcdef"
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Platform:
    """A Dagster of several processes over a release store that believes no one."""

    dagster: DagsterStack
    parts: Parts
    instance: dg.DagsterInstance

    def run(self, run_id: str) -> dg.DagsterRun:
        """Returns a run that has ended."""

        def ended() -> bool:
            run = self.instance.get_run_by_id(run_id)
            return run is not None and run.is_finished

        until(ended, within_s=240)
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def why(self, run_id: str) -> str:
        """Returns what a failed run says."""
        assert self.run(run_id).status is dg.DagsterRunStatus.FAILURE
        return "\n".join(str(entry.dagster_event or entry.user_message) for entry in self.instance.all_logs(run_id))

    def request_of(self, run_id: str) -> PromotionRequest:
        """Returns the promotion request that a run opened."""
        run = self.run(run_id)
        assert run.status is dg.DagsterRunStatus.SUCCESS, self.why(run_id)
        return self.parts.store.get_request(run.tags["release/request"])

    def rows(self) -> tuple[LedgerRow, ...]:
        return tuple(self.parts.store.ledger(MODEL))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Versions 1 and 2 were in Production one after the other, version 3 is in Staging."""
    folder = tmp_path_factory.mktemp("attribution")
    place = Place(home=folder / "home", store_url=f"sqlite:///{folder / 'home' / 'release.db'}")
    shutil.copytree(blank_home(), place.home)
    write_model(place.home / "models")
    parts = open_parts(place)
    for n, name in enumerate(("first", "second", "third"), start=1):
        package = build_linear_classifier(folder / "packages" / name, n_rows=300 + n)
        log_package(place, parts.store, name, package, manifest_of(package), folder / "artifacts")
        register(parts, name)
        if n < 3:
            parts.releases.request(MODEL, version=str(n), actor="ada", reason="better", request_id=f"q{n}")
            parts.releases.approve(f"q{n}", actor="grace", reason="read it", policy=POLICY)
            parts.releases.promote(f"q{n}", POLICY)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("DAGSTER_HOME", raising=False)
        environment.setenv("RELEASE_HOME", str(place.home))
        Settings().prepare()
        shared = {
            "RELEASE_REQUIRE_KEYS": "true",
            "RELEASE_MODELS": str(place.home / "models"),
            "RELEASE_SERVING_URL": "",
        }
        stamps = {"RELEASE_STAMP_SECRET": STAMPS}
        web = stamps | {"RELEASE_PROXY_SECRET": PROXY}
        with (
            running_dagster(place.home, shared=shared, web=web, code=stamps) as dagster,
            dg.DagsterInstance.get() as instance,
        ):
            yield Platform(dagster, parts, instance)
    parts.store.close()


def by(name: str, secret: str = PROXY) -> dict[str, Any]:
    """Returns how the proxy passes on the request of who signed in."""
    return {"headers": {"x-forwarded-user": name.encode(), "x-proxy-secret": secret}}


def form(**more: str) -> dict[str, Any]:
    return {"ops": {"open_request": {"config": {"model": MODEL, "actor": "mallory", "reason": "better", **more}}}}


@pytest.fixture(scope="module")
def asked(platform: Platform) -> str:
    """Ada's run that asks for version 3; its form names mallory, and so do the tags that came with it."""
    claims = {OPERATOR_TAG: "mallory", STAMP_TAG: "0" * 64}
    return launch(platform.dagster.writable, "request_promotion", form(), tags=claims, **by("ada"))


@pytest.fixture(scope="module")
def strangers(platform: Platform, asked: str) -> dict[str, str]:
    """Runs of people who did not sign in, each with another pretence."""
    url, stamp = platform.dagster.writable, platform.run(asked).tags
    copied = {name: stamp[name] for name in (OPERATOR_TAG, STAMP_TAG)}
    own = stamped("t" * 40, run_id="x", job="request_promotion", config=form(), operator="ada")
    runs = {
        "stamp of one's own": launch(url, "request_promotion", form(), tags=own),
        "wrong secret": launch(url, "request_promotion", form(), **by("ada", PROXY[:-1] + "x")),
        "copied stamp": launch(url, "request_promotion", form(), tags=copied),
        "executed again": launch_again(url, asked),
    }
    for run_id in runs.values():
        platform.run(run_id)
    return runs


def test_the_requester_is_who_signed_in_whatever_form_and_tags_say(platform: Platform, asked: str) -> None:
    request = platform.request_of(asked)
    assert (request.actor, request.version) == ("ada", "3")
    assert platform.run(asked).tags[OPERATOR_TAG] == "ada"


def test_what_nobody_who_signed_in_launched_fails_and_changes_nothing(
    platform: Platform, asked: str, strangers: dict[str, str]
) -> None:
    request = platform.request_of(asked)
    for pretence, run_id in strangers.items():
        assert "nobody who signed in launched this run" in platform.why(run_id), pretence
    assert [one.actor for one in platform.parts.store.requests(MODEL, RequestState.OPEN)] == ["ada"]
    assert platform.parts.store.get_request(request.request_id) == request


def test_what_strangers_wrote_into_the_tags_is_covered(platform: Platform, strangers: dict[str, str]) -> None:
    for pretence in ("copied stamp", "stamp of one's own", "executed again"):
        tags = platform.run(strangers[pretence]).tags
        assert (tags[OPERATOR_TAG], tags[STAMP_TAG]) == ("", ""), pretence


def test_a_run_that_is_executed_again_is_of_who_did_so(platform: Platform, asked: str, strangers: Any) -> None:
    platform.run(asked)
    again = platform.request_of(launch_again(platform.dagster.writable, asked, **by("grace")))
    assert again.actor == "grace"
    platform.parts.releases.cancel(again.request_id, actor="grace", reason="a test")


def test_a_rollback_is_in_the_name_of_who_signed_in(platform: Platform, strangers: Any) -> None:
    config = {"ops": {"bring_back": {"config": {"model": MODEL, "reason": "errors"}}}}
    run_id = launch(platform.dagster.writable, "rollback", config, **by("josé@example.org"))
    assert platform.run(run_id).status is dg.DagsterRunStatus.SUCCESS, platform.why(run_id)
    (row,) = [row for row in platform.rows() if row.request_id == f"rollback-{run_id}"]
    assert (row.actor, row.version) == ("josé@example.org", "1")


def test_approvals_are_of_two_people_and_the_sensor_carries_the_request_out(
    platform: Platform, asked: str, strangers: Any
) -> None:
    request, url = platform.request_of(asked), platform.dagster.writable
    config = {"ops": {"record_approval": {"config": {"request_id": request.request_id, "actor": "grace"}}}}
    own = launch(url, "approve", config, **by("ADA"))
    mine = launch(url, "approve", config, **by("ada"))
    assert "ADA asked for this promotion" in platform.why(own)
    assert "ada asked for this promotion" in platform.why(mine)
    assert platform.parts.store.approvals(request.request_id) == ()
    given = launch(url, "approve", config, **by("grace"))
    assert platform.run(given).status is dg.DagsterRunStatus.SUCCESS
    assert [one.actor for one in platform.parts.store.approvals(request.request_id)] == ["grace"]
    until(lambda: platform.parts.store.get_request(request.request_id).state is RequestState.PROMOTED, within_s=180)
    row = platform.rows()[-1]
    assert (row.version, row.actor, row.request_id) == ("3", "ada", request.request_id)


def content_of(path: Path) -> bytes:
    """Returns what is in a file; nothing where a database took it away meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_no_secret_is_in_run_storage_events_logs_or_ledger(platform: Platform, strangers: Any) -> None:
    home = platform.parts.place.home.parent
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "runs.db" for path in files)
    for secret in (STAMPS, PROXY):
        assert [path for path in files if secret.encode() in content_of(path)] == []


# Through the proxy, with a key as the login


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    with running_api(tmp_path_factory.mktemp("api"), {}) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(platform: Platform, operators: Operators, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(
        tmp_path_factory.mktemp("proxy"),
        api=operators.url.removeprefix("http://"),
        dagster_read=platform.dagster.read_only.removeprefix("http://"),
        dagster_write=platform.dagster.writable.removeprefix("http://"),
        PROXY_SHARED_SECRET=PROXY,
    ) as running:
        yield running


def test_a_key_as_the_login_makes_the_run_its_holders(platform: Platform, proxy: Proxy, operators: Operators) -> None:
    said = {"X-FORWARDED-USER": "mallory", "x-release-operator": "mallory"}
    run_id = launch(proxy.dagster, "approve", approval("none"), auth=("mallory", operators.key("ada")), headers=said)
    assert platform.run(run_id).tags[OPERATOR_TAG] == "ada"
    secret = secret_of(operators.key("ada"))
    files = [path for path in platform.parts.place.home.parent.rglob("*") if path.is_file()]
    assert [path for path in files if secret in content_of(path)] == []


def approval(request_id: str) -> dict[str, Any]:
    return {"ops": {"record_approval": {"config": {"request_id": request_id}}}}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-forwarded-user": "ada"},
        {"x-forwarded-user": "ada", "x-proxy-secret": "guess"},
        {"x-release-operator": "ada"},
    ],
)
def test_who_did_not_sign_in_cannot_launch(proxy: Proxy, headers: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="UnauthorizedError"):
        launch(proxy.dagster, "approve", approval("none"), headers=headers)


@pytest.mark.parametrize("path", ["/graphql", "/%67raphql", "/graphq%6C"])
def test_an_image_on_a_page_cannot_use_the_login_of_a_browser(proxy: Proxy, operators: Operators, path: str) -> None:
    login = ("ada", operators.key("ada"))
    mutation = {"query": "mutation { setNuxSeen }"}
    for method in ("GET", "HEAD"):
        answer = httpx.request(method, f"{proxy.dagster}{path}", params=mutation, auth=login)
        assert answer.status_code == 403
    foreign = {"origin": "http://evil.example"}
    assert httpx.post(f"{proxy.dagster}{path}", params=mutation, auth=login, headers=foreign).status_code == 403
    assert httpx.post(f"{proxy.dagster}{path}", params=mutation, auth=login).status_code == 200


@pytest.mark.parametrize(("origin", "status"), [("", 101), ("http://evil.example", 403), ("null", 403)])
def test_a_web_socket_opens_for_the_pages_of_dagster_only(
    proxy: Proxy, operators: Operators, origin: str, status: int
) -> None:
    socket = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    socket |= {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol": "graphql-ws"}
    socket["origin"] = origin or proxy.dagster
    login = ("ada", operators.key("ada"))
    with httpx.stream("GET", f"{proxy.dagster}/graphql", headers=socket, auth=login) as answer:
        assert answer.status_code == status


@pytest.mark.parametrize("name", ["reader", "client", "admin"])
def test_a_key_of_another_scope_signs_nobody_in(proxy: Proxy, operators: Operators, name: str) -> None:
    answer = httpx.get(f"{proxy.dagster}/server_info", auth=(name, operators.key(name)))
    assert answer.status_code == 401


# The read-only web server: what it lets everybody do


HARMLESS = {
    "logTelemetry": "telemetry is switched off, and nothing here is kept of it",
    "setNuxSeen": "a welcome that is never shown was seen",
}


def arguments_of(platform: Platform, run_id: str) -> dict[str, Any]:
    """Returns the arguments of the mutations that look for what they name before they ask who may."""
    backfill = PartitionBackfill(
        backfill_id="b1",
        status=BulkActionStatus.FAILED,
        from_failure=False,
        tags={},
        backfill_timestamp=1.0,
        asset_selection=[dg.AssetKey([MODEL, "registered_version"])],
    )
    platform.instance.add_backfill(backfill)
    selector = {
        "repositoryLocationName": LOCATION,
        "repositoryName": "__repository__",
        "sensorName": "promotion_sensor",
    }
    query = "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { id } } }"
    sensor = ask(platform.dagster.read_only, query, {"s": selector})["data"]["sensorOrError"]["id"]
    again = {"reexecutionParams": {"parentRunId": run_id, "strategy": "ALL_STEPS"}}
    chosen = {"assetSelection": [{"path": [MODEL, "registered_version"]}], "partitionNames": ["x"]}
    return {
        "launchPipelineReexecution": again,
        "launchRunReexecution": again,
        "launchPartitionBackfill": {"backfillParams": chosen},
        "reexecutePartitionBackfill": {"reexecutionParams": {"parentRunId": "b1", "strategy": "ALL_STEPS"}},
        "resumePartitionBackfill": {"backfillId": "b1"},
        "cancelPartitionBackfill": {"backfillId": "b1"},
        "stopSensor": {"id": sensor},
        "stopRunningSchedule": {"id": sensor},
    }


def test_every_mutation_is_refused_where_everybody_may_look(platform: Platform, asked: str) -> None:
    schema, url = read_schema(platform.dagster.read_only), platform.dagster.read_only
    arguments = arguments_of(platform, asked)
    done = {}
    for name in schema.mutations:
        query, variables = schema.call(name)
        answer = json.dumps(ask(url, query, variables | arguments.get(name, {})))
        if "UnauthorizedError" not in answer and name not in HARMLESS:
            done[name] = answer
    assert done == {}
    assert set(HARMLESS) <= set(schema.mutations)


REPORTS = ("materialization", "check", "observation")


@pytest.mark.parametrize("what", REPORTS)
def test_where_everybody_may_look_nobody_can_report_an_asset(platform: Platform, what: str) -> None:
    path = f"/report_asset_{what}/{MODEL}/registered_version"
    body = {"check_name": "quality", "passed": True, "data_version": "1"}
    answer = httpx.post(f"{platform.dagster.read_only}{path}", json=body, timeout=30)
    assert answer.status_code in {401, 403}, answer.text
