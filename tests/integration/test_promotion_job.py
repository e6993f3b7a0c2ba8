"""From Staging to Production and back: the operator's jobs, and the sensor that decides or says what it waits for."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dagster as dg
import httpx
import pytest
import uvicorn
from dagster._core.errors import DagsterInvalidConfigError
from mlflow import MlflowClient

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.key_ring import KeyRing
from release_platform.api.app import create_app
from release_platform.defs.naming import MODEL_TAG, asset_key
from release_platform.defs.promotion import MAXIMUM_ATTEMPTS, REQUEST_TAG
from release_platform.defs.resources import Platform
from release_platform.domain.api_keys import Scope
from release_platform.domain.errors import StaleEpoch
from release_platform.domain.ledger import faults, rollout_move_id
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.policy import RequestState, binding
from release_platform.model_card import follow_cards
from release_platform.project import Project
from tests.fakes.server import on_a_thread
from tests.integration.homes import Home, changed, example, open_home, why

MODEL = "diabetes"
OPEN = example(MODEL)


def with_policy(**policy) -> Project:
    return changed(OPEN, policy=replace(OPEN.spec.policy, **policy))


@pytest.fixture(scope="module")
def staged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 in Staging."""
    folder = tmp_path_factory.mktemp("staged") / "home"
    with open_home(folder) as home:
        result = home.release(OPEN)
        assert result.success, why(result)
        home.services.store.close()
    return folder


@pytest.fixture(scope="module")
def promoted_once(staged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with version 1 in Production and version 2 in Staging, judged against it."""
    folder = shutil.copytree(staged_once, tmp_path_factory.mktemp("promoted") / "home")
    with open_home(folder) as home:
        promote(home, request_id="first")
        assert home.release(OPEN).success
        home.services.store.close()
    return folder


@pytest.fixture
def staged(staged_once: Path, tmp_path: Path) -> Iterator[Home]:
    with open_home(shutil.copytree(staged_once, tmp_path / "home")) as home, closing(home.services.store):
        yield home


@pytest.fixture
def promoted(promoted_once: Path, tmp_path: Path) -> Iterator[Home]:
    with open_home(shutil.copytree(promoted_once, tmp_path / "home")) as home, closing(home.services.store):
        yield home


def ask(home: Home, project: Project = OPEN, **form: str) -> dg.ExecuteInProcessResult:
    return home.launch("request_promotion", project, **{"model": MODEL, "actor": "ada", "reason": "better", **form})


def promote(home: Home, *, request_id: str, **form: str) -> None:
    assert ask(home, request_id=request_id, **form).success
    assert home.launch("promote", OPEN, request_id=request_id).success


def tick(home: Home, project: Project = OPEN) -> tuple[list[dg.RunRequest], str]:
    """Evaluates the promotion sensor once; returns the runs that it launches, and what it says otherwise."""
    sensor = home.definitions(project).resolve_sensor_def("promotion_sensor")
    with dg.build_sensor_context(instance=home.instance, resources={"platform": Platform()}) as context:
        data = sensor.evaluate_tick(context)
    return list(data.run_requests or ()), data.skip_message or ""


def head(home: Home) -> Head:
    return home.services.store.head(MODEL)


def mlflow(home: Home) -> MlflowClient:
    return MlflowClient(home.services.settings.tracking_uri)


# Model cards


def card_of(home: Home, version: str) -> str:
    run_id = next(r for r in home.registrations(OPEN) if r.version == version).mlflow_run_id
    found = home.services.tracking.find_file(run_id, "card/card.md")
    assert found is not None
    return found.decode()


def test_cards_follow_approvals_shares_and_rollbacks_through_whichever_door(promoted: Home) -> None:
    store, releases = promoted.services.store, promoted.services.releases
    releases.request(MODEL, version="2", actor="ada", reason="better", request_id="q2")
    releases.approve("q2", actor="grace", reason="read it", policy=OPEN.spec.policy)
    assert "grace" not in card_of(promoted, "2")
    tick(promoted)
    assert "| approved, valid | grace |" in card_of(promoted, "2")

    for stage, weight in enumerate((0.25, 0.5)):
        of = {"model": MODEL, "version": "2", "actor": "ada", "reason": "better", "evidence": "e", "digest": "d"}
        move_id = rollout_move_id("q2", f"canary-{stage}")
        store.commit_move(
            **of, move=Move.CANARY_SET, weight=weight, expected_epoch=head(promoted).epoch, request_id=move_id
        )
        releases.projection.project(MODEL)
        tick(promoted)
        assert "Stands: staging, canary" in card_of(promoted, "2")
        assert f"| canary_set, {weight * 100:g} % |" in card_of(promoted, "2")
    releases.promote("q2", OPEN.spec.policy)

    keys = ApiKeyFile(promoted.folder / "api-keys.json")
    _, key = keys.create("grace", (Scope.OPERATOR,))
    app = create_app(promoted.services, KeyRing(promoted.folder / "api-keys.json"))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    with on_a_thread(uvicorn.Server(config)) as url:
        said, shown = {"reason": "errors doubled"}, {"authorization": f"Bearer {key}", "idempotency-key": "once"}
        answer = httpx.post(f"{url}/v1/models/{MODEL}/rollback", json=said, headers=shown, timeout=30)
    assert answer.status_code == 200, answer.text
    tick(promoted)
    assert "Stands: production" in card_of(promoted, "1")
    assert "| rolled_back | grace | errors doubled |" in card_of(promoted, "1")
    assert "Stands: nowhere" in card_of(promoted, "2")
    assert follow_cards(promoted.services, OPEN) == {}, "each is what it says"


# Asking


def test_a_request_is_for_the_version_in_staging_and_its_run_is_tagged_with_it(staged: Home) -> None:
    result = ask(staged)
    assert result.success
    (request,) = staged.services.store.requests(MODEL, RequestState.OPEN)
    assert (request.version, request.actor, request.reason) == ("1", "ada", "better")
    run = staged.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert (run.tags[REQUEST_TAG], run.tags[MODEL_TAG]) == (request.request_id, MODEL)


def test_a_launch_that_is_repeated_with_its_id_opens_one_request(staged: Home) -> None:
    assert ask(staged, request_id="q").success
    assert ask(staged, request_id="q").success
    assert len(staged.services.store.requests(MODEL)) == 1


@pytest.mark.parametrize("field", ["model", "reason"])
def test_a_form_without_a_field_is_refused_before_anything_runs(staged: Home, field: str) -> None:
    form = {"model": MODEL, "actor": "ada", "reason": "better"}
    del form[field]
    with pytest.raises(DagsterInvalidConfigError, match=field):
        staged.launch("request_promotion", OPEN, **form)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"model": "diabetis"}, "there is no model 'diabetis' here"),
        ({"version": "9"}, "there is no version 9"),
        ({"version": "latest"}, "there is no version latest"),
        ({"version": "1"}, "version 1 already is in Production"),
        ({"reason": "  "}, "needs an actor and a reason"),
        ({"actor": ""}, "needs an actor and a reason"),
    ],
)
def test_a_request_that_makes_no_sense_fails_and_opens_nothing(promoted: Home, form: dict[str, str], said: str) -> None:
    result = ask(promoted, **form)
    assert not result.success
    assert said in why(result)
    assert promoted.services.store.requests(MODEL, RequestState.OPEN) == ()


def test_without_a_version_in_staging_there_is_nothing_to_ask_for(promoted: Home) -> None:
    promote(promoted, request_id="q", version="2")
    result = ask(promoted)
    assert not result.success
    assert "there is no version in Staging" in why(result)
    assert "`release run diabetes` makes one" in why(result)


# Deciding


def test_the_sensor_says_that_there_is_nothing_to_decide(staged: Home) -> None:
    assert tick(staged) == ([], "no open promotion request")


def test_the_sensor_launches_a_request_whose_conditions_hold(staged: Home) -> None:
    ask(staged, request_id="q")
    (run,), _ = tick(staged)
    assert (run.run_key, run.job_name) == ("q:0", "promote")
    assert run.tags[REQUEST_TAG] == "q"
    assert run.run_config == {"ops": {"move_production": {"config": {"request_id": "q"}}}}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"approvals": 1}, "1 of 1 approval(s) by others than ada are missing"),
        ({"approvals": 2}, "2 of 2 approval(s)"),
        ({"minimum_soak_s": 3600.0}, "it must stand in Staging for 3600 s, until 2"),
    ],
)
def test_the_sensor_names_the_condition_that_is_missing(staged: Home, policy: dict[str, float], said: str) -> None:
    ask(staged, request_id="q")
    runs, waits = tick(staged, with_policy(**policy))
    assert runs == []
    assert "diabetes version 1 (request q) waits: " in waits
    assert said in waits
    assert staged.services.store.get_request("q").state is RequestState.OPEN


def test_the_sensor_names_every_condition_that_is_missing(staged: Home) -> None:
    ask(staged, request_id="q")
    _, waits = tick(staged, with_policy(approvals=1, minimum_soak_s=3600.0))
    assert "it must stand in Staging" in waits
    assert "approval(s)" in waits


def test_a_version_judged_against_another_than_the_present_production_waits(promoted: Home) -> None:
    assert promoted.release(OPEN).success  # version 3, judged against 1 as version 2 was
    promote(promoted, request_id="second", version="2")
    ask(promoted, request_id="third", version="3")
    runs, waits = tick(promoted)
    assert runs == []
    assert "its gates compared it with version 1, but Production is version 2 now" in waits
    (run,), _ = tick(promoted, with_policy(current_baseline=False))
    assert run.tags[REQUEST_TAG] == "third"


def test_an_approval_of_another_person_completes_the_conditions(staged: Home) -> None:
    strict = with_policy(approvals=1)
    ask(staged, strict, request_id="q")
    own = staged.launch("approve", strict, request_id="q", actor="ada")
    assert not own.success
    assert "ada asked for this promotion" in why(own)
    assert tick(staged, strict)[0] == []
    assert staged.launch("approve", strict, request_id="q", actor="grace", reason="read it").success
    (run,), _ = tick(staged, strict)
    assert run.tags[REQUEST_TAG] == "q"


def test_an_approval_is_void_when_the_policy_changes(staged: Home) -> None:
    strict = with_policy(approvals=1)
    ask(staged, strict, request_id="q")
    assert staged.launch("approve", strict, request_id="q", actor="grace").success
    runs, waits = tick(staged, with_policy(approvals=1, minimum_soak_s=0.001))
    assert runs == []
    assert "1 of 1 approval(s)" in waits


def test_a_request_that_is_closed_or_unknown_cannot_be_approved(staged: Home) -> None:
    promote(staged, request_id="q")
    late = staged.launch("approve", OPEN, request_id="q", actor="grace")
    assert "request q is closed" in why(late)
    assert "no promotion request nope" in why(staged.launch("approve", OPEN, request_id="nope", actor="grace"))


def test_a_version_whose_registered_digest_was_edited_is_refused_for_good(staged: Home) -> None:
    ask(staged, request_id="q")
    mlflow(staged).set_model_version_tag(MODEL, "1", "release.digest", "sha256:" + "0" * 64)
    assert not staged.launch("promote", OPEN, request_id="q").success
    request = staged.services.store.get_request("q")
    assert (request.state, head(staged).production) == (RequestState.REFUSED, None)
    assert "registry's digest of version 1" in request.outcome


def test_an_edited_digest_is_put_back_before_a_request_is_decided(staged: Home) -> None:
    ask(staged, request_id="q")
    mlflow(staged).set_model_version_tag(MODEL, "1", "release.digest", "sha256:" + "0" * 64)
    runs, _ = tick(staged)
    assert len(runs) == 1
    assert staged.services.registry.get_version(MODEL, "1").digest == staged.registrations(OPEN)[0].digest


def test_a_version_that_was_deleted_from_the_registry_is_refused(staged: Home) -> None:
    ask(staged, request_id="q")
    mlflow(staged).delete_model_version(MODEL, "1")
    runs, says = tick(staged)  # the alias staging cannot be put back, but that keeps nothing else from being decided
    assert runs == []
    assert "is refused: version 1 is not in the model registry" in says
    assert staged.services.store.get_request("q").state is RequestState.REFUSED


def test_while_a_promotion_run_is_under_way_no_second_one_is_launched(staged: Home) -> None:
    ask(staged, request_id="q")
    (run,), _ = tick(staged)
    record_run(staged, run.tags, dg.DagsterRunStatus.STARTED)
    runs, waits = tick(staged)
    assert runs == []
    assert "is under way" in waits


def test_a_promotion_run_that_failed_is_launched_again_under_a_new_key_but_not_forever(staged: Home) -> None:
    ask(staged, request_id="q")
    keys = []
    for _ in range(MAXIMUM_ATTEMPTS):
        (run,), _ = tick(staged)
        keys.append(run.run_key)
        record_run(staged, run.tags, dg.DagsterRunStatus.FAILURE)
    assert keys == ["q:0", "q:1", "q:2"]
    runs, waits = tick(staged)
    assert runs == []
    assert "is refused: 3 promotion runs failed, the last one was" in waits
    assert staged.services.store.get_request("q").state is RequestState.REFUSED


def record_run(home: Home, tags, status: dg.DagsterRunStatus) -> None:
    job = home.definitions(OPEN).resolve_job_def("promote")
    config = {"ops": {"move_production": {"config": {"request_id": tags[REQUEST_TAG]}}}}
    home.instance.create_run_for_job(job, run_config=config, tags=dict(tags), status=status)


# Promoting


def test_a_promotion_moves_production_and_keeps_the_version_before(promoted: Home) -> None:
    promote(promoted, request_id="q", reason="sharper for the young")
    now = head(promoted)
    assert (now.production, now.previous, now.staging) == ("2", ("1",), None)
    found = {alias: promoted.services.registry.find_alias(MODEL, alias) for alias in ("production", "previous")}
    assert found == {"production": "2", "previous": "1"}
    assert promoted.services.registry.find_alias(MODEL, "staging") is None
    rows = promoted.services.store.ledger(MODEL)
    assert faults(MODEL, rows) == ()
    assert (rows[-1].actor, rows[-1].reason, rows[-1].request_id) == ("ada", "sharper for the young", "q")
    assert rows[-1].evidence == binding(promoted.registrations(OPEN)[1], OPEN.spec.policy)


def test_production_version_is_materialized_with_who_why_and_what(promoted: Home) -> None:
    promote(promoted, request_id="q")
    made = promoted.materialization(OPEN, "production_version")
    told = {name: value.value for name, value in made.metadata.items()}
    registration = promoted.registrations(OPEN)[1]
    assert told["version"] == "2"
    assert (told["actor"], told["reason"], told["request"]) == ("ada", "better", "q")
    assert told["digest"] == registration.digest == made.tags["dagster/data_version"]
    assert (told["move"], told["previous_version"], told["epoch"]) == ("promoted", "1", 4)


def test_nothing_is_promoted_without_a_request(staged: Home) -> None:
    result = staged.launch("promote", OPEN, request_id="never")
    assert not result.success
    assert "no promotion request never" in why(result)
    assert head(staged).production is None


def test_the_job_asks_again_whether_every_condition_holds(staged: Home) -> None:
    strict = with_policy(approvals=1)
    ask(staged, strict, request_id="q")
    result = staged.launch("promote", strict, request_id="q")  # as if somebody launched it past the sensor
    assert not result.success
    assert "1 of 1 approval(s) by others than ada are missing" in why(result)
    assert head(staged).production is None
    assert staged.services.store.get_request("q").state is RequestState.OPEN


def test_two_promotions_of_one_request_have_one_effect(promoted: Home) -> None:
    promote(promoted, request_id="q")
    before = promoted.services.store.ledger(MODEL)
    assert promoted.launch("promote", OPEN, request_id="q").success
    assert promoted.services.store.ledger(MODEL) == before
    assert tick(promoted) == ([], "no open promotion request")


def test_promotions_of_one_request_at_the_same_time_have_one_effect(promoted: Home) -> None:
    ask(promoted, request_id="q")
    releases = promoted.services.releases

    def attempt(_: int) -> str:
        try:
            return releases.promote("q", OPEN.spec.policy).hash
        except StaleEpoch:
            return "stale"

    with ThreadPoolExecutor(4) as pool:
        rows = set(pool.map(attempt, range(4))) - {"stale"}
    assert len(rows) == 1
    assert [row.request_id for row in promoted.services.store.ledger(MODEL)].count("q") == 1


def test_a_promotion_that_was_cut_off_after_its_commit_is_carried_to_its_end(promoted: Home) -> None:
    ask(promoted, request_id="q")
    registration = promoted.registrations(OPEN)[1]
    promoted.services.store.commit_move(  # ... and here the process dies
        model=MODEL,
        move=Move.PROMOTED,
        version="2",
        expected_epoch=head(promoted).epoch,
        actor="ada",
        reason="better",
        request_id="q",
        evidence=registration.report_digest,
        digest=registration.digest,
    )
    (run,), _ = tick(promoted)
    assert promoted.launch("promote", OPEN, tags=run.tags, request_id="q").success
    assert promoted.services.store.get_request("q").state is RequestState.PROMOTED
    assert promoted.services.registry.find_alias(MODEL, "production") == "2"
    assert promoted.materialization(OPEN, "production_version").metadata["version"].value == "2"


def test_a_promotion_that_is_executed_again_after_a_rollback_changes_nothing(promoted: Home) -> None:
    promote(promoted, request_id="q")
    assert promoted.launch("rollback", OPEN, model=MODEL, actor="grace", reason="it hurts").success
    assert promoted.launch("promote", OPEN, request_id="q").success
    assert head(promoted).production == "1"
    assert promoted.services.registry.find_alias(MODEL, "production") == "1"
    assert promoted.materialization(OPEN, "production_version").metadata["version"].value == "1"


def test_a_version_whose_files_were_changed_is_not_promoted(staged: Home) -> None:
    ask(staged, request_id="q")
    (file,) = Path(mlflow(staged).get_model_version_download_uri(MODEL, "1").removeprefix("file://")).glob("model.onnx")
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"x")
    try:
        result = staged.launch("promote", OPEN, request_id="q")
    finally:
        file.write_bytes(before)  # it is shared with the other tests
    assert not result.success
    assert "model.onnx was changed: its digest is not the registered one" in why(result)
    assert head(staged).production is None


# Rolling back


def test_a_rollback_brings_the_version_before_back_and_says_so(promoted: Home) -> None:
    promote(promoted, request_id="q")
    result = promoted.launch("rollback", OPEN, model=MODEL, actor="grace", reason="it hurts")
    assert result.success, why(result)
    assert (head(promoted).production, head(promoted).previous) == ("1", ())
    assert promoted.services.registry.find_alias(MODEL, "production") == "1"
    assert promoted.services.registry.find_alias(MODEL, "previous") is None
    made = promoted.materialization(OPEN, "production_version")
    assert (made.metadata["move"].value, made.metadata["reason"].value) == ("rolled_back", "it hurts")
    assert made.metadata["previous_version"].value == "2"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "there is no previous Production version"),
        ({"to": "2"}, "version 2 never was in Production"),
        ({"to": "1"}, "version 1 is in Production now"),
        ({"to": "9"}, "version 9 never was in Production"),
        ({"reason": ""}, "needs an actor and a reason"),
    ],
)
def test_a_rollback_goes_only_to_a_former_production_version(promoted: Home, form, said: str) -> None:
    result = promoted.launch("rollback", OPEN, **{"model": MODEL, "actor": "grace", "reason": "it hurts", **form})
    assert not result.success
    assert said in why(result)
    assert head(promoted).production == "1"


def test_a_rollback_needs_no_registry(promoted: Home) -> None:
    promote(promoted, request_id="q")
    with open_home_without_mlflow(promoted):
        result = promoted.launch("rollback", OPEN, model=MODEL, actor="grace", reason="it hurts")
    assert result.success, why(result)
    assert head(promoted).production == "1"
    assert promoted.services.registry.find_alias(MODEL, "production") == "2"
    tick(promoted)  # the sensor finishes it when the registry is back
    assert promoted.services.registry.find_alias(MODEL, "production") == "1"


def open_home_without_mlflow(home: Home):
    environment = pytest.MonkeyPatch()
    environment.setenv("RELEASE_MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    return closing(Undone(environment.undo))


class Undone:
    """Calls something at the end of a block."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


# Aliases that somebody moved


def alias_check(home: Home) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(asset_key(MODEL, "production_version"), "registry_shows_ledger")
    job = dg.define_asset_job("look", dg.AssetSelection.checks(key))
    location = dg.Definitions.merge(home.definitions(OPEN), dg.Definitions(jobs=[job]))
    result = location.resolve_job_def("look").execute_in_process(instance=home.instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_aliases_that_show_the_head_pass_their_check(promoted: Home) -> None:
    assert alias_check(promoted).passed


@pytest.mark.parametrize("to", ["2", None])
def test_an_alias_that_was_moved_behind_our_back_is_shown_and_put_back(promoted: Home, to: str | None) -> None:
    promoted.services.registry.set_alias(MODEL, "production", to)
    found = alias_check(promoted)
    assert not found.passed
    said = "version 2" if to else "absent"
    assert found.description == f"alias production is {said}, the head says version 1"
    tick(promoted)
    assert promoted.services.registry.find_alias(MODEL, "production") == "1"
    assert alias_check(promoted).passed
