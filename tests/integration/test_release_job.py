"""A release through Dagster, from the source to a version in Staging, on a real instance with everything real."""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from release_platform.definitions import EXAMPLES, build_definitions
from release_platform.defs.naming import STAGES, asset_key
from release_platform.domain.freshness_spec import Aging, FreshnessSpec
from release_platform.domain.gates import Verdict
from tests.integration.homes import Home, changed, example, open_home, why, with_gate

RELEASE_STAGES = STAGES[:-1]
CANCER = example("breast_cancer")
DIABETES = example("diabetes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("release") / "home") as opened:
        yield opened


@pytest.fixture(scope="module")
def released(home: Home) -> dg.ExecuteInProcessResult:
    """The first release of breast_cancer."""
    result = home.release(CANCER)
    assert result.success, why(result)
    return result


@pytest.fixture(scope="module")
def again(home: Home, released: dg.ExecuteInProcessResult) -> dg.ExecuteInProcessResult:
    """The same once more, with the first version in Production."""
    asked = home.launch("request_promotion", CANCER, model="breast_cancer", actor="ada", reason="first", request_id="q")
    assert asked.success, why(asked)
    assert home.launch("promote", CANCER, request_id="q").success
    result = home.release(CANCER)
    assert result.success, why(result)
    return result


def metadata_of(result: dg.ExecuteInProcessResult, stage: str, model: str = "breast_cancer") -> dict[str, object]:
    (made,) = result.asset_materializations_for_node(f"{model}__{stage}")
    return {name: value.value for name, value in made.metadata.items()}


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        stage: result.asset_materializations_for_node(f"breast_cancer__{stage}")[0].tags["dagster/data_version"]
        for stage in RELEASE_STAGES
    }


# The graph


@pytest.fixture(scope="module")
def graph():
    return build_definitions(EXAMPLES).resolve_asset_graph()


@pytest.mark.parametrize("model", ["breast_cancer", "diabetes", "digits", "flight_delay"])
def test_each_example_is_six_assets_in_a_row_with_owner_group_kinds_and_description(graph, model) -> None:
    nodes = [graph.get(asset_key(model, stage)) for stage in STAGES]
    for before, node in pairwise(nodes):
        assert node.parent_keys == {before.key}
    assert {node.group_name for node in nodes} == {model}
    assert all(node.owners == [example(model).spec.owner] for node in nodes)
    assert all(node.description and node.kinds for node in nodes)
    assert {node.key.path[1] for node in nodes if node.code_version is None} == {"production_version"}


def test_each_gate_is_a_check_of_the_evaluation_report_and_blocks_unless_it_is_advisory(graph) -> None:
    for model in ("breast_cancer", "diabetes", "digits", "flight_delay"):
        for gate in example(model).spec.every_gate:
            check = graph.get(dg.AssetCheckKey(asset_key(model, "evaluation_report"), gate.name))
            assert check.blocking == gate.blocking
            assert gate.metric in check.description


def test_all_examples_have_a_release_job_and_share_the_operator_s_jobs_and_sensors() -> None:
    location = build_definitions(EXAMPLES)
    for job in (*(f"release_{p.parent.name}" for p in EXAMPLES.glob("*/defs.yaml")), "request_promotion", "approve"):
        assert location.resolve_job_def(job)
    for job in ("promote", "rollback"):
        assert location.resolve_job_def(job)
    sensor = location.resolve_sensor_def("promotion_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_the_code_version_changes_with_the_part_of_the_yaml_that_makes_the_asset_and_only_with_it(home: Home) -> None:
    def versions(project) -> dict[str, str | None]:
        graph = home.definitions(project).resolve_asset_graph()
        return {stage: graph.get(asset_key("breast_cancer", stage)).code_version for stage in RELEASE_STAGES}

    before, after = versions(CANCER), versions(changed(CANCER, seed=1))
    assert versions(CANCER) == before
    assert before["raw_data"] == after["raw_data"]
    assert before["features"] != after["features"]
    assert before["trained_model"] != after["trained_model"]


def test_an_asset_that_the_yaml_gives_an_age_has_a_freshness_policy(home: Home) -> None:
    fresh = {
        Aging.REGISTERED_VERSION: FreshnessSpec(fail_s=7 * 86400, warn_s=86400),
        Aging.DRIFT_REPORT: FreshnessSpec(fail_s=86400),
        Aging.PRODUCTION_VERSION: FreshnessSpec(fail_s=86400),
        Aging.RAW_DATA: FreshnessSpec(fail_s=86400),
        Aging.BATCH_SCORES: FreshnessSpec(fail_s=86400),
    }
    assert set(fresh) == set(Aging)
    graph = home.definitions(changed(CANCER, freshness=fresh)).resolve_asset_graph()
    for stage, rule in fresh.items():
        policy = graph.get(asset_key("breast_cancer", stage.value)).freshness_policy_or_from_metadata
        warn = None if rule.warn_s is None else timedelta(seconds=rule.warn_s)
        assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=rule.fail_s), warn_window=warn)
    assert graph.get(asset_key("breast_cancer", "features")).freshness_policy_or_from_metadata is None


# The first release


def test_a_release_materializes_every_stage_up_to_staging(home: Home, released) -> None:
    made = [event.asset_key.path[1] for event in released.get_asset_materialization_events()]
    assert made == list(RELEASE_STAGES)
    (registration, *_) = home.registrations(CANCER)
    assert registration.version == "1"
    assert registration.dagster_run_id == released.run_id
    assert registration.baseline is None
    assert all(gate.passed for gate in registration.gates)


def test_every_check_ran_and_tells_value_limit_and_verdict_as_numbers_and_words(released) -> None:
    checks = {check.check_name: check for check in released.get_asset_check_evaluations()}
    assert set(checks) == {gate.name for gate in CANCER.spec.every_gate} | {"snapshot_intact", "servable"}
    assert all(check.passed for check in checks.values())
    auc = {name: value.value for name, value in checks["auc_floor"].metadata.items()}
    assert isinstance(auc["value"], float)
    assert (auc["limit"], auc["direction"], auc["verdict"]) == (0.97, "at least", "passed")
    first = checks["no_worse"].metadata
    assert "first release: nothing is in Production" in str(first["reason"].value)


def test_raw_data_tells_rows_columns_fingerprint_preview_and_what_changed(released) -> None:
    found = metadata_of(released, "raw_data")
    assert found["dagster/row_count"] == 569
    schema = found["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert [c.name for c in schema.columns] == list(CANCER.spec.contract.columns)
    assert str(found["fingerprint"]).startswith("sha256:")
    assert found["changed"] == "first snapshot"
    assert "| diagnosis |" in str(found["preview"])


def test_features_tell_how_many_rows_train_and_how_many_judge(released) -> None:
    found = metadata_of(released, "features")
    assert found["training_rows"] + found["held_out_rows"] == found["dagster/row_count"] == 569
    assert found["raw_fingerprint"] == metadata_of(released, "raw_data")["fingerprint"]


def test_the_evaluation_report_shows_metrics_as_numbers_and_plots(released) -> None:
    found = metadata_of(released, "evaluation_report")
    for metric in CANCER.spec.metrics:
        assert isinstance(found[metric], float)
    plots = {name for name in found if name.startswith("plot_")}
    assert {"plot_roc", "plot_precision_recall", "plot_calibration", "plot_confusion", "plot_importance"} <= plots
    assert all("data:image/png;base64," in str(found[plot]) for plot in plots)
    assert found["compared_with"] == "nothing: first release"


def test_the_model_that_was_registered_is_the_one_that_was_logged_byte_by_byte(home: Home, released, tmp_path) -> None:
    trained = home.record(CANCER, "trained_model")
    for version in home.registrations(CANCER):
        assert home.services.registry.get_version("breast_cancer", version.version).digest == version.digest
    record = home.services.registry.fetch("breast_cancer", "1", tmp_path)
    assert {entry.path for entry in record.manifest.files} >= {"release.json", "golden.json", "model.skops", "MLmodel"}
    assert trained.manifest.digest == home.registrations(CANCER)[-1].digest


# Links, both ways


def test_dagster_links_to_mlflow_and_mlflow_to_dagster(home: Home, released) -> None:
    (made,) = released.asset_materializations_for_node("breast_cancer__trained_model")
    run_id = made.metadata["mlflow_run_id"].value
    assert str(made.metadata["mlflow_run"].value).endswith(f"/runs/{run_id}")
    run = home.services.tracking.get_run(run_id)
    assert run.data.tags["dagster_run_id"] == released.run_id
    assert run.data.tags["dagster.asset_key"] == "breast_cancer/trained_model"
    assert run.data.tags["dagster.run_url"].endswith(f"/runs/{released.run_id}")
    assert run.data.tags["dagster.job"] == "release_breast_cancer"
    assert run.data.tags["release.version"] == "1"
    version = home.services.registry.get_version("breast_cancer", "1")
    assert version.run_id == run_id
    assert version.tags["dagster.run_id"] == released.run_id
    (registered,) = released.asset_materializations_for_node("breast_cancer__registered_version")
    assert str(registered.metadata["model_version"].value).endswith("/#/models/breast_cancer/versions/1")


def test_the_mlflow_run_has_params_metrics_inputs_gates_environment_and_the_report(home: Home, released) -> None:
    from mlflow import MlflowClient

    run = home.services.tracking.get_run(home.registrations(CANCER)[0].mlflow_run_id)
    assert run.data.params["estimator.C"] == "0.5"
    assert run.data.params["estimator.type"] == "sklearn.linear_model.LogisticRegression"
    assert run.data.metrics["roc_auc"] == metadata_of(released, "evaluation_report")["roc_auc"]
    assert run.data.tags["gate.auc_floor"].startswith("passed: roc_auc is")
    assert run.data.tags["env.lock"].startswith("sha256:")
    (read,) = run.inputs.dataset_inputs
    fingerprint = str(metadata_of(released, "raw_data")["fingerprint"])
    assert read.dataset.digest == fingerprint.removeprefix("sha256:")[:36]
    assert run.data.tags["release.data_fingerprint"] == fingerprint
    client = MlflowClient(home.services.settings.tracking_uri)
    files = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert {"report.json", "report.html", "roc.png"} <= files


def test_the_logged_model_is_complete_and_carries_the_digest(home: Home, released) -> None:
    from mlflow import MlflowClient

    (made,) = released.asset_materializations_for_node("breast_cancer__trained_model")
    logged = MlflowClient(home.services.settings.tracking_uri).get_logged_model(
        str(made.metadata["mlflow_model_id"].value)
    )
    assert str(logged.status) == "READY"
    assert logged.tags["release.digest"] == made.metadata["package_digest"].value


# The same again


def test_the_same_data_is_stored_once_and_has_the_same_data_version(home: Home, released, again) -> None:
    first, second = data_versions(released), data_versions(again)
    assert first["raw_data"] == second["raw_data"]
    assert first["features"] == second["features"]
    assert len(list((home.folder / "snapshots").glob("*.parquet"))) == 2
    assert metadata_of(again, "raw_data")["changed"] == "the same data as last time"


def test_the_same_data_gives_the_same_model(home: Home, released, again) -> None:
    assert data_versions(released)["trained_model"] == data_versions(again)["trained_model"]
    first, second = home.registrations(CANCER)
    assert first.model_digest == second.model_digest
    assert (first.version, second.version) == ("1", "2")


def test_the_second_release_is_compared_with_production(home: Home, again) -> None:
    second = home.registrations(CANCER)[1]
    assert second.baseline == "1"
    assert metadata_of(again, "evaluation_report")["compared_with"] == "1"
    (no_worse,) = [gate for gate in second.gates if gate.gate == "no_worse"]
    assert no_worse.verdict is Verdict.PASSED
    assert "against" in no_worse.reason
    assert no_worse.limit == -0.02
    report = home.record(CANCER, "evaluation_report").report
    assert report["baseline"]["version"] == "1"


def test_staging_has_the_new_version_and_production_stays(home: Home, again) -> None:
    head = home.services.store.head("breast_cancer")
    assert (head.staging, head.production) == ("2", "1")
    assert home.services.registry.find_alias("breast_cancer", "staging") == "2"
    assert home.services.registry.find_alias("breast_cancer", "production") == "1"


# Gates


def test_a_model_that_is_worse_than_production_does_not_pass(home: Home, again) -> None:
    worse = changed(CANCER, features=("mean_fractal_dimension", "texture_error"), gates=CANCER.spec.gates[4:])
    with_floor = with_gate(worse, name="floor", metric="roc_auc", minimum=0.1)
    result = home.release(with_floor)
    assert not result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["no_worse"].passed
    assert checks["no_worse"].metadata["verdict"].value == "failed"
    assert "against" in checks["no_worse"].description


@pytest.fixture(scope="module")
def impossible(home: Home) -> dg.ExecuteInProcessResult:
    """A release of diabetes whose last gate cannot be passed."""
    return home.release(with_gate(DIABETES, name="impossible", metric="rmse", maximum=0.001))


def test_a_gate_that_fails_stops_the_release_and_nothing_is_registered(home: Home, impossible) -> None:
    assert not impossible.success
    made = [event.asset_key.path[1] for event in impossible.get_asset_materialization_events()]
    assert made == ["raw_data", "features", "trained_model", "evaluation_report"]
    checks = {check.check_name: check for check in impossible.get_asset_check_evaluations()}
    assert [name for name, check in checks.items() if not check.passed] == ["impossible"]
    assert "above the maximum 0.001" in checks["impossible"].description
    assert home.services.registry.versions("diabetes") == []
    assert home.registrations(DIABETES) == ()
    assert home.services.store.head("diabetes").epoch == 0


def test_registering_it_alone_afterwards_is_refused_and_names_the_gate(home: Home, impossible) -> None:
    project = with_gate(DIABETES, name="impossible", metric="rmse", maximum=0.001)
    result = home.materialize(project, "registered_version")
    assert not result.success
    assert "impossible: rmse is" in why(result)
    assert home.services.registry.versions("diabetes") == []


def test_a_check_of_an_older_evaluation_does_not_count_for_a_newer_one(home: Home, impossible) -> None:
    evaluated = home.materialize(DIABETES, "evaluation_report", checks=False)  # a new evaluation, no check run on it
    assert evaluated.success
    result = home.materialize(DIABETES, "registered_version")
    assert not result.success
    assert "rmse_cap: the check was run on another evaluation; run it on this one" in why(result)
    assert home.services.registry.versions("diabetes") == []


def test_checks_run_alone_on_the_newest_evaluation_let_it_be_registered(home: Home, impossible) -> None:
    gates = dg.AssetSelection.checks_for_assets(asset_key("diabetes", "evaluation_report"))
    job = dg.define_asset_job("gates_only", gates)
    location = dg.Definitions.merge(home.definitions(DIABETES), dg.Definitions(jobs=[job]))
    checked = location.resolve_job_def("gates_only").execute_in_process(instance=home.instance)
    assert len(checked.get_asset_check_evaluations()) == len(DIABETES.spec.every_gate)
    result = home.materialize(DIABETES, "registered_version")
    assert result.success, why(result)
    assert [r.version for r in home.registrations(DIABETES)] == ["1"]


def test_registering_the_same_evaluation_twice_makes_one_version(home: Home, impossible) -> None:
    before = [record.version for record in home.services.registry.versions("diabetes")]
    epoch = home.services.store.head("diabetes").epoch
    result = home.materialize(DIABETES, "registered_version")
    assert result.success, why(result)
    assert [record.version for record in home.services.registry.versions("diabetes")] == before
    assert home.services.store.head("diabetes").epoch == epoch


def test_an_advisory_gate_that_fails_is_shown_and_stops_nothing(home: Home) -> None:
    result = home.release(with_gate(DIABETES, name="wish", metric="rmse", maximum=0.001, blocking=False))
    assert result.success, why(result)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["wish"].passed
    assert checks["wish"].severity is dg.AssetCheckSeverity.WARN


# Partitions


def test_a_range_of_months_is_ingested_in_one_run_and_the_model_is_trained_on_it(home: Home) -> None:
    months = ("2013-01", "2013-02", "2013-03")
    flights = example("flight_delay")
    quick = replace_iterations(flights)
    result = home.release(
        quick,
        tags={"dagster/asset_partition_range_start": months[0], "dagster/asset_partition_range_end": months[-1]},
    )
    assert result.success, why(result)
    made = result.asset_materializations_for_node("flight_delay__raw_data")
    assert tuple(sorted(str(event.partition) for event in made)) == months
    assert all(event.metadata["dagster/row_count"].value > 20_000 for event in made)
    key = asset_key("flight_delay", "raw_data")
    assert home.instance.get_materialized_partitions(key) == set(months)
    table = home.record(quick, "features")
    assert sorted(table.raw) == list(months)
    assert table.n_training_rows + table.n_held_out_rows == sum(e.metadata["dagster/row_count"].value for e in made)
    run = home.services.tracking.get_run(home.registrations(quick)[-1].mlflow_run_id)
    assert sorted(json.loads(run.data.tags["release.snapshots"])) == list(months)


def replace_iterations(project):
    """The same model with few trees: this test is of partitions."""
    from dataclasses import replace

    described = replace(project.spec.estimator, parameters={"max_iter": 20, "early_stopping": False})
    gates = tuple(gate for gate in project.spec.gates if gate.metric == "roc_auc" and gate.slice is None)
    return changed(project, estimator=described, gates=gates)
