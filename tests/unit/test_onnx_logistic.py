"""Logistic regression in ONNX answers as scikit-learn's, to the last bits, in few steps."""

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnxruntime import InferenceSession
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from release_platform.adapters.model_package import MATRIX
from release_platform.pipeline.onnx_graph import to_onnx
from tests.unit.test_onnx_engine import load, scaled, types_of

GENERATOR = np.random.default_rng(3)
FRAME = pd.DataFrame(GENERATOR.normal(size=(400, 4)) * [1, 10, 1e3, 1e-3], columns=list("abcd"))
SCORE = FRAME["a"] + FRAME["b"] / 10 + GENERATOR.normal(size=len(FRAME))
CLASSES = {
    "two numbers": (SCORE > 0).astype(int),
    "two names": pd.Series(np.where(SCORE > 0, "yes", "no"), dtype=object),
    "true or false": SCORE > 0,
    "three": pd.Series(np.digitize(SCORE, [-1, 1])),
    "five": pd.Series(np.digitize(SCORE, [-2, -0.5, 0.5, 2]).astype(str), dtype=object),
}
MODELS: dict[str, Any] = {
    "plain": scaled(list("abcd")),
    "no intercept": Pipeline([*scaled(list("abcd")).steps[:1], ("estimator", LogisticRegression(fit_intercept=False))]),
    "liblinear": Pipeline([*scaled(list("abcd")).steps[:1], ("estimator", LogisticRegression(solver="liblinear"))]),
}


TAKEN = [(model, of) for model in MODELS for of in CLASSES if model != "liblinear" or CLASSES[of].nunique() == 2]


@pytest.mark.parametrize(("model", "classes"), TAKEN)
def test_probabilities_are_those_of_scikit_learn(model: str, classes: str) -> None:
    fitted = MODELS[model].fit(FRAME, CLASSES[classes])
    served = load(to_onnx(fitted, types_of(FRAME)), types_of(FRAME))
    found = served.predict_matrix(FRAME.to_numpy())
    np.testing.assert_allclose(found, fitted.predict_proba(FRAME), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("classes", ["two numbers", "three"])
def test_far_away_rows_have_finite_probabilities(classes: str) -> None:
    fitted = MODELS["plain"].fit(FRAME, CLASSES[classes])
    served = load(to_onnx(fitted, types_of(FRAME)), types_of(FRAME))
    far = np.concatenate([FRAME.to_numpy() * size for size in (1e3, -1e3, 1e6, -1e6)])
    found = served.predict_matrix(far)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, fitted.predict_proba(pd.DataFrame(far, columns=FRAME.columns)), atol=1e-12)


def test_a_row_of_two_classes_has_the_same_bits_in_any_company() -> None:
    fitted = MODELS["plain"].fit(FRAME, CLASSES["two numbers"])
    served = load(to_onnx(fitted, types_of(FRAME)), types_of(FRAME))
    matrix = FRAME.to_numpy()
    alone = np.concatenate([served.predict_matrix(row) for row in matrix[:, np.newaxis]])
    for size in (2, 3, 5, 16, 64):
        parts = [served.predict_matrix(matrix[begin : begin + size]) for begin in range(0, len(matrix), size)]
        assert np.array_equal(np.concatenate(parts), alone)


@pytest.mark.parametrize("classes", ["two names", "three"])
@pytest.mark.parametrize(
    "around",
    [
        CalibratedClassifierCV(LogisticRegression(), cv=3),
        BaggingClassifier(LogisticRegression(), 5, random_state=0),
        StackingClassifier([("one", LogisticRegression()), ("other", LogisticRegression(C=0.1))], LogisticRegression()),
    ],
    ids=["calibrated", "bagged", "stacked"],
)
def test_models_around_it_answer_as_those_of_scikit_learn(around: Any, classes: str) -> None:
    fitted = Pipeline([*scaled(list("abcd")).steps[:1], ("estimator", around)]).fit(FRAME, CLASSES[classes])
    found = onnx_answers(to_onnx(fitted, types_of(FRAME)))
    np.testing.assert_allclose(found, fitted.predict_proba(FRAME), rtol=0, atol=1e-14)


def onnx_answers(data: bytes) -> Any:
    """Returns the probabilities of all rows, also of a graph whose operators are not served."""
    session = InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run([session.get_outputs()[-1].name], {MATRIX: FRAME.to_numpy()})[0]


def test_two_classes_take_three_steps_behind_the_scaler() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, CLASSES["two names"])
    steps = [node.op_type for node in onnx.load_from_string(to_onnx(fitted, types_of(FRAME))).graph.node]
    assert steps[-4:] == ["Div", "MatMul", "Add", "Sigmoid"]
