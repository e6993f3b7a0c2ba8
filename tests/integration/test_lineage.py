"""The lineage of a real version: all systems are compared, what is gone is named, what is down is missing."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from release_platform.defs.lineage import DagsterHistory
from release_platform.domain.errors import NotFound
from release_platform.domain.lineage import Lineage
from release_platform.lineage import find_version, trace
from release_platform.services import Services
from tests.integration.homes import Command, Home, changed, example, free_port, open_home, warm_release, why
from tests.openlineage_spec import breaches, unpaired

MODEL = "breast_cancer"
OPEN = example(MODEL)
GUARDED = changed(OPEN, policy=replace(OPEN.spec.policy, approvals=1))
STAGES = ["raw_data", "features", "trained_model", "evaluation_report", "registered_version", "production_version"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform whose version 1 was approved and promoted, and version 2 registered, promoted and rolled back from."""
    folder = tmp_path_factory.mktemp("lineage") / "home"
    with open_home(folder) as home:
        for version in ("1", "2"):
            result = home.release(GUARDED)
            assert result.success, why(result)
            home.services.tracking.close_runs(result.run_id, "FINISHED")
            form = {"model": MODEL, "actor": "ada", "reason": f"better {version}", "request_id": f"q{version}"}
            assert home.launch("request_promotion", GUARDED, **form).success
            assert home.launch("approve", GUARDED, request_id=f"q{version}", actor="grace", reason="read").success
            assert home.launch(
                "promote", GUARDED, request_id=f"q{version}", tags={"release/request": f"q{version}"}
            ).success
        assert home.launch("rollback", GUARDED, model=MODEL, actor="eve", reason="it hurts").success
        home.services.store.close()
    return folder


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Iterator[Home]:
    """The platform; what a test changes, it changes in a copy."""
    with open_home(shutil.copytree(released, tmp_path / "home")) as opened, closing(opened.services.store):
        yield opened


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


def lineage(home: Home, version: str = "1", services: Services | None = None) -> Lineage:
    services = services or home.services
    history = DagsterHistory(lambda: home.instance, services.settings.dagster_url)
    return trace(services, find_version(services, MODEL, version), GUARDED.spec.policy, history)


def mlflow(home: Home) -> MlflowClient:
    return MlflowClient(home.services.settings.tracking_uri)


# All systems answer


def test_all_systems_tell_the_same_story_of_both_versions(home: Home) -> None:
    for version in ("1", "2"):
        found = lineage(home, version)
        assert (found.consistent, found.disagreements, found.missing) == (True, (), ())


def test_it_goes_back_to_data_code_parameters_and_metrics_with_their_intervals(home: Home) -> None:
    found = lineage(home)
    assert found.source == {"python": "release_platform.examples.breast_cancer.source:load"}
    assert found.data["all"].digest == found.registration.fingerprint
    assert (found.data["all"].n_rows, found.n_training_rows, found.n_held_out_rows) == (569, 427, 142)
    assert set(found.environment) >= {"git_commit", "lock", "python", "version.scikit-learn", "native.blas"}
    assert found.parameters["estimator.C"] == "0.5"
    recall = found.metrics["recall"]
    assert recall.lower is not None
    assert recall.upper is not None
    assert recall.lower <= (recall.value or 0) <= recall.upper
    assert recall.n_rows == 142


def test_it_names_requests_approvals_and_moves_with_their_certificates(home: Home) -> None:
    found = lineage(home)
    assert [(r.request_id, r.actor, r.reason, r.state.value) for r in found.requests] == [
        ("q1", "ada", "better 1", "promoted")
    ]
    assert [(a.approval.actor, a.state) for a in found.approvals] == [("grace", "valid")]
    assert [m.row.move.value for m in found.moves] == ["staged", "promoted", "rolled_back"]
    assert [m.row.actor for m in found.moves[1:]] == ["ada", "eve"]
    assert [m.certificate for m in found.moves] == ["valid", "replaced by that of epoch 5", "valid"]
    assert found.stands == ("production",)
    assert lineage(home, "2").registration.baseline == "1"


def test_an_approval_is_void_when_the_policy_is_another_one(home: Home) -> None:
    stricter = replace(GUARDED.spec.policy, approvals=2)
    history = DagsterHistory(lambda: home.instance, "http://dagster")
    found = trace(home.services, find_version(home.services, MODEL, "1"), stricter, history)
    assert [a.state[:4] for a in found.approvals] == ["void"]


def test_it_links_the_very_materializations_that_made_the_version_and_every_run(home: Home) -> None:
    first, second = lineage(home, "1"), lineage(home, "2")
    assert [made.stage for made in first.stages] == [*STAGES, "production_version"]  # promoted, then rolled back to
    assert not {made.storage_id for made in first.stages} & {made.storage_id for made in second.stages}
    assert {made.run_id for made in first.stages[:5]} == {first.registration.dagster_run_id}
    jobs = [(run.job, run.request) for run in first.runs if run.system == "dagster"]
    assert [job for job, _ in jobs] == [f"release_{MODEL}", "request_promotion", "approve", "promote", "rollback"]
    assert {request for _, request in jobs[1:4]} == {"q1"}
    assert [run.run_id for run in first.runs if run.system == "mlflow"] == [first.registration.mlflow_run_id]
    for run in first.runs:
        assert run.run_id in run.link
    for made in first.stages:
        assert f"/assets/{MODEL}/{made.stage}" in made.link


def test_a_version_of_stages_from_several_runs_is_followed_through_all_of_them(home: Home) -> None:
    assert home.materialize(GUARDED, "raw_data", "features").success
    assert home.materialize(GUARDED, "trained_model").success
    judged = home.materialize(GUARDED, "evaluation_report", "registered_version")
    assert judged.success, why(judged)
    found = lineage(home, "3")
    assert (found.disagreements, found.missing) == ((), ())
    assert len({made.run_id for made in found.stages}) == 3
    assert [made.stage for made in found.stages] == STAGES[:5]


# Something was changed behind the platform's back


@pytest.mark.parametrize(
    ("tag", "fact"),
    [
        ("release.data_fingerprint", "data fingerprint"),
        ("release.model_digest", "model digest"),
        ("release.code_version", "code version"),
        ("release.snapshots", "snapshots"),
        ("dagster_run_id", "training run"),
        ("env.lock", "lock"),
    ],
)
def test_an_edited_tag_of_the_mlflow_run_is_named(home: Home, tag: str, fact: str) -> None:
    run_id = find_version(home.services, MODEL, "1").mlflow_run_id
    mlflow(home).set_tag(run_id, tag, "{}" if tag == "release.snapshots" else "another")
    found = lineage(home)
    assert found.consistent is False
    assert [line.split(":")[0] for line in found.disagreements] == [fact]
    assert "MLflow's run says" in found.disagreements[0]


def test_a_metric_that_was_logged_over_is_named(home: Home) -> None:
    mlflow(home).log_metric(find_version(home.services, MODEL, "1").mlflow_run_id, "recall", 1.0)
    assert [line.split(":")[0] for line in lineage(home).disagreements] == ["metric recall"]


def test_an_edited_tag_of_the_mlflow_version_is_named(home: Home) -> None:
    mlflow(home).set_model_version_tag(MODEL, "1", "dagster.run_id", "another")
    assert [line.split(":")[0] for line in lineage(home).disagreements] == ["registering run"]


def test_a_deleted_mlflow_run_and_a_deleted_dagster_run_are_named(home: Home) -> None:
    of = find_version(home.services, MODEL, "1")
    mlflow(home).delete_run(of.mlflow_run_id)
    assert [line.split(":")[0] for line in lineage(home).disagreements] == ["MLflow run"]
    home.instance.delete_run(of.dagster_run_id)
    gone = [line for line in lineage(home).disagreements if line.endswith("Dagster has none")]
    assert gone


def test_an_edited_certificate_is_not_valid(home: Home) -> None:
    mlflow(home).set_model_version_tag(MODEL, "1", "release.certificate.production", "{}")
    assert lineage(home).moves[-1].certificate.startswith("not valid: ")


# Something is down


def test_without_mlflow_it_shows_the_rest_and_says_what_is_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEASE_MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing((services := Services(type(home.services.settings)())).store):
        found = lineage(home, services=services)
    assert found.consistent is None
    assert [line.split(":")[0] for line in found.missing] == ["MLflow"]
    assert found.disagreements == ()
    assert found.metrics["recall"].lower is not None  # from the report in Dagster
    assert found.data["all"].n_rows == 569
    assert found.moves[0].certificate.startswith("unknown")


def test_without_dagster_it_shows_the_rest_and_says_what_is_missing(home: Home) -> None:
    def broken() -> dg.DagsterInstance:
        raise dg.DagsterInvariantViolationError("no storage")

    found = trace(
        home.services, find_version(home.services, MODEL, "1"), GUARDED.spec.policy, DagsterHistory(broken, "http://d")
    )
    assert (found.consistent, found.stages) == (None, ())
    assert [line.split(":")[0] for line in found.missing] == ["Dagster"]
    assert found.metrics["recall"].value is not None  # from MLflow, without an interval
    assert found.data["all"].n_rows == 569


def test_without_its_snapshot_it_says_so(home: Home) -> None:
    folder = Path(lineage(home).data["all"].uri).parent
    aside = folder.rename(folder.with_name("aside"))
    try:
        found = lineage(home)
    finally:
        aside.rename(folder)
    assert [line.split(":")[0] for line in found.missing] == ["data snapshots"]
    assert (found.data, found.consistent) == ({}, None)


def test_a_version_that_never_was_is_not_found(home: Home) -> None:
    with pytest.raises(NotFound, match="no version 99"):
        lineage(home, "99")


# The command


def test_the_command_prints_a_tree_json_and_events_that_agree(home: Home, release: Command) -> None:
    found = release(home.folder, "lineage", MODEL, "1", "--json").json
    assert found == json.loads(json.dumps(found))
    assert (found["consistent"], found["missing"], found["compared_with"]) == (True, [], "nothing: first release")
    tree = release(home.folder, "lineage", MODEL, "1", COLUMNS="40").out
    snapshot = found["data"]["snapshots"][0]["uri"]
    for shown in ("consistent: yes", snapshot, found["links"]["mlflow_run"], found["moves"][1]["hash"], "actor: grace"):
        assert shown in tree
    printed = release(home.folder, "lineage", MODEL, "1", "--openlineage").out
    events = [json.loads(line) for line in printed.splitlines()]
    assert [breaches(event) for event in events] == [[]] * len(events)
    assert unpaired(events) == []
    assert [e["job"]["name"] for e in events[::2]] == [f"{MODEL}.{stage}" for stage in [*STAGES, STAGES[-1]]]
    parents = {event["run"]["facets"]["parent"]["run"]["runId"] for event in events}
    assert parents < {run["run_id"] for run in found["runs"]}


def test_the_command_writes_events_to_a_file(home: Home, release: Command, tmp_path: Path) -> None:
    done = release(home.folder, "lineage", MODEL, "2", "--openlineage", "--output", str(tmp_path / "events.jsonl"))
    assert done.exit_code == 0, done.err
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 12


def test_the_command_goes_on_when_mlflow_s_database_cannot_be_read(home: Home, release: Command) -> None:
    for file in home.folder.glob("mlflow.db*"):
        file.unlink()
    (home.folder / "mlflow.db").write_text("this is no database")
    done = release(home.folder, "lineage", MODEL, "1", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["consistent"] is None
    assert [line.split(":")[0] for line in done.json["missing"]] == ["MLflow"]
    assert "not known, a part is missing" in release(home.folder, "lineage", MODEL, "1").out
    events = release(home.folder, "lineage", MODEL, "1", "--openlineage")
    assert "missing: MLflow" in events.err
    assert all(breaches(json.loads(line)) == [] for line in events.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(("99",), 5), (("1", "--json", "--openlineage"), 5), (("1", "--output", "f"), 5)]
)
def test_what_makes_no_sense_is_refused(
    home: Home, release: Command, arguments: tuple[str, ...], exit_code: int
) -> None:
    assert release(home.folder, "lineage", MODEL, *arguments).exit_code == exit_code
