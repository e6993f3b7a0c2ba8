"""The smoke test as a job, an asset check and a command: of real servers that serve what the platform promoted."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.audit import observe, with_servers
from release_platform.definitions import definitions_of
from release_platform.defs.resources import Platform
from release_platform.defs.verification import served_check, verify_model
from release_platform.domain.api_keys import Scope
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.services import Services
from tests.fakes.server import running, settings_for, until
from tests.integration.homes import Command, Home, changed, example, free_port, open_home, warm_release, why

MODEL = "diabetes"
PROJECT = example(MODEL)
NEVER = 3600.0


@dataclass(frozen=True)
class World:
    """A home in which version 1 went to Production, then 2, then 1 and 2 again by rollbacks.

    Attributes:
        late: The address of a server that took the first promotion of version 2 and nothing since.
        fresh: The address of one that follows.
        key: The API key that it asks for.
    """

    home: Home
    late: str
    fresh: str
    key: str


def done(result: dg.ExecuteInProcessResult) -> None:
    assert result.success, why(result)


def promote(home: Home, request_id: str) -> None:
    done(home.release(PROJECT))
    form = {"model": MODEL, "actor": "ada", "reason": "better", "request_id": request_id}
    done(home.launch("request_promotion", PROJECT, **form))
    done(home.launch("approve", PROJECT, request_id=request_id, actor="grace", reason="read the report"))
    done(home.launch("promote", PROJECT, request_id=request_id))


def roll_back(home: Home, to: str) -> None:
    done(home.launch("rollback", PROJECT, model=MODEL, actor="ada", reason="errors", to=to))


@contextmanager
def serving(home: Home, cache: Path, version: str, key: str = "", **settings: Any) -> Iterator[str]:
    given = {"key_folder": home.folder / "keys", "refresh_s": NEVER, **settings}
    with running(settings_for(cache, **given), MlflowRegistry(home.services.settings.tracking_uri)) as url:
        headers = {"x-api-key": key} if key else {}
        with httpx.Client(base_url=url, headers=headers) as client:
            until(lambda: client.get(f"/v1/models/{MODEL}").headers.get("x-model-version") == version)
        yield url


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("verified")
    with ExitStack() as stack:
        home = stack.enter_context(open_home(root / "home"))
        stack.enter_context(closing(home.services.store))
        promote(home, "first")
        promote(home, "second")
        late = stack.enter_context(serving(home, root / "late", "2"))
        roll_back(home, "1")
        roll_back(home, "2")
        keys = root / "api-keys.json"
        key = ApiKeyFile(keys).create("platform", [Scope.PREDICT, Scope.READ])[1]
        fresh = stack.enter_context(serving(home, root / "fresh", "2", key, api_keys=keys))
        yield World(home, late, fresh, key)


def services(world: World, *urls: str, key: str = "") -> Services:
    given = {"serving_url": ",".join(urls), "serving_api_key": key}
    return Services(type(world.home.services.settings)(**given))


def launch(world: World, **form: Any) -> tuple[bool, dg.AssetCheckEvaluation]:
    """Runs the job, and returns whether it succeeded and what is kept of the model's check."""
    job = definitions_of({MODEL: PROJECT}).resolve_job_def("verify")
    config = {"ops": {"ask_servers": {"config": form}}}
    result = job.execute_in_process(config, instance=world.home.instance, raise_on_error=False)
    record = world.home.instance.get_latest_asset_check_evaluation_record(served_check(MODEL))
    assert record is not None
    assert record.run_id == result.run_id
    assert record.event is not None
    assert record.event.dagster_event is not None
    evaluation = record.event.dagster_event.event_specific_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return result.success, evaluation


def test_a_right_server_passes_with_a_table_and_its_latency(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_SERVING_URL", world.fresh)
    monkeypatch.setenv("RELEASE_SERVING_API_KEY", world.key)
    succeeded, kept = launch(world)
    assert (succeeded, kept.passed, kept.description) == (True, True, None)
    assert {name: kept.metadata[name].value for name in ("version", "epoch", "servers")} == {
        "version": "2",
        "epoch": 6,
        "servers": 1,
    }
    slowest = kept.metadata["slowest_ms"].value
    assert isinstance(slowest, float)
    assert slowest > 0
    table = str(kept.metadata["asked"].value).splitlines()
    assert table[0] == "| server | protocol | rows | ms | result |"
    assert len(table) == 2 + 11
    assert all(line.startswith(f"| {world.fresh} | ") and line.endswith(" | equal |") for line in table[2:])
    assert world.key not in str(kept)


def test_the_server_of_an_earlier_epoch_fails_and_is_named(world: World) -> None:
    succeeded, kept = launch(world, model=MODEL, urls=[world.late])
    assert (succeeded, kept.passed, kept.severity) == (False, False, dg.AssetCheckSeverity.ERROR)
    assert kept.description == f"{world.late}, every protocol: the answer names epoch 4, but it should be 6"


def test_a_server_that_does_not_answer_is_a_warning(world: World) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    succeeded, kept = launch(world, model=MODEL, urls=[url])
    assert (succeeded, kept.passed, kept.severity) == (False, False, dg.AssetCheckSeverity.WARN)
    assert f"{url} cannot be reached" in (kept.description or "")


def test_a_model_that_nobody_knows_is_told(world: World) -> None:
    job = definitions_of({MODEL: PROJECT}).resolve_job_def("verify")
    config = {"ops": {"ask_servers": {"config": {"model": "nobody"}}}}
    result = job.execute_in_process(config, instance=world.home.instance, raise_on_error=False)
    assert "there is no model 'nobody' here" in why(result)


def test_a_model_without_a_version_in_production_passes_and_says_so(world: World) -> None:
    job = definitions_of({"digits": example("digits")}).resolve_job_def("verify")
    done(job.execute_in_process({"ops": {"ask_servers": {"config": {}}}}, instance=world.home.instance))
    record = world.home.instance.get_latest_asset_check_evaluation_record(served_check("digits"))
    assert record is not None
    assert record.event is not None
    assert record.event.dagster_event is not None
    assert record.event.dagster_event.asset_check_evaluation_data.description == "digits: nothing is in Production"


def test_the_check_runs_from_the_asset_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_SERVING_URL", world.late)
    wanted = dg.AssetSelection.checks(served_check(MODEL))
    location = dg.Definitions.merge(
        definitions_of({MODEL: PROJECT}), dg.Definitions(jobs=[dg.define_asset_job("look", wanted)])
    )
    result = location.resolve_job_def("look").execute_in_process(instance=world.home.instance)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert "names epoch 4, but it should be 6" in (evaluation.description or "")


def test_without_a_server_nothing_passes_and_the_job_ends_red(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_SERVING_URL", "")
    succeeded, evaluation = launch(world)
    assert (succeeded, evaluation.passed, evaluation.severity) == (False, False, dg.AssetCheckSeverity.WARN)
    assert evaluation.description == "RELEASE_SERVING_URL names no server"


@pytest.mark.parametrize(("urls", "launched"), [("", False), ("http://127.0.0.1:9", True)])
def test_every_hour_it_is_launched_where_there_is_a_server(
    world: World, monkeypatch: pytest.MonkeyPatch, urls: str, launched: bool
) -> None:
    monkeypatch.setenv("RELEASE_SERVING_URL", urls)
    schedule = definitions_of({MODEL: PROJECT}).resolve_schedule_def("hourly_verification")
    with dg.build_schedule_context(world.home.instance, resources={"platform": Platform()}) as context:
        found = schedule.evaluate_tick(context)
    assert (len(found.run_requests or ()), bool(found.skip_message)) == ((1, False) if launched else (0, True))


def test_it_is_launched_every_hour_by_default() -> None:
    schedule = definitions_of({MODEL: PROJECT}).resolve_schedule_def("hourly_verification")
    assert (schedule.job_name, schedule.cron_schedule) == ("verify", "47 * * * *")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


# The command line


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


def test_the_command_prints_a_line_for_each_right_server(release: Command, world: World, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(world.key + "\n")
    ended = release(world.home.folder, "verify", MODEL, "--url", world.fresh, "--api-key-file", str(file))
    assert ended.exit_code == 0, ended.err
    epoch = world.home.services.store.head(MODEL).epoch
    (line,) = ended.out.splitlines()
    assert line.startswith(
        f"passed: {MODEL} version 2 of epoch {epoch} at {world.fresh}: 50 golden rows equal to the last bit through "
        "11 protocols (rows, columns, version route, arrow, "
    )


@pytest.mark.parametrize("named", ["by the option", "by the variable"])
def test_the_json_has_every_server_and_protocol_also_when_one_is_wrong(
    release: Command, world: World, named: str
) -> None:
    by_option = named == "by the option"
    ended = release(
        world.home.folder,
        *("verify", MODEL, "--json"),
        *(("--url", world.fresh, "--url", world.late) if by_option else ()),
        **({} if by_option else {"RELEASE_SERVING_URL": f"{world.fresh},{world.late}"}),
        RELEASE_SERVING_API_KEY=world.key,
    )
    assert ended.exit_code == 7
    said = ended.json
    assert (said["passed"], said["largest_difference"], said["n_rows"]) == (False, 0.0, 50)
    assert [(server["url"], server["passed"], len(server["protocols"])) for server in said["servers"]] == [
        (world.fresh, True, 11),
        (world.late, False, 11),
    ]
    assert f"{world.late}, every protocol: the answer names epoch 4" in ended.err
    assert world.key not in ended.out + ended.err


def test_without_the_api_key_it_ends_with_6_and_says_what_to_do(release: Command, world: World) -> None:
    ended = release(world.home.folder, "verify", MODEL, "--url", world.fresh)
    assert ended.exit_code == 6
    assert f"{world.fresh} asks for an API key that is good" in ended.err
    assert "RELEASE_SERVING_API_KEY" in ended.err


def test_a_file_without_a_key_ends_with_6(release: Command, world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name, reason in (("none", "FileNotFoundError"), ("empty", "it is empty")):
        ended = release(world.home.folder, "verify", MODEL, "--api-key-file", str(tmp_path / name))
        assert ended.exit_code == 6
        assert f"the API key cannot be read from {tmp_path / name}: {reason}" in ended.err


def test_another_version_than_the_wanted_one_ends_with_7(release: Command, world: World) -> None:
    ended = release(world.home.folder, "verify", MODEL, "--url", world.late, "--version", "1")
    assert ended.exit_code == 7
    assert "version 2 is in Production, not 1" in ended.err


# The audit


def test_the_audit_looks_at_a_server_that_asks_for_api_keys(world: World) -> None:
    seen = observe(world.home.services.releases, MODEL)
    looked, away = with_servers(seen, [world.fresh], world.key)
    assert (away, [server.version for server in looked.servers]) == ((), ["2"])
    _, (reason,) = with_servers(seen, [world.fresh])
    assert "asks for an API key" in reason


# A move under way; it comes last, for it makes every other server here stale


def test_what_is_wrong_at_the_first_look_only_was_a_move_under_way(world: World) -> None:
    with serving(world.home, world.home.folder.parent / "slow", "2", refresh_s=0.2) as url:
        roll_back(world.home, "1")
        found = verify_model(services(world, url), MODEL)
        roll_back(world.home, "2")
    assert found.failure is None
    assert found.expected.version == "1"


# What the rollback policy makes of it; it comes last of all, for it leaves another version in Production


def test_a_promotion_that_a_server_does_not_take_is_verified_and_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, project = world.home, changed(PROJECT, rollback_policy=RollbackSpec(gates=()))
    promote(home, "third")
    monkeypatch.setenv("RELEASE_SERVING_URL", world.late)
    sensor = definitions_of({MODEL: project}).resolve_sensor_def("verification_sensor")

    def due() -> list[dg.RunRequest]:
        with dg.build_sensor_context(home.instance, resources={"platform": Platform()}) as context:
            return list(sensor.evaluate_tick(context).run_requests or [])

    until(due, within_s=20)
    (request,) = due()
    assert request.run_key == f"verify {MODEL} {home.services.store.head(MODEL).epoch} 0"
    watch, store = services(world, world.late).watch, home.services.store
    look = watch.look(MODEL, project.spec)
    assert look is not None
    assert look.row is None
    for _ in range(2):
        job = definitions_of({MODEL: project}).resolve_job_def("verify")
        assert not job.execute_in_process(request.run_config, home.instance, raise_on_error=False).success
    look = watch.look(MODEL, project.spec)
    assert look is not None
    assert look.row is not None
    assert (look.row.version, look.row.actor) == ("2", POLICY)
    assert f": {world.late}, rows, " in look.row.reason
    assert "the answer names version 2, but it should be 3" in look.row.reason
    assert store.verifications.since(MODEL, "")[-1].verification_id in look.row.reason
    assert due() == []


def test_what_an_address_answers_that_somebody_gave_is_no_evidence(world: World) -> None:
    kept = world.home.services.store.verifications.since(MODEL, "")
    verify_model(services(world, world.late), MODEL, [world.fresh], second_look_s=0)
    assert world.home.services.store.verifications.since(MODEL, "") == kept
