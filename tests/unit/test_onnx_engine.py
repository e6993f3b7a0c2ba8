"""The ONNX engine takes the features that are numbers as one matrix, or one by one as graphs had them before."""

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from release_platform.adapters.model_package import MATRIX, OnnxEngine
from release_platform.domain.features import MISSING, ColumnType, FeaturePlan, Input
from release_platform.pipeline.onnx_graph import to_onnx
from tests.hostile.workshop import FEATURES, graph

GENERATOR = np.random.default_rng(1)
N_ROWS = 300
NUMBERS = pd.DataFrame(GENERATOR.normal(size=(N_ROWS, 3)), columns=["c", "a", "b"])
LABELS = NUMBERS["a"] + GENERATOR.normal(size=N_ROWS) > 0
KINDS = np.array(["often", "often too", "seldom", MISSING], dtype=object)
TEXT = KINDS[GENERATOR.choice(4, size=N_ROWS, p=[0.6, 0.3, 0.01, 0.09])]


def plan(types: dict[str, ColumnType]) -> FeaturePlan:
    inputs = tuple(Input(name=name, type=kind, nullable=True) for name, kind in types.items())
    return FeaturePlan(inputs=inputs, derived=(), features=tuple(types))


def load(data: bytes, types: dict[str, ColumnType]) -> OnnxEngine:
    return OnnxEngine(data, {"task": "binary", "plan": plan(types).to_json()})


def types_of(frame: pd.DataFrame) -> dict[str, ColumnType]:
    kinds = {"O": ColumnType.CATEGORY, "f": ColumnType.NUMBER}
    return {str(name): kinds[dtype.kind] for name, dtype in frame.dtypes.items()}


def scaled(columns: list[str], *more: tuple[str, object, list[str]]) -> Pipeline:
    steps = ColumnTransformer([("scale", StandardScaler(), columns), *more])
    return Pipeline([("columns", steps), ("estimator", LogisticRegression())])


def columns_of(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(name): frame[name].to_numpy() for name in frame}


def inputs_of(data: bytes) -> list[str]:
    return [value.name for value in onnx.load_from_string(data).graph.input]


@pytest.mark.parametrize("order", [["c", "a", "b"], ["a", "b", "c"], ["b"]])
def test_numbers_are_one_matrix_in_the_order_of_the_plan(order: list[str]) -> None:
    model = scaled(order).fit(NUMBERS, LABELS)
    data = to_onnx(model, types_of(NUMBERS))
    served = load(data, types_of(NUMBERS))
    assert inputs_of(data) == [MATRIX]
    wanted = model.predict_proba(NUMBERS)
    for found in (served.predict(columns_of(NUMBERS)), served.predict_matrix(NUMBERS.to_numpy())):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_a_graph_with_an_input_for_each_feature_answers_as_before() -> None:
    types = dict.fromkeys(FEATURES, ColumnType.NUMBER)
    served = load(graph().SerializeToString(), types)
    rows = GENERATOR.normal(size=(7, 3))
    scores = rows @ np.array([[0.1, -0.1], [0.2, -0.2], [-0.001, 0.001]])
    wanted = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    by_column = served.predict({name: rows[:, place] for place, name in enumerate(FEATURES)})
    np.testing.assert_allclose(by_column, wanted, rtol=0, atol=1e-15)
    assert np.array_equal(served.predict_matrix(rows), by_column)


@pytest.mark.parametrize("unknown", ["ignore", "infrequent_if_exist"])
def test_text_stays_an_input_of_its_own_and_an_unknown_one_is_encoded_as_scikit_learn_does(unknown: str) -> None:
    frame = NUMBERS.assign(kind=TEXT, other=np.roll(TEXT, 1))
    one_hot = OneHotEncoder(handle_unknown=unknown, min_frequency=20, sparse_output=False)
    model = scaled(["c", "a", "b"], ("text", one_hot, ["kind", "other"])).fit(frame, LABELS)
    data = to_onnx(model, types_of(frame))
    served = load(data, types_of(frame))
    assert inputs_of(data) == [MATRIX, "kind", "other"]
    asked = pd.concat([frame, frame.head(9).assign(kind="never seen"), frame.head(9).assign(other="")])
    np.testing.assert_allclose(served.predict(columns_of(asked)), model.predict_proba(asked), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="does not hold the plan's features"):
        served.predict_matrix(NUMBERS.to_numpy())


def test_a_one_hot_encoding_that_refuses_the_unknown_is_not_converted() -> None:
    frame = NUMBERS.assign(kind=TEXT)
    model = scaled(["a"], ("text", OneHotEncoder(sparse_output=False), ["kind"])).fit(frame, LABELS)
    with pytest.raises(ValueError, match="refuses an unknown category"):
        to_onnx(model, types_of(frame))


def test_a_feature_that_is_named_as_the_matrix_is_keeps_its_column() -> None:
    frame = NUMBERS.rename(columns={"a": MATRIX})
    model = scaled(["c", MATRIX, "b"]).fit(frame, LABELS)
    served = load(to_onnx(model, types_of(frame)), types_of(frame))
    wanted = model.predict_proba(frame)
    for found in (served.predict(columns_of(frame)), served.predict_matrix(frame.to_numpy())):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (3,)])
def test_a_matrix_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    served = load(to_onnx(scaled(["a"]).fit(NUMBERS, LABELS), types_of(NUMBERS)), types_of(NUMBERS))
    with pytest.raises(ValueError, match="does not hold the plan's features"):
        served.predict_matrix(np.zeros(shape))


@pytest.mark.parametrize("names", [["c", "a"], ["c", "a", "b", "d"]])
def test_a_graph_whose_matrix_is_not_of_the_plan_is_refused(names: list[str]) -> None:
    data = to_onnx(scaled(["c", "a", "b"]).fit(NUMBERS, LABELS), types_of(NUMBERS))
    with pytest.raises(ValueError, match="not the features of the plan"):
        load(data, dict.fromkeys(names, ColumnType.NUMBER))
