"""The engine keeps the event loop free, refuses what it cannot queue, and tells whose fault a failure is."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import numpy as np
import pytest

from release_platform.adapters.trust import Proof
from release_platform.domain.features import ColumnType, FeaturePlan, Input
from release_platform.domain.prediction import Predictions
from serving.engine import Engine
from serving.errors import InvalidInput, NonFinitePrediction, Overloaded, PredictionFailed
from serving.metrics import Metrics
from serving.models import Live, LoadedModel, Origin

PLAN = FeaturePlan(inputs=(Input(name="x", type=ColumnType.NUMBER),), derived=(), features=("x",))
LARGEST = float(np.finfo(np.float32).max)


def loaded_with(predict, *, same_in_company=False):
    package = SimpleNamespace(plan=PLAN, predict=predict, engine_name="fake")
    since = datetime(2026, 1, 1, tzinfo=UTC)
    return LoadedModel(
        model="m",
        epoch=1,
        proof=Proof(signature="", certificate=""),
        version="1",
        digest="d",
        package=package,
        since=since,
        origin=Origin.REGISTRY,
        same_in_company=same_in_company,
    )


@pytest.fixture
def metrics():
    return Metrics(Live())


@pytest.fixture
def engine(metrics):
    return Engine(n_threads=1, max_waiting=1, metrics=metrics)


def failing(columns):
    raise RuntimeError("inside the model")


def test_an_error_of_the_model_is_counted_and_does_not_show_its_text(engine, metrics):
    with pytest.raises(PredictionFailed) as caught:
        engine.compute(loaded_with(failing), {"x": np.array([1.0])})
    assert "RuntimeError" in caught.value.detail
    assert "inside" not in caught.value.detail
    assert b'serving_model_failures_total{kind="prediction-failed",model="m",version="1"} 1.0' in metrics.exposition()


@pytest.mark.parametrize(
    ("value", "error"),
    [(LARGEST, PredictionFailed), (-LARGEST, PredictionFailed), (LARGEST * 1.01, InvalidInput), (np.inf, InvalidInput)],
)
def test_a_failure_at_a_number_beyond_single_precision_is_the_requests_fault(engine, value, error):
    with pytest.raises(error):
        engine.compute(loaded_with(failing), {"x": np.array([1.0, value])})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classifier", [False, True])
def test_an_answer_that_is_not_finite_names_its_row(engine, bad, classifier):
    values = np.array([0.5, bad])
    answer = Predictions(values=np.array(["a", "a"], dtype=object), probabilities=np.stack([values, values], axis=1))
    with pytest.raises(NonFinitePrediction) as caught:
        engine.compute(
            loaded_with(lambda _: answer if classifier else Predictions(values=values)), {"x": np.array([1.0, 2.0])}
        )
    assert caught.value.row == 1


def test_calls_beyond_the_queue_are_refused_and_the_others_answered(engine):
    free = threading.Event()

    async def scenario():
        answers = []

        async def call(number):
            try:
                answers.append(await engine.run(lambda: free.wait(10) and number))
            except Overloaded:
                answers.append("refused")
                free.set()

        async with anyio.create_task_group() as tasks:
            for number in (1, 2, 3):
                tasks.start_soon(call, number)
        return answers

    assert sorted(map(str, anyio.run(scenario))) == ["1", "2", "refused"]
