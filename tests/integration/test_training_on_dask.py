"""Training on a Dask cluster: parts are fitted on its workers, and the model is the same to the last bit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client

from release_platform.domain.errors import Refused, Unavailable
from release_platform.domain.identity import digest_of_model
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import EstimatorSpec, SearchSpec, TrainingEngine, TrainingSpec
from release_platform.pipeline.training import fit
from release_platform.pipeline.training_engine import require_alike, surroundings
from tests.fakes.dask_cluster import running_cluster
from tests.integration.homes import environment_of, example, free_port

ROWS = 400


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder, environment_of(folder / "home")) as address:
        yield address


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    names = example("breast_cancer").spec.plan.features
    features = pd.DataFrame({name: generator.normal(size=ROWS) for name in names})
    target = np.where(features[names[0]] + generator.normal(size=ROWS) > 0, "malignant", "benign").astype(object)
    return features, target


def spec_of(estimator: str, search: SearchSpec | None = None, **parameters: Any) -> ModelSpec:
    described = EstimatorSpec(type=f"sklearn.{estimator}", parameters=parameters)
    return replace(example("breast_cancer").spec, estimator=described, search=search)


def on(spec: ModelSpec, scheduler: str) -> ModelSpec:
    return replace(spec, training=TrainingSpec(engine=TrainingEngine.DASK, scheduler=scheduler))


def tasks_of(scheduler: str) -> list[int]:
    """Returns how many tasks each worker has computed so far."""
    with Client(scheduler, set_as_default=False) as client:
        return sorted(client.run(lambda dask_worker: dask_worker.state.executed_count).values())


SEARCHED = SearchSpec(parameters={"C": (0.01, 0.1, 1.0, 10.0)}, n_candidates=4, folds=3)
DEEP = SearchSpec(parameters={"max_depth": (2, 4), "n_estimators": (5, 10)}, n_candidates=3, folds=2)
SPECS = {
    "a search": spec_of("linear_model.LogisticRegression", SEARCHED),
    "a forest": spec_of("ensemble.RandomForestClassifier", n_estimators=20),
    "a search over forests": spec_of("ensemble.RandomForestClassifier", DEEP),
    "bagging": spec_of("ensemble.BaggingClassifier", n_estimators=8),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_model_is_the_one_of_a_single_machine(
    scheduler: str, data: tuple[pd.DataFrame, np.ndarray[Any, Any]], name: str
) -> None:
    spec = SPECS[name]
    before = tasks_of(scheduler)
    here, there = fit(spec, *data), fit(on(spec, scheduler), *data)
    assert digest_of_model(there.pipeline) == digest_of_model(here.pipeline)
    assert there.parameters == here.parameters
    assert [one["score"] for one in there.candidates] == [one["score"] for one in here.candidates]
    assert all(now > then for now, then in zip(tasks_of(scheduler), before, strict=True))  # both workers took part
    assert len(before) == 2


def test_a_worker_that_computes_otherwise_is_refused_by_name() -> None:
    here = {**surroundings(), "BLAS threads": "8"}  # this process fits with one thread whatever it has
    alike = {**here, "BLAS threads": "1"}
    require_alike(here, {"tcp://a:1": alike})
    for name in ("numpy", "BLAS", "SIMD", "BLAS threads"):
        with pytest.raises(Refused, match=rf"tcp://b:2 has {name} other, and here it is"):
            require_alike(here, {"tcp://a:1": alike, "tcp://b:2": {**alike, name: "other"}})


def test_a_worker_with_more_threads_of_blas_is_refused_before_anything_is_fitted(
    tmp_path: Path, data: tuple[pd.DataFrame, np.ndarray[Any, Any]]
) -> None:
    environment = environment_of(tmp_path / "home", OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    with running_cluster(tmp_path / "cluster", environment, n_workers=1) as address:
        with pytest.raises(Refused, match="has BLAS threads 2, and here it is 1"):
            fit(on(SPECS["a search"], address), *data)
        assert tasks_of(address) == [0]


def test_a_scheduler_that_is_not_there_is_named(data: tuple[pd.DataFrame, np.ndarray[Any, Any]]) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"{address} does not answer"):
        fit(on(SPECS["a search"], address), *data)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"engine": TrainingEngine.DASK}, "needs a scheduler like tcp://host:8786"),
        ({"engine": TrainingEngine.DASK, "scheduler": "host:8786"}, "not 'host:8786'"),
        ({"scheduler": "tcp://host:8786"}, "takes no scheduler"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TrainingSpec(**given)
