"""One row through memory that is bound to a session: the same bits as without, each answer its own, from any thread."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from release_platform.adapters.bound_row import BoundRow
from release_platform.adapters.model_package import MATRIX
from release_platform.domain.features import ColumnType
from release_platform.pipeline.onnx_graph import to_onnx
from tests.unit.test_onnx_trees import NAMES, Numbers, engine, rows, target

SCALE = ColumnTransformer([("scale", StandardScaler(), list(NAMES))])
MODELS = {
    "scaled": (make_pipeline(SCALE, LogisticRegression()), 2),
    "several classes": (make_pipeline(SCALE, LogisticRegression()), 4),
    "boosted": (HistGradientBoostingClassifier(max_iter=20, random_state=0), 2),
    "boosted regression": (HistGradientBoostingRegressor(max_iter=20, random_state=0), 0),
    "line": (make_pipeline(SCALE, LinearRegression()), 0),
}


def session_of(model: Any, n_classes: int) -> tuple[ort.InferenceSession, Numbers]:
    frame = rows(0, 300, missing=False)
    data = to_onnx(model.fit(frame, target(frame, n_classes, 0)), dict.fromkeys(NAMES, ColumnType.NUMBER))
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]), frame.to_numpy()


def unbound(session: ort.InferenceSession, matrix: Numbers) -> list[Numbers]:
    wanted = session.get_outputs()[-1].name
    return [session.run([wanted], {MATRIX: row})[0] for row in matrix[:, np.newaxis]]


def bound(session: ort.InferenceSession) -> BoundRow:
    return BoundRow(session, MATRIX, session.get_outputs()[-1].name)


@pytest.mark.parametrize(("model", "n_classes"), MODELS.values(), ids=MODELS)
def test_each_row_has_the_bits_that_it_has_without(model: Any, n_classes: int) -> None:
    session, matrix = session_of(model, n_classes)
    one = bound(session)
    found = [one.through(row) for row in matrix[:, np.newaxis]]  # kept: none may change when the next one comes
    for answer, wanted in zip(found, unbound(session, matrix), strict=True):
        assert answer.dtype == wanted.dtype
        assert np.array_equal(answer, wanted)
    assert len({answer.tobytes() for answer in found}) > 10


@pytest.mark.parametrize(("model", "n_classes"), MODELS.values(), ids=MODELS)
def test_the_engine_answers_a_row_alone_in_the_shape_that_it_has_among_others(model: Any, n_classes: int) -> None:
    frame = rows(0, 300, missing=False)
    served = engine(model.fit(frame, target(frame, n_classes, 0)), frame)
    together = served.predict_matrix(frame.to_numpy())
    alone = [served.predict_matrix(row) for row in frame.to_numpy()[:, np.newaxis]]
    assert {one.shape for one in alone} == {together[:1].shape}
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-13, atol=1e-13)


def test_rows_of_many_threads_are_not_mixed_up() -> None:
    session, matrix = session_of(*MODELS["scaled"])
    one, n_threads = bound(session), 8
    wanted = unbound(session, matrix)
    together = Barrier(n_threads)

    def ask(first: int) -> list[int]:
        together.wait()
        places = [(first + step) % len(matrix) for step in range(3_000)]
        return [place for place in places if not np.array_equal(one.through(matrix[[place]]), wanted[place])]

    with ThreadPoolExecutor(n_threads) as pool:
        assert list(pool.map(ask, range(0, 80, 10))) == [[]] * n_threads


def test_a_row_that_fails_leaves_the_memory_to_the_next_one() -> None:
    session, matrix = session_of(*MODELS["scaled"])
    one = bound(session)
    with pytest.raises(Exception, match="Got: 2 Expected: "):
        one.through(matrix[:1, :2])
    assert np.array_equal(one.through(matrix[:1]), unbound(session, matrix[:1])[0])
    with pytest.raises(ValueError, match="could not broadcast"):
        one.through(matrix[:1, :2])
    assert np.array_equal(one.through(matrix[1:2]), unbound(session, matrix[1:2])[0])
