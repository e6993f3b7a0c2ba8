"""The models that are served: trained, registered and promoted by the platform, then written as the peers want them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import yaml
from sklearn.pipeline import Pipeline

from benchmarks.load.forms import Table
from benchmarks.load.process import run
from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.skops_archive import load_skops
from release_platform.domain.features import as_column
from release_platform.examples.breast_cancer.source import load
from release_platform.services import Services
from release_platform.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "release_platform" / "examples" / "breast_cancer" / "defs.yaml"
ESTIMATORS: dict[str, dict[str, Any]] = {
    "boosted": {
        "type": "sklearn.ensemble.HistGradientBoostingClassifier",
        "parameters": {"max_iter": 100, "early_stopping": False},
        "preprocessing": {"numeric": "pass"},
    },
    "scaled": {
        "type": "sklearn.linear_model.LogisticRegression",
        "parameters": {"C": 0.5, "max_iter": 1000},
        "preprocessing": {"numeric": "standardize"},
    },
}
SHADOWS: dict[str, dict[str, Any]] = {
    "boosted": ESTIMATORS["boosted"] | {"parameters": {"max_iter": 90, "early_stopping": False}},
    "scaled": ESTIMATORS["scaled"] | {"parameters": {"C": 0.4, "max_iter": 1000}},
}
"""The version that is a shadow beside each of them: as heavy as it, but another."""
N_SINGLE = 256
N_MANY = 1000
N_BODIES = 8


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model in Production, and the rows that it is asked.

    Attributes:
        name: The model's name.
        folder: Its files for the peers: `package/` (the registered version, which MLflow can load) and `model.joblib`.
        package: The version, on the scikit-learn engine.
        pipeline: The fitted pipeline, which takes arrays.
    """

    name: str
    folder: Path
    package: ModelPackage
    pipeline: Any

    @property
    def columns(self) -> list[str]:
        """The names of the inputs."""
        return [column.name for column in self.package.plan.inputs]

    @cached_property
    def golden(self) -> Table:
        """The golden rows."""
        inputs = self.package.golden["inputs"]
        return np.column_stack([np.array(inputs[name], dtype=np.float64) for name in self.columns])

    @cached_property
    def data(self) -> Table:
        """The rows of the data set."""
        found: Table = load()[self.columns].to_numpy(dtype=np.float64)
        return found

    def different_rows(self, n_rows: int, seed: int) -> Table:
        """Returns rows like those of the data set, no two of them equal."""
        rng = np.random.default_rng(seed)
        rows = self.data[rng.integers(len(self.data), size=n_rows)]
        return rows * (1 + 0.01 * rng.standard_normal(rows.shape))

    @cached_property
    def beside_thresholds(self) -> Table:
        """Rows at, just above and just below the thresholds of the trees; for a model without trees, different rows."""
        splits = thresholds(self.pipeline[-1])
        if not splits:
            return self.different_rows(N_MANY, seed=7)
        rng = np.random.default_rng(7)
        chosen = [splits[i] for i in rng.integers(len(splits), size=N_MANY)]
        rows = self.data[rng.integers(len(self.data), size=N_MANY)]
        for number, (row, (feature, threshold)) in enumerate(zip(rows, chosen, strict=True)):
            towards = (np.inf, threshold, -np.inf)[number % 3]
            row[feature] = np.nextafter(threshold, towards)
        return rows

    def probabilities(self, rows: Table) -> Table:
        """Returns what the registered version says of rows, on the scikit-learn engine."""
        columns = {c.name: as_column(c, rows[:, i].tolist()) for i, c in enumerate(self.package.plan.inputs)}
        found = self.package.predict(columns).probabilities
        assert found is not None
        return found


def thresholds(estimator: Any) -> list[tuple[int, float]]:
    """Returns feature number and threshold of every split of a histogram gradient boosting model; none for others."""
    stages = getattr(estimator, "_predictors", [])
    nodes = [node for stage in stages for tree in stage for node in tree.nodes if not node["is_leaf"]]
    return [(int(node["feature_idx"]), float(node["num_threshold"])) for node in nodes]


def without_names(pipeline: Any) -> Pipeline:
    """Returns the same fitted steps as a pipeline that takes arrays: columns in order instead of by name.

    Picking columns by name needs a data frame for each request, which would cost the peers milliseconds.
    """
    (_, preparing, _), *others = pipeline[0].transformers_
    assert not others or [other[1] for other in others] == ["drop"]
    steps = preparing.steps if isinstance(preparing, Pipeline) else []
    for _, step in steps:
        vars(step).pop("feature_names_in_", None)
    return Pipeline([*steps, ("estimator", pipeline[-1])])


def write_project(models: Path, name: str, estimator: Mapping[str, Any]) -> None:
    """Writes the `defs.yaml` of a model: the example's columns with another estimator."""
    example = yaml.safe_load(EXAMPLE.read_text())
    place = models / name
    place.mkdir(parents=True, exist_ok=True)
    for package in (models, place):
        (package / "__init__.py").touch()
    gates = [{"name": "floor", "metric": "roc_auc", "minimum": 0.95}]
    attributes = example["attributes"] | {"name": name, "estimator": dict(estimator), "gates": gates}
    (place / "defs.yaml").write_text(yaml.safe_dump({"type": example["type"], "attributes": attributes}))


def release(home: Path, names: Sequence[str]) -> None:
    """Trains, registers and promotes these models in a home, as an operator would; those in Production stay."""
    for name, estimator in ESTIMATORS.items():
        write_project(projects(home), name, estimator)
    services = Services(Settings(home=home))
    for name in names:
        if home.exists() and services.store.head(name).production is not None:
            continue
        print(f"  release run and promote {name} ...", flush=True)
        operate(home, "run", name)
        operate(home, "promote", name, "--reason", "to be measured")


def shadow(home: Path, name: str) -> str:
    """Returns the name of a model that serves what another serves, and has a shadow that is asked everything.

    It is released when there is none. Its rollout stays in the shadow stage: nothing carries it on here.
    """
    shadowed = f"{name}_shadowed"
    services = Services(Settings(home=home))
    for estimator, strategy in ((ESTIMATORS[name], "all_at_once"), (SHADOWS[name], "shadow")):
        write_project(projects(home), shadowed, estimator)
        head = services.store.head(shadowed)
        if (head.shadow if strategy == "shadow" else head.production) is None:
            print(f"  release run and promote {shadowed} --strategy {strategy} ...", flush=True)
            operate(home, "run", shadowed)
            operate(home, "promote", shadowed, "--reason", "to be measured", "--strategy", strategy)
    beside = services.store.head(shadowed).shadow
    if beside is None or beside.weight != 1.0:
        sys.exit(f"{shadowed}: no version is mirrored at share 1.0 in {home}; give another --home")
    return shadowed


def operate(home: Path, *words: str) -> None:
    """Runs a command of `release` on the models of a home."""
    environment = {
        "RELEASE_HOME": str(home),
        "RELEASE_MODELS": str(projects(home)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": python_path(),
    }
    run([sys.executable, "-m", "release_platform", *words], environment, ROOT)


def projects(home: Path) -> Path:
    """Returns where the projects of the models of a home are written."""
    return home.parent / "models"


def python_path() -> str:
    """Returns the search path with which this clone's code is found first."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def fetch(home: Path, name: str, folder: Path) -> Served:
    """Returns the version of a model that is in Production, its files written into a new folder."""
    services = Services(Settings(home=home))
    version = services.store.head(name).production
    assert version is not None
    package = folder / "package"
    package.mkdir(parents=True)
    record = services.registry.fetch(name, version, package)
    pipeline = without_names(load_skops((package / "model.skops").read_bytes()))
    joblib.dump(pipeline, folder / "model.joblib")
    loaded = load_package(package, record.manifest, engine="skops")
    return Served(name=name, folder=folder, package=loaded, pipeline=pipeline)
