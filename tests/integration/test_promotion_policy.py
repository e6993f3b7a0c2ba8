"""Freeze windows and approvals that expire: in the jobs, the sensor, the check promotion_ready and the command line."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import registry_check
from release_platform.defs.readiness import CHECK
from release_platform.defs.resources import Platform
from release_platform.domain.errors import Refused
from release_platform.domain.freeze import FreezeWindow
from release_platform.domain.policy import RequestState
from release_platform.domain.policy_spec import PolicySpec, Tampering
from release_platform.project import Project
from release_platform.releases import Releases
from tests.integration.homes import Command, Done, Home, changed, example, open_home, project_folder, warm_release, why

MODEL = "diabetes"
OPEN = example(MODEL)
READY_KEY = dg.AssetCheckKey(asset_key(MODEL, "production_version"), CHECK)


def with_policy(**policy) -> Project:
    return changed(OPEN, policy=replace(OPEN.spec.policy, **policy))


def window(start: timedelta, end: timedelta, reason: str = "year-end closing") -> FreezeWindow:
    now = datetime.now(UTC)
    return FreezeWindow(from_=(now + start).isoformat(), until=(now + end).isoformat(), reason=reason)


HOUR = timedelta(hours=1)
FROZEN = with_policy(freeze=(window(-HOUR, HOUR),))


@pytest.fixture(scope="module")
def staged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 in Staging."""
    folder = tmp_path_factory.mktemp("staged") / "home"
    with open_home(folder) as home:
        result = home.release(OPEN)
        assert result.success, why(result)
        home.services.store.close()
    return folder


@pytest.fixture
def staged(staged_once: Path, tmp_path: Path) -> Iterator[Home]:
    with open_home(shutil.copytree(staged_once, tmp_path / "home")) as home, closing(home.services.store):
        yield home


def ask(home: Home, project: Project, request_id: str = "q") -> None:
    form = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": request_id}
    assert home.launch("request_promotion", project, **form).success


def tick(home: Home, project: Project, cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str, str]:
    """Evaluates the sensor once after a cursor; returns what it reports of the check, its cursor, and what it says."""
    sensor = home.definitions(project).resolve_sensor_def("promotion_sensor")
    resources = {"platform": Platform()}
    with dg.build_sensor_context(instance=home.instance, resources=resources, cursor=cursor) as context:
        data = sensor.evaluate_tick(context)
    found = [event for event in data.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    for event in found:
        home.instance.report_runless_asset_event(event)  # as the daemon does
    assert data.cursor is not None
    return [event for event in found if event.asset_check_key == READY_KEY], data.cursor, data.skip_message or ""


def registry_check_of(home: Home) -> dg.AssetCheckEvaluation:
    """Returns what the sensor said last of the registry."""
    record = home.instance.get_latest_asset_check_evaluation_record(registry_check(MODEL))
    assert record is not None
    found = record.event.dagster_event.event_specific_data
    assert isinstance(found, dg.AssetCheckEvaluation)
    return found


def look(home: Home, project: Project) -> dg.AssetCheckEvaluation:
    """Executes the check, as the button of Dagster's interface does."""
    job = dg.define_asset_job("look", dg.AssetSelection.checks(READY_KEY))
    location = dg.Definitions.merge(home.definitions(project), dg.Definitions(jobs=[job]))
    (evaluation,) = (
        location.resolve_job_def("look").execute_in_process(instance=home.instance).get_asset_check_evaluations()
    )
    return evaluation


# Freezing


def test_a_freeze_holds_the_request_with_its_reason_and_its_end(staged: Home) -> None:
    ask(staged, FROZEN)
    _, _, says = tick(staged, FROZEN, None)
    assert "diabetes version 1 (request q) waits: promotions are frozen until " in says
    assert ": year-end closing" in says
    assert staged.services.store.get_request("q").state is RequestState.OPEN


def test_a_freeze_that_begins_between_sensor_and_job_holds_too(staged: Home) -> None:
    ask(staged, OPEN)
    assert tick(staged, OPEN, None)[2] == ""  # the sensor launches it
    result = staged.launch("promote", FROZEN, request_id="q")
    assert not result.success
    assert "promotions are frozen until" in why(result)
    assert staged.services.store.head(MODEL).production is None
    assert staged.services.store.get_request("q").state is RequestState.OPEN
    assert staged.launch("promote", OPEN, request_id="q").success  # when it is over


def test_a_rollback_is_held_by_neither_freeze_nor_approvals(staged: Home) -> None:
    ask(staged, OPEN)
    assert staged.launch("promote", OPEN, request_id="q").success
    assert staged.release(OPEN).success
    ask(staged, OPEN, "r")
    assert staged.launch("promote", OPEN, request_id="r").success
    strict = with_policy(freeze=(window(-HOUR, HOUR),), approvals=3, approvals_expire_s=1, minimum_soak_s=3600)
    result = staged.launch("rollback", strict, model=MODEL, actor="grace", reason="it hurts")
    assert result.success, why(result)
    assert staged.services.store.head(MODEL).production == "1"


# Approvals that expire


class SetClock:
    """A clock that shows what it was set to."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


def test_an_expired_approval_does_not_promote_and_one_given_again_does(staged: Home) -> None:
    ask(staged, OPEN)
    clock = SetClock(datetime.now(UTC))
    services = staged.services
    releases = Releases(services.store, services.registry, services.releases.keys, clock)
    policy = PolicySpec(approvals=1, approvals_expire_s=60)
    releases.approve("q", actor="grace", reason="read it", policy=policy)
    clock.moment += timedelta(seconds=60, microseconds=1)
    with pytest.raises(Refused, match="grace's approval expired"):
        releases.promote("q", policy)
    releases.approve("q", actor="grace", reason="read it again", policy=policy)
    assert [approval.reason for approval in services.store.approvals("q")] == ["read it", "read it again"]
    clock.moment += timedelta(seconds=60)
    assert releases.promote("q", policy).version == "1"


def test_the_job_approve_says_until_when_the_approval_counts(staged: Home, capfd: pytest.CaptureFixture[str]) -> None:
    strict = with_policy(approvals=1, approvals_expire_s=3600)
    ask(staged, strict)
    assert staged.launch("approve", strict, request_id="q", actor="grace").success
    (given,) = staged.services.store.approvals("q")
    until = (given.approved_at + HOUR).isoformat(sep=" ", timespec="seconds")
    assert f"request q: approved by grace, until {until}" in capfd.readouterr().err


# The check


def test_the_check_passes_without_a_request_and_when_every_one_is_ready(staged: Home) -> None:
    empty = look(staged, FROZEN)
    assert (empty.passed, empty.description) == (True, "no promotion request is open")
    ask(staged, OPEN)
    ready = look(staged, OPEN)
    assert (ready.passed, ready.description) == (True, "version 1 (request q by ada) is ready")


def test_the_check_warns_and_lists_what_each_request_waits_for(staged: Home) -> None:
    strict = with_policy(approvals=1, freeze=(window(-HOUR, HOUR),))
    ask(staged, strict, "q")
    ask(staged, strict, "r")
    found = look(staged, strict)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    first, second = (found.description or "").splitlines()
    assert first.startswith("version 1 (request q by ada) waits: promotions are frozen until ")
    assert first.endswith("1 of 1 approval(s) by others than ada are missing: `release approve q`")
    assert second.startswith("version 1 (request r by ada) waits: ")
    table = found.metadata["missing"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["request"] for record in table.records] == ["q", "q", "r", "r"]
    assert staged.services.store.get_request("q").state is RequestState.OPEN


def test_the_sensor_reports_the_check_when_what_is_missing_changes_and_only_then(staged: Home) -> None:
    strict = with_policy(approvals=1, minimum_soak_s=3600.0)
    (first,), cursor, _ = tick(staged, strict, None)
    assert (first.passed, first.description) == (True, "no promotion request is open")
    ask(staged, strict)
    (asked,), cursor, _ = tick(staged, strict, cursor)
    assert not asked.passed
    assert json.loads(cursor)[READY_KEY.to_user_string()] == asked.description
    for _ in range(3):  # the time that is left in Staging goes by
        silent, cursor, says = tick(staged, strict, cursor)
        assert silent == []
        assert "it must stand in Staging for 3600 s" in says
    assert staged.launch("approve", strict, request_id="q", actor="grace").success
    (approved,), cursor, _ = tick(staged, strict, cursor)
    assert "approval" not in (approved.description or "")
    (ready,), cursor, _ = tick(staged, OPEN, cursor)
    assert ready.passed
    record = staged.instance.get_latest_asset_check_evaluation_record(READY_KEY)
    assert record is not None
    assert record.event is not None
    assert record.event.asset_check_evaluation is not None
    assert record.event.asset_check_evaluation.description == "version 1 (request q by ada) is ready"


def test_a_request_that_is_refused_is_no_longer_waited_for(staged: Home) -> None:
    strict = with_policy(approvals=1, tampering=Tampering.REPORT)
    ask(staged, strict)
    _, cursor, _ = tick(staged, strict, None)
    staged.services.registry.set_tag(MODEL, "1", "release.digest", "sha256:" + "0" * 64)
    (refused,), _, says = tick(staged, strict, cursor)
    assert "is refused" in says
    assert (refused.passed, refused.description) == (True, "no promotion request is open")
    said = registry_check_of(staged)
    assert not said.passed
    assert said.description == f"{MODEL}: tag release.digest of version 1 was edited; it stays so, as the policy says"


def test_a_change_behind_the_back_is_named_in_a_check_and_undone_within_two_ticks(staged: Home) -> None:
    digest = staged.registrations(OPEN)[0].digest
    staged.services.registry.set_tag(MODEL, "1", "release.digest", "sha256:" + "0" * 64)
    _, cursor, _ = tick(staged, OPEN, None)
    assert registry_check_of(staged).description == f"{MODEL}: tag release.digest of version 1 was edited"
    assert staged.services.registry.get_version(MODEL, "1").digest == digest
    tick(staged, OPEN, cursor)
    assert registry_check_of(staged).passed


@pytest.mark.parametrize("cursor", ["", "not json", "[1]", '"x"'])
def test_a_cursor_that_somebody_wrote_by_hand_only_repeats_what_was_said(staged: Home, cursor: str) -> None:
    found, after, _ = tick(staged, OPEN, cursor)
    assert [evaluation.description for evaluation in found] == ["no promotion request is open"]
    assert tick(staged, OPEN, after)[0] == []


# The command line


def write_model(models: Path, **policy: object) -> None:
    described = yaml.safe_load((OPEN.folder / "defs.yaml").read_text())
    described["attributes"] |= {"name": "sugar", "policy": {**described["attributes"].get("policy", {}), **policy}}
    shutil.rmtree(models, ignore_errors=True)
    project_folder(models, "sugar", yaml.safe_dump(described))
    for file in OPEN.folder.glob("*.py"):
        shutil.copy(file, models / "sugar" / file.name)


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    with warm_release() as run:
        yield run


def test_approvals_and_freezes_at_the_command_line(tmp_path: Path, command: Command) -> None:
    home, models = tmp_path / "home", tmp_path / "models"

    def release(*arguments: str) -> Done:
        return command(home, *arguments, RELEASE_MODELS=str(models))

    write_model(models, approvals=1, approvals_expire_s=3600, current_baseline=True)
    assert release("run", "sugar").exit_code == 0
    waits = release("promote", "sugar", "--actor", "ada", "--reason", "first")
    assert waits.exit_code == 5
    request_id = release("status", "sugar", "--json").json["requests"][0]["request_id"]
    approved = release("approve", request_id, "--actor", "grace", "--reason", "read it")
    assert approved.out.startswith("sugar version 1: approved by grace until 20")
    assert "Every condition holds." in approved.out

    freeze = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "timezone": "Europe/Berlin"}
    write_model(
        models,
        approvals=1,
        approvals_expire_s=3600,
        freeze=[{**freeze, "from": "00:00", "until": "00:00", "reason": "[red]closed"}],
    )
    status = release("status", "sugar").out.splitlines()
    assert status[1] == "  promotions are frozen without an end: [red]closed"
    assert "1 of 1 approval(s) by others than ada are missing" in status[2]
    assert status[2].endswith("; grace's approval is void: model, report or policy changed since")
    (asked,) = release("status", "sugar", "--json").json["requests"]
    assert [(a["actor"], a["standing"], a["valid_until"]) for a in asked["approvals"]] == [("grace", "void", None)]
    again = release("approve", request_id, "--actor", "grace", "--json").json
    assert again["valid_until"] > datetime.now(UTC).isoformat()
    assert again["missing"] == ["promotions are frozen without an end: [red]closed"]
    assert release("promote", "sugar", "--actor", "ada", "--reason", "first").exit_code == 5
    status = release("status", "sugar").out.splitlines()
    assert status[0].startswith("sugar  epoch 1  production: -")
    assert status[3].startswith("    approved by grace until 20")

    write_model(models, approvals=1, approvals_expire_s=0.001)
    approved = release("approve", request_id, "--actor", "grace")
    assert approved.out.startswith("sugar version 1: grace's approval expired 20")
    assert "Still missing: 1 of 1 approval(s)" in approved.out
    assert "grace's approval expired 20" in release("status", "sugar").out
