"""The audit: every seeded fault is found and named, with what follows from it and nothing else."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.signing import KeyFolder
from release_platform.definitions import definitions_of
from release_platform.defs.audit import Audit, audit_check, audit_model, look
from release_platform.defs.resources import Platform
from release_platform.defs.rollout import build_rollout_sensor
from release_platform.domain.ledger import ROLLBACK_ID
from release_platform.domain.policy_spec import Selftest as Demand
from release_platform.domain.selftest import Selftest, Twin, TwinResult
from release_platform.gating.selftest import binding_of
from release_platform.services import Services
from tests.fakes.packages import build_regression
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until, until_version
from tests.integration import outside_faults, store_faults
from tests.integration.homes import Command, Home, changed, example, free_port, open_home, warm_release, why
from tests.integration.saved_home import SavedHome
from tests.integration.seeded_faults import FAULTS, MODEL, Seen, registry, store_sql

PROJECT = example(MODEL)
_ID = re.compile(r"\b([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12,})\b")
_NUMBER = re.compile(r"\d{1,3}(,\d{3})+")
NEVER = 3600.0
AUDITS = 4


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("audited") / "home") as home, closing(home.services.store):
        make_history(home)
        yield home


@pytest.fixture(scope="module")
def saved(module_home: Home, tmp_path_factory: pytest.TempPathFactory) -> SavedHome:
    return SavedHome(module_home.folder, tmp_path_factory.mktemp("saved") / "home")


@pytest.fixture
def home(module_home: Home, saved: SavedHome) -> Iterator[Home]:
    yield module_home
    saved.restore()


def make_history(home: Home) -> None:
    """Makes the history that `seeded_faults` tells of, through the jobs."""
    for request_id in ("first", "second"):
        done(home.release(PROJECT))
        ask(home, request_id)
        done(home.launch("approve", PROJECT, request_id=request_id, actor="grace", reason="read the report"))
        done(home.launch("promote", PROJECT, request_id=request_id))
    for version in ("1", "2"):
        roll_back(home, version)
    done(home.release(PROJECT))
    ask(home, "third")


def done(result: dg.ExecuteInProcessResult) -> None:
    assert result.success, why(result)


def ask(home: Home, request_id: str) -> None:
    form = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": request_id}
    done(home.launch("request_promotion", PROJECT, **form))


def roll_back(home: Home, to: str) -> None:
    done(home.launch("rollback", PROJECT, model=MODEL, actor="ada", reason="errors", to=to))


def said(audit: Audit, home: Home) -> list[Seen]:
    """Returns the findings without what is new in each home: ids, digests, sizes, its folder."""
    return [(f.invariant, f.subject, plain(f.problem, home)) for f in audit.findings]


def plain(text: str, home: Home) -> str:
    return _NUMBER.sub("N", _ID.sub("ID", text.replace(str(home.folder), "HOME")))


# What is done behind the platform's back


def test_a_history_that_nobody_touched_has_no_finding(home: Home) -> None:
    audit = look(home.services, home.instance, MODEL)
    assert (audit.n_versions, audit.n_moves, audit.findings) == (3, 7, ())


def test_a_model_that_was_never_released_has_no_finding(home: Home) -> None:
    audit = look(home.services, home.instance, "digits")
    assert (audit.n_versions, audit.n_moves, audit.findings) == (0, 0, ())


def test_a_model_among_more_than_a_hundred_has_no_finding(home: Home) -> None:
    for number in range(101):
        registry(home).create_registered_model(f"a{number:03}", tags={"release.platform": "true"})
    assert look(home.services, home.instance, MODEL).findings == ()


def test_there_are_faults_of_every_system() -> None:
    places = {fault.do.__module__ for fault in FAULTS.values()}
    assert places == {store_faults.__name__, outside_faults.__name__}
    assert len(FAULTS) >= 60


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_found_and_named_with_nothing_else(home: Home, name: str) -> None:
    FAULTS[name].do(home)
    assert said(look(home.services, home.instance, MODEL), home) == list(FAULTS[name].findings)


@pytest.mark.parametrize("name", [name for name in FAULTS if "object" in name or "snapshot" in name])
def test_a_fault_in_a_file_is_told_alike_at_the_second_look(home: Home, name: str) -> None:
    FAULTS[name].do(home)
    assert said(audit_model(home.services, home.instance, MODEL, second_look_s=0.0), home) == list(
        FAULTS[name].findings
    )


def test_what_is_wrong_at_one_look_only_is_no_finding(home: Home, saved: SavedHome) -> None:
    registry(home).set_registered_model_alias(MODEL, "production", "1")
    assert look(home.services, home.instance, MODEL).findings
    back = threading.Timer(1.0, home.services.releases.projection.project, [MODEL])
    back.start()
    assert audit_model(home.services, home.instance, MODEL).findings == ()
    back.join()


# Dagster copies the output of a run by `tail`, and may leave one behind where runs follow each other in a thread.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Popen.__del__:pytest.PytestUnraisableExceptionWarning"
)
def test_moves_under_way_are_no_finding(home: Home) -> None:
    stop, moved = threading.Event(), []

    def move() -> None:
        while not stop.is_set():
            moved.append("12"[len(moved) % 2])
            roll_back(home, moved[-1])

    moving = threading.Thread(target=move)
    moving.start()
    audits = [audit_model(home.services, home.instance, MODEL) for _ in range(AUDITS)]
    stop.set()
    moving.join()
    assert [audit.findings for audit in audits] == [()] * AUDITS
    assert audits[-1].n_moves > 7
    assert look(home.services, home.instance, MODEL).findings == ()


def test_a_rollback_without_a_run_is_shown_once_by_the_sensor_and_others_by_their_job(home: Home) -> None:
    """Given a rollback as the operators' API makes it, when the sensor looks, then Dagster shows it."""
    sensor, cursor = build_rollout_sensor({MODEL: PROJECT}), None

    def shown() -> list[tuple[object, object]]:
        nonlocal cursor
        context = dg.build_sensor_context(instance=home.instance, cursor=cursor, resources={"platform": Platform()})
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        for event in result.asset_events:
            assert isinstance(event, dg.AssetMaterialization)
            home.instance.report_runless_asset_event(event)
        return [(event.metadata["epoch"].value, event.metadata["version"].value) for event in result.asset_events]

    assert shown() == []
    home.services.releases.rollback(MODEL, to="1", actor="ada", reason="errors", request_id=f"{ROLLBACK_ID}0123456789")
    (unshown,) = look(home.services, home.instance, MODEL).findings
    assert unshown.problem == "Dagster does not show the move to version 1, epoch 8"
    assert shown() == [(8, "1")]
    assert look(home.services, home.instance, MODEL).findings == ()
    assert shown() == []
    roll_back(home, "2")
    assert shown() == []
    assert look(home.services, home.instance, MODEL).findings == ()


def test_a_proof_that_a_version_names_and_that_was_tampered_with_is_named(home: Home) -> None:
    demanding = changed(PROJECT, policy=replace(PROJECT.spec.policy, selftest=Demand.REQUIRED))
    stopped = TwinResult(twin=Twin.CONSTANT, detail="all alike", stopped_by={"explains": "r2 is 0"})
    clean = TwinResult(twin=Twin.CLEAN, detail="", stopped_by={})
    home.services.releases.proofs.keep(
        Selftest(model=MODEL, binding=binding_of(demanding), n_rows=442, results=(clean, stopped))
    )
    done(home.release(demanding))
    assert look(home.services, home.instance, MODEL).findings == ()

    def found(statement: str) -> str:
        store_sql(home, statement)
        (finding,) = look(home.services, home.instance, MODEL).findings
        assert (finding.invariant, finding.subject) == (2, "version 4")
        return finding.problem.removeprefix("the proof that its gates stop spoilt models ")

    assert found("UPDATE selftests SET at = '2026-01-01'").startswith("does not verify: the signature")
    assert found("UPDATE selftests SET value = replace(value, 'r2 is 0', 'r2 is 1')") == (
        "does not verify: release store: a selftest of diabetes of 2026-01-01 cannot be read"
    )
    assert found("DELETE FROM selftests") == "is not there any more"


# Servers


@contextmanager
def serving(home: Home, cache: Path, **settings: Any) -> Iterator[str]:
    """Yields the address of a server of the home's registry that looks at it once and never again."""
    given = {"key_folder": home.folder / "keys", "refresh_s": NEVER, **settings}
    with running(settings_for(cache, **given), MlflowRegistry(home.services.settings.tracking_uri)) as url:
        yield url


def serve(url: str, version: str) -> None:
    with httpx.Client(base_url=url) as client:
        until_version(client, MODEL, version)


def look_at(home: Home, url: str) -> Audit:
    services = Services(home.services.settings.model_copy(update={"serving_url": url}))
    with closing(services.store):
        return look(services, home.instance, MODEL)


def problems_of(audit: Audit, home: Home, url: str) -> list[tuple[int, str]]:
    """Returns what was found of a server, where it is the only thing that something was found of."""
    assert {finding.subject for finding in audit.findings} == {f"server {url}"}
    return [(number, problem) for number, _, problem in said(audit, home)]


def test_a_server_with_the_version_in_production_has_no_finding(home: Home, tmp_path: Path) -> None:
    with serving(home, tmp_path / "cache") as url:
        serve(url, "2")
        audit = look_at(home, url)
    assert (audit.findings, audit.not_compared) == ((), ())


def test_a_stale_server_is_found(home: Home, tmp_path: Path) -> None:
    with serving(home, tmp_path / "cache") as url:
        serve(url, "2")
        roll_back(home, "1")
        audit = look_at(home, url)
    assert problems_of(audit, home, url) == [(12, "serves version 2, but version 1 is in Production")]


def test_a_server_that_serves_nothing_is_found_with_its_reason(home: Home, tmp_path: Path) -> None:
    nobody = KeyFolder(tmp_path / "nobody")
    nobody.signer()
    with serving(home, tmp_path / "cache", key_folder=nobody.folder) as url:
        until(lambda: httpx.get(f"{url}/status").json()["models"])
        audit = look_at(home, url)
    why = "it was signed by the key ID, which is not trusted here"
    assert problems_of(audit, home, url) == [(12, f"serves nothing, but version 2 is in Production: {why}")]


def test_a_server_of_another_registry_is_found(home: Home, tmp_path: Path) -> None:
    foreign = FakeRegistry({(MODEL, "2"): build_regression(tmp_path / "2")}, aliases={(MODEL, "production"): "2"})
    with running(settings_for(tmp_path / "cache"), foreign) as url:
        serve(url, "2")
        audit = look_at(home, url)
    assert problems_of(audit, home, url) == [(12, "serves version 2 (sha256:ID), which no ledger row put there")]


def test_a_server_that_is_ahead_of_a_ledger_that_lost_rows_is_found(home: Home, tmp_path: Path) -> None:
    fault = FAULTS["the ledger is set back to before a rollback"]
    with serving(home, tmp_path / "cache") as url:
        serve(url, "2")
        fault.do(home)
        audit = look_at(home, url)
    ahead = "accepted epoch 6, but the head is at epoch 4: the ledger lost rows"
    assert said(audit, home) == [*fault.findings, (7, f"server {url}", ahead)]


class Stranger(BaseHTTPRequestHandler):
    """Answers with JSON that is no status."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"models": []}')

    def log_message(self, *_: object) -> None:
        return


def test_what_is_no_server_of_models_is_named_and_is_no_finding(home: Home) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{stranger.server_port}"
        audit = look_at(home, url)
        stranger.shutdown()
        thread.join()
    assert (audit.findings, audit.not_compared) == ((), (f"{url} gives no status of models",))


# The doors


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


def test_a_clean_audit_ends_with_0_and_says_what_it_could_not_compare(release: Command, home: Home) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = release(home.folder, "audit", RELEASE_SERVING_URL=url)
    assert ended.exit_code == 0, ended.err
    assert f"{MODEL}: 3 version(s), 7 move(s)" in ended.out
    assert f"not compared: {url} cannot be reached" in ended.out
    assert ended.out.endswith("no fault\n")


def test_findings_end_with_7_and_are_in_the_json(release: Command, home: Home) -> None:
    registry(home).set_registered_model_alias(MODEL, "production", "1")
    ended = release(home.folder, "audit", MODEL, "--json")
    assert ended.exit_code == 7
    (audit,) = ended.json
    assert set(audit) == {"model", "versions", "moves", "findings", "not_compared"}
    found = {"invariant": 14, "subject": "alias production", "problem": "is version 1, the head says version 2"}
    assert audit["findings"] == [found]
    assert f"error: {MODEL}, alias production: is version 1, the head says version 2" in ended.err


def test_a_model_that_the_release_store_lost_altogether_is_audited_all_the_same(release: Command, home: Home) -> None:
    tables = ("heads", "ledger", "registrations", "requests", "approvals")
    store_sql(home, *(f"DELETE FROM {table}" for table in tables))
    ended = release(home.folder, "audit")
    assert ended.exit_code == 7
    assert f"{MODEL}, ledger row 7: is missing" in ended.err
    assert f"{MODEL}, version 2: was registered by the platform, but the release store does not know it" in ended.err


def test_an_mlflow_that_does_not_answer_ends_with_6(release: Command, home: Home) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    ended = release(home.folder, "audit", MODEL, RELEASE_MLFLOW_TRACKING_URI=away, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert ended.exit_code == 6, ended.err


def audit_by_job(home: Home) -> dg.AssetCheckEvaluation:
    """Runs the job that the schedule launches, and returns what is kept of the model's check."""
    job = definitions_of({MODEL: PROJECT}).resolve_job_def("audit")
    done(job.execute_in_process(instance=home.instance))
    record = home.instance.get_latest_asset_check_evaluation_record(audit_check(MODEL))
    assert record is not None
    assert record.event is not None
    assert record.event.dagster_event is not None
    evaluation = record.event.dagster_event.event_specific_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return evaluation


def test_the_check_passes_on_a_clean_history(home: Home) -> None:
    kept = audit_by_job(home)
    assert kept.passed
    assert kept.metadata["findings"].value == 0


def test_the_check_fails_and_names_what_was_found(home: Home) -> None:
    registry(home).delete_registered_model_alias(MODEL, "production")
    kept = audit_by_job(home)
    assert not kept.passed
    assert kept.description == "alias production: is absent, the head says version 2"
    assert kept.metadata["findings"].value == 1


def test_the_audit_is_launched_every_hour_by_default() -> None:
    schedule = definitions_of({MODEL: PROJECT}).resolve_schedule_def("hourly_audit")
    assert (schedule.job_name, schedule.cron_schedule) == ("audit", "17 * * * *")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
