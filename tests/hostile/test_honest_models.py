"""What is honest loads: the examples and every kind of estimator that is packaged; each answers its golden rows."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from release_platform.adapters.model_package import load_package
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import TrainingError
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import EstimatorSpec
from release_platform.pipeline.features import build_feature_table, golden_inputs, read_features
from release_platform.pipeline.ingest import ingest, read_raw
from release_platform.pipeline.packaging import write_package
from release_platform.pipeline.training import fit
from serving.golden import check_golden
from tests.integration.homes import example

CLASSIFIERS = {
    "sklearn.calibration.CalibratedClassifierCV": {"method": "isotonic"},
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": {},
    "sklearn.dummy.DummyClassifier": {},
    "sklearn.ensemble.AdaBoostClassifier": {"n_estimators": 3},
    "sklearn.ensemble.BaggingClassifier": {"n_estimators": 3},
    "sklearn.ensemble.ExtraTreesClassifier": {"n_estimators": 3},
    "sklearn.ensemble.GradientBoostingClassifier": {"n_estimators": 3},
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 3},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 3},
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.linear_model.SGDClassifier": {"loss": "log_loss"},
    "sklearn.naive_bayes.GaussianNB": {},
    "sklearn.tree.DecisionTreeClassifier": {},
}
REGRESSORS = {
    "sklearn.ensemble.AdaBoostRegressor": {"n_estimators": 3},
    "sklearn.ensemble.GradientBoostingRegressor": {"n_estimators": 3, "loss": "huber"},
    "sklearn.ensemble.HistGradientBoostingRegressor": {"max_iter": 3, "loss": "poisson"},
    "sklearn.ensemble.RandomForestRegressor": {"n_estimators": 3},
    "sklearn.kernel_ridge.KernelRidge": {},
    "sklearn.linear_model.BayesianRidge": {},
    "sklearn.linear_model.ElasticNet": {},
    "sklearn.linear_model.LinearRegression": {},
    "sklearn.linear_model.PoissonRegressor": {},
    "sklearn.linear_model.Ridge": {},
    "sklearn.svm.LinearSVR": {},
    "sklearn.tree.DecisionTreeRegressor": {},
}
TREES = ("DecisionTree", "ExtraTrees", "GradientBoosting", "HistGradientBoosting", "RandomForest")
REFUSED = ("sklearn.neighbors.KNeighborsRegressor", "sklearn.svm.SVR")
EXAMPLES = {name: (example(name).spec.estimator.type, {}) for name in ("breast_cancer", "diabetes", "digits")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """An example with its features."""

    spec: ModelSpec
    table: pd.DataFrame
    golden: Mapping[str, list[Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    """The three small examples, read from their real sources."""
    store = SnapshotStore(str(tmp_path_factory.mktemp("snapshots")))
    found = {}
    for name in EXAMPLES:
        project = example(name)
        raw = read_raw(store, {"all": ingest(project.spec, base=project.folder, store=store)[None]})
        table = build_feature_table(raw, project.spec)
        found[name] = Data(spec=project.spec, table=table, golden=golden_inputs(raw, table, project.spec))
    return found


def package(folder: Path, data: Data, estimator: EstimatorSpec) -> str:
    """Trains, packages and loads, and returns the name of the engine."""
    spec = replace(data.spec, estimator=estimator)
    features = read_features(data.table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = fit(spec, features.features[~features.held_out], features.target[~features.held_out])
        written = write_package(folder, spec, fitted, features.features.head(50), data.golden)
        for entry in written.manifest.files:
            if entry.path in {"model.skops", "model.onnx"}:
                loaded = load_package(folder, written.manifest, engine=entry.path.removeprefix("model."))
                assert loaded.digest == written.manifest.digest
        return f"{check_golden(load_package(folder, written.manifest))} rows by {written.package.engine_name}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_and_answers_its_golden_rows(tmp_path: Path, data: dict[str, Data], name: str) -> None:
    assert package(tmp_path / "package", data[name], data[name].spec.estimator) == "50 rows by onnx"


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("breast_cancer", estimator) for estimator in CLASSIFIERS] + [("diabetes", estimator) for estimator in REGRESSORS],
)
def test_an_estimator_that_can_be_packaged_loads(
    tmp_path: Path, data: dict[str, Data], name: str, estimator: str
) -> None:
    described = EstimatorSpec(type=estimator, parameters={**CLASSIFIERS, **REGRESSORS}[estimator])
    found = package(tmp_path / "package", data[name], described)
    assert found.startswith("50 rows by ")
    if estimator.rpartition(".")[2].startswith(TREES):
        assert found == "50 rows by onnx"


@pytest.mark.parametrize("estimator", REFUSED)
def test_an_estimator_whose_compiled_code_trusts_its_state_is_not_packaged(
    tmp_path: Path, data: dict[str, Data], estimator: str
) -> None:
    with pytest.raises(TrainingError, match="what serving does not load"):
        package(tmp_path / "package", data["diabetes"], EstimatorSpec(type=estimator))
