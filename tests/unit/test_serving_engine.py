"""The engine keeps the event loop free, refuses what it cannot queue, and tells whose fault a failure is."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import numpy as np
import pytest

from release_platform.adapters.trust import Proof
from release_platform.domain.features import ColumnType, Derived, FeaturePlan, Input, Operation
from release_platform.domain.prediction import Predictions
from serving.engine import Engine
from serving.errors import InvalidInput, NonFinitePrediction, Overloaded, PredictionFailed
from serving.metrics import Metrics
from serving.models import Live, LoadedModel, Origin

PLAN = FeaturePlan(inputs=(Input(name="x", type=ColumnType.NUMBER),), derived=(), features=("x",))
LARGEST = float(np.finfo(np.float32).max)


def loaded_with(predict, *, same_in_company=False, plan=PLAN):
    package = SimpleNamespace(plan=plan, predict=predict, engine_name="fake")
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


DERIVED = FeaturePlan(
    inputs=tuple(Input(name=name, type=ColumnType.NUMBER, nullable=True) for name in "abc"),
    derived=(
        Derived(name="sum", operation=Operation.ADD, of=("a", "b")),
        Derived(name="product", operation=Operation.MULTIPLY, of=("a", "b")),
        Derived(name="ratio", operation=Operation.DIVIDE, of=("sum", "product")),
    ),
    features=("ratio", "c"),
)


@pytest.mark.parametrize(
    ("a", "b", "c", "field"),
    [
        (1e308, 1.7e308, 1.0, "b"),  # infinity divided by infinity is no number
        (1e200, np.nan, LARGEST * 1.01, "c"),
        (1e200, 1.0, 1.0, None),  # the feature is 1
        (0.0, 0.0, 1.0, None),  # nor is 0 divided by 0, but no number is large
        (np.nan, np.nan, np.nan, None),
    ],
)
def test_of_what_is_derived_the_largest_input_is_to_blame(engine, a, b, c, field):
    columns = {"a": np.array([1.0, a]), "b": np.array([1.0, b]), "c": np.array([1.0, c])}
    with pytest.raises(InvalidInput if field else PredictionFailed) as caught:
        engine.compute(loaded_with(failing, plan=DERIVED), columns)
    assert (caught.value.field, caught.value.row) == ((field, 1) if field else (None, None))


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
