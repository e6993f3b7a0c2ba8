"""One MLflow run for each Dagster run and model, whatever fails: what dagster-mlflow alone does not hold."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dagster as dg
import mlflow
import pytest
from mlflow.entities import Run

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.project import Project
from release_platform.settings import Settings
from tests.integration.homes import Home, changed, example, open_home, why, with_gate

CANCER = example("breast_cancer")
DIABETES = example("diabetes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("runs") / "home") as opened:
        yield opened


def runs_of(home: Home, dagster_run_id: str) -> list[Run]:
    """Returns every MLflow run, deleted ones left out, that says it belongs to a Dagster run."""
    client = mlflow.MlflowClient(home.services.settings.tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.dagster_run_id = '{dagster_run_id}'"))


def all_runs(home: Home) -> list[Run]:
    client = mlflow.MlflowClient(home.services.settings.tracking_uri)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def close(home: Home, result: dg.ExecuteInProcessResult) -> None:
    """Does what the daemon does when a run ends: evaluates the sensor of its status."""
    ended, name = (result.get_run_success_event(), "finished") if result.success else (failure_of(result), "failed")
    sensor = home.definitions(CANCER).resolve_sensor_def(f"close_mlflow_run_{name}")
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_event=ended,
        dagster_instance=home.instance,
        dagster_run=result.dagster_run,
        resources={"platform": Platform()},
    )
    sensor(context)


def failure_of(result: dg.ExecuteInProcessResult) -> dg.DagsterEvent:
    return next(event for event in result.all_events if event.event_type is dg.DagsterEventType.RUN_FAILURE)


def fit_with(project: Project, kind: str, **parameters) -> Project:
    return changed(project, estimator=replace(project.spec.estimator, type=kind, parameters=parameters))


def test_a_release_has_one_run_which_ends_finished(home: Home) -> None:
    result = home.release(CANCER)
    (run,) = runs_of(home, result.run_id)
    assert run.info.status == "RUNNING"  # not before the Dagster run ended
    close(home, result)
    (run,) = runs_of(home, result.run_id)
    assert run.info.status == "FINISHED"


def test_a_release_whose_training_fails_has_one_run_which_ends_failed(home: Home) -> None:
    result = home.release(fit_with(CANCER, "sklearn.linear_model.LogisticRegression", C=-1.0))
    assert not result.success
    assert "cannot be fitted" in why(result)
    close(home, result)
    (run,) = runs_of(home, result.run_id)
    assert run.info.status == "FAILED"


def test_a_release_whose_gate_fails_has_one_run_which_ends_failed(home: Home) -> None:
    result = home.release(with_gate(DIABETES, name="impossible", metric="rmse", maximum=0.001))
    assert not result.success
    close(home, result)
    (run,) = runs_of(home, result.run_id)
    assert run.info.status == "FAILED"


def test_a_release_that_fails_before_training_has_no_run_to_close(home: Home) -> None:
    before = len(all_runs(home))
    result = home.release(changed(CANCER, contract=replace(CANCER.spec.contract, minimum_rows=1_000_000)))
    assert not result.success
    close(home, result)
    assert len(all_runs(home)) == before


def test_closing_again_changes_nothing(home: Home) -> None:
    result = home.release(DIABETES)
    close(home, result)
    (first,) = runs_of(home, result.run_id)
    close(home, result)
    (second,) = runs_of(home, result.run_id)
    assert second.info.end_time == first.info.end_time


def test_an_evaluation_in_a_later_run_has_a_run_of_its_own_that_points_to_the_training(home: Home) -> None:
    trained = home.release(CANCER)
    evaluated = home.materialize(CANCER, "evaluation_report")
    assert evaluated.success, why(evaluated)
    (training,) = runs_of(home, trained.run_id)
    (evaluation,) = runs_of(home, evaluated.run_id)
    assert evaluation.info.run_id != training.info.run_id
    assert evaluation.data.tags["release.evaluates_run"] == training.info.run_id


def both(home: Home) -> dg.ExecuteInProcessResult:
    """Materializes two models in one Dagster run, as "Materialize all" does."""
    job = dg.define_asset_job("both", dg.AssetSelection.groups("breast_cancer", "diabetes"))
    location = dg.Definitions.merge(home.definitions(CANCER, DIABETES), dg.Definitions(jobs=[job]))
    return location.resolve_job_def("both").execute_in_process(instance=home.instance, raise_on_error=False)


@pytest.fixture
def autologging() -> Iterator[None]:
    """What a team's own Python may switch on: every fit logs to the run that is active."""
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True, disable_for_unsupported_versions=False)
    yield
    mlflow.sklearn.autolog(disable=True)


def test_two_models_in_one_dagster_run_have_a_run_each_and_log_into_their_own(home: Home, autologging: None) -> None:
    result = both(home)
    assert result.success, why(result)
    found = {run.data.tags["release.model"]: run for run in runs_of(home, result.run_id)}
    assert set(found) == {"breast_cancer", "diabetes"}
    assert len(runs_of(home, result.run_id)) == 2
    assert found["breast_cancer"].data.params["estimator__C"] == "0.5"  # logged by MLflow's own hook into fit
    assert found["diabetes"].data.params["estimator__alpha"] == "1.0"
    assert "estimator__alpha" not in found["breast_cancer"].data.params
    assert "roc_auc" in found["breast_cancer"].data.metrics
    assert "rmse" in found["diabetes"].data.metrics


def test_what_is_logged_by_autologging_lands_in_the_run_of_the_release(home: Home, autologging: None) -> None:
    before = len(all_runs(home))
    result = home.release(CANCER)
    assert result.success, why(result)
    (run,) = runs_of(home, result.run_id)
    assert "training_accuracy_score" in run.data.metrics
    assert len(all_runs(home)) == before + 1
    assert mlflow.active_run() is None


def own_asset(home: Home, body) -> dg.ExecuteInProcessResult:
    """Runs a team's own asset that asks for the model's dagster-mlflow resource."""

    @dg.asset(key=["own", "asset"], required_resource_keys={"platform", "mlflow_diabetes"})
    def own(context: dg.AssetExecutionContext) -> None:
        body(context.resources.mlflow_diabetes)

    location = dg.Definitions.merge(
        home.definitions(DIABETES),
        dg.Definitions(assets=[own], jobs=[dg.define_asset_job("own", dg.AssetSelection.assets(own))]),
    )
    return location.resolve_job_def("own").execute_in_process(instance=home.instance, raise_on_error=False)


def test_fluent_logging_in_a_team_s_own_asset_lands_in_the_run_of_its_dagster_run(home: Home) -> None:
    def body(tracked) -> None:
        with tracked() as dagster_mlflow:
            mlflow.log_metric("fluent", 1.0)
            dagster_mlflow.log_params({"through": "dagster-mlflow"})

    result = own_asset(home, body)
    assert result.success, why(result)
    (run,) = runs_of(home, result.run_id)
    assert run.data.metrics == {"fluent": 1.0}
    assert run.data.params == {"through": "dagster-mlflow"}
    assert run.info.experiment_id == home.services.tracking.experiment("diabetes")


def test_no_run_stays_active_when_the_body_fails_or_leaves_runs_open(home: Home) -> None:
    def body(tracked) -> None:
        with tracked():
            mlflow.start_run(nested=True)
            raise RuntimeError("it broke")

    result = own_asset(home, body)
    assert "it broke" in why(result)
    assert mlflow.active_run() is None


def test_the_process_is_left_as_it_was(home: Home) -> None:
    before = Settings().tracking_uri, Settings().artifact_root
    assert home.release(DIABETES).success
    assert (Settings().tracking_uri, Settings().artifact_root) == before


def test_an_asset_that_does_not_ask_for_mlflow_sees_no_run(home: Home, tmp_path: Path) -> None:
    seen = []

    @dg.asset(key=["own", "spy"], deps=[asset_key("diabetes", "trained_model")])
    def spy() -> None:
        seen.append(mlflow.active_run())

    stages = [asset_key("diabetes", stage) for stage in ("raw_data", "features", "trained_model")]
    job = dg.define_asset_job("spied", dg.AssetSelection.assets(spy, *stages))
    location = dg.Definitions.merge(home.definitions(DIABETES), dg.Definitions(assets=[spy], jobs=[job]))
    assert location.resolve_job_def("spied").execute_in_process(instance=home.instance).success
    assert seen == [None]


def test_of_many_processes_that_open_the_run_at_once_all_get_the_same(home: Home) -> None:
    tracking = home.services.tracking
    tracking.experiment("diabetes")
    with ThreadPoolExecutor(4) as pool:
        opened = set(pool.map(lambda _: tracking.open_run("diabetes", "one-dagster-run", {}), range(8)))
    assert len(opened) == 1
    assert [run.info.run_id for run in runs_of(home, "one-dagster-run")] == list(opened)
