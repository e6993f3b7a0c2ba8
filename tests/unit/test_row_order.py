"""Rows go through trees in an order of their own, which no answer depends on."""

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from release_platform.adapters.model_package import MATRIX
from release_platform.adapters.row_order import FEWEST_ROWS, row_order
from release_platform.domain.features import ColumnType
from release_platform.pipeline.onnx_graph import to_onnx
from tests.unit.test_onnx_trees import NAMES, Numbers, asked, engine, expected, rows, target

LARGE = {
    "boosted": (HistGradientBoostingClassifier(random_state=0), 2, True),
    "boosted regression": (HistGradientBoostingRegressor(random_state=0), 0, True),
    "forest": (RandomForestClassifier(30, random_state=0), 2, True),
    "single precision": (GradientBoostingRegressor(n_estimators=100, random_state=0), 0, False),
}
BOOSTED = HistGradientBoostingClassifier(random_state=0)
VOTING = make_pipeline(
    FunctionTransformer(),
    VotingClassifier([("trees", BOOSTED), ("line", LogisticRegression())], voting="soft", flatten_transform=False),
)


def graph_of(model: Any) -> bytes:
    frame = rows(0, 600, missing=False)
    return to_onnx(model.fit(frame, target(frame, 2, 0)), dict.fromkeys(NAMES, ColumnType.NUMBER))


@pytest.mark.parametrize(("model", "n_classes", "missing"), LARGE.values(), ids=LARGE)
def test_each_row_has_the_answer_that_it_has_alone(model: Any, n_classes: int, missing: bool) -> None:
    frame = rows(1, 3 * FEWEST_ROWS, missing=missing)
    served = engine(model.fit(frame, target(frame, n_classes, 1)), frame)
    assert served._order is not None
    together = asked(served, frame)
    alone = np.concatenate([asked(served, frame.iloc[[place]]) for place in range(len(frame))])
    assert np.array_equal(together, alone)
    np.testing.assert_allclose(together, expected(model, frame), rtol=1e-14, atol=1e-14)


def test_rows_that_answer_the_first_splits_alike_follow_one_another() -> None:
    order = row_order(graph_of(BOOSTED), MATRIX)
    assert order is not None
    matrix = rows(2, 5_000, missing=True).to_numpy()
    places = order.places(matrix)
    assert np.array_equal(np.sort(places), np.arange(len(matrix)))
    answers = matrix[places][:, order.features] <= order.thresholds
    n_kinds = len(np.unique(answers, axis=0))
    changes = np.count_nonzero(answers[1:] != answers[:-1], axis=1)
    assert np.count_nonzero(changes) == n_kinds - 1
    unsorted = matrix[:, order.features] <= order.thresholds
    assert changes.sum() < 0.2 * np.count_nonzero(unsorted[1:] != unsorted[:-1])


def test_the_splits_of_most_rows_are_near_the_roots() -> None:
    order = row_order(graph_of(BOOSTED), MATRIX)
    assert order is not None
    trees = [predictor.nodes for stage in BOOSTED._predictors for predictor in stage]
    roots = {(int(nodes["feature_idx"][0]), float(nodes["num_threshold"][0])) for nodes in trees}
    assert set(list(zip(order.features.tolist(), order.thresholds.tolist(), strict=True))[:4]) <= roots


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(HistGradientBoostingClassifier(max_iter=5), id="few splits"),
        pytest.param(make_pipeline(StandardScaler(), BOOSTED), id="scaled rows"),
        pytest.param(make_pipeline(StandardScaler(), LogisticRegression()), id="no trees"),
        pytest.param(VOTING, id="trees and BLAS"),
        pytest.param(
            HistGradientBoostingClassifier(max_iter=400, max_leaf_nodes=3, max_features=0.1, max_bins=2),
            id="few differ",
        ),
    ],
)
def test_where_an_order_does_not_help_or_could_show_there_is_none(model: Any) -> None:
    assert row_order(graph_of(model), MATRIX) is None


def test_the_function_of_three_classes_depends_on_the_place_of_a_row() -> None:
    frame = rows(0, 600, missing=False)
    model = HistGradientBoostingClassifier(random_state=0).fit(frame, target(frame, 3, 0))
    assert row_order(to_onnx(model, dict.fromkeys(NAMES, ColumnType.NUMBER)), MATRIX) is None


def test_few_rows_keep_their_order() -> None:
    order = row_order(graph_of(BOOSTED), MATRIX)
    assert order is not None
    given: list[Numbers] = []

    def compute(matrix: Numbers) -> Numbers:
        given.append(matrix)
        return matrix[:, 0]

    matrix = rows(1, FEWEST_ROWS, missing=False).to_numpy()
    for some in (matrix[:-1], matrix):
        assert np.array_equal(order.through(some, compute), some[:, 0])
    assert np.array_equal(given[0], matrix[:-1])
    assert not np.array_equal(given[1], matrix)
