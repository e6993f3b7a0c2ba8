"""The weighted forms are scikit-learn's metrics with `sample_weight`; what is undefined is None, quietly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from release_platform.domain.errors import DataError
from release_platform.domain.metrics import METRICS, Task, metrics_for
from release_platform.domain.prediction import Predictions
from release_platform.pipeline.measures import MEASURES, N_BINS, Rows, encode, is_defined, point, replicates

LABELS = ("no", "yes")
BINARY = [metric.name for metric in metrics_for(Task.BINARY)]
MULTICLASS = [metric.name for metric in metrics_for(Task.MULTICLASS)]
REGRESSION = [metric.name for metric in metrics_for(Task.REGRESSION)]


def binary(truth: list[int], scores: list[float]) -> Rows:
    given = np.array(scores, dtype=np.float64).reshape(-1)
    labels = np.array(LABELS, dtype=object)
    predictions = Predictions(
        values=labels[(given > 0.5).astype(int)], probabilities=np.column_stack([1 - given, given])
    )
    return encode(Task.BINARY, labels[np.array(truth, dtype=int)], predictions, LABELS, 1)


def regression(truth: list[float], predicted: list[float]) -> Rows:
    return encode(Task.REGRESSION, np.array(truth, dtype=np.float64), Predictions(values=np.array(predicted)), (), None)


def random_binary(rng: np.random.Generator, n_rows: int, n_scores: int) -> Rows:
    truth = rng.integers(0, 2, n_rows)
    truth[:2] = 0, 1
    return binary(truth.tolist(), (rng.integers(0, n_scores, n_rows) / (n_scores - 1)).tolist())


def random_multiclass(rng: np.random.Generator, n_rows: int, n_classes: int) -> Rows:
    probabilities = rng.dirichlet(np.ones(n_classes), n_rows)
    classes = tuple(f"class {i}" for i in range(n_classes))
    labels = np.array(classes, dtype=object)
    predictions = Predictions(values=labels[probabilities.argmax(axis=1)], probabilities=probabilities)
    return encode(Task.MULTICLASS, labels[rng.integers(0, n_classes, n_rows)], predictions, classes, None)


def random_regression(rng: np.random.Generator, n_rows: int) -> Rows:
    truth = rng.normal(1e4, 3.0, n_rows)
    return regression(truth.tolist(), (truth + rng.normal(0, 1.0, n_rows)).tolist())


def random_weights(rng: np.random.Generator, n_rows: int) -> np.ndarray[Any, Any]:
    weights = rng.poisson(1, (20, n_rows))
    weights[:, :2] = 1  # keep both classes, where there are two
    return weights


def naive_calibration_error(rows: Rows, sample_weight: np.ndarray[Any, Any]) -> float:
    total, error = sample_weight.sum(), 0.0
    for number in range(N_BINS):
        last = number == N_BINS - 1
        scaled = rows.confidence * N_BINS
        inside = (scaled >= number) & ((scaled < number + 1) | last)
        weight = sample_weight[inside].sum()
        if weight:
            hit = np.average(rows.hits[inside], weights=sample_weight[inside])
            error += weight / total * abs(np.average(rows.confidence[inside], weights=sample_weight[inside]) - hit)
    return error


REFERENCE: dict[str, Callable[[Rows, Any], float]] = {
    "roc_auc": lambda r, w: sk.roc_auc_score(r.is_positive, r.scores, sample_weight=w),
    "average_precision": lambda r, w: sk.average_precision_score(r.is_positive, r.scores, sample_weight=w),
    "log_loss": lambda r, w: sk.log_loss(
        r.truth,
        r.probabilities,
        sample_weight=w,
        labels=range(r.probabilities.shape[1]),  # type: ignore[union-attr]
    ),
    "brier": lambda r, w: sk.brier_score_loss(r.is_positive, r.scores, sample_weight=w),
    "accuracy": lambda r, w: sk.accuracy_score(r.truth, r.predicted, sample_weight=w),
    "precision": lambda r, w: sk.precision_score(r.is_positive, r.says_positive, sample_weight=w, zero_division=np.nan),
    "recall": lambda r, w: sk.recall_score(r.is_positive, r.says_positive, sample_weight=w, zero_division=np.nan),
    "f1": lambda r, w: sk.f1_score(r.is_positive, r.says_positive, sample_weight=w, zero_division=np.nan),
    "macro_f1": lambda r, w: sk.f1_score(r.truth, r.predicted, sample_weight=w, average="macro", zero_division=np.nan),
    "expected_calibration_error": naive_calibration_error,
    "mae": lambda r, w: sk.mean_absolute_error(r.truth, r.predicted, sample_weight=w),
    "rmse": lambda r, w: sk.root_mean_squared_error(r.truth, r.predicted, sample_weight=w),
    "r2": lambda r, w: sk.r2_score(r.truth, r.predicted, sample_weight=w),
}


def check_against_reference(metric: str, rows: Rows, weights: np.ndarray[Any, Any]) -> None:
    expected = [REFERENCE[metric](rows, row) for row in weights]
    for dtype in (np.uint8, np.int64, np.float64):
        found = replicates(metric, rows)(weights.astype(dtype))
        assert found.shape == (len(weights),)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize("n_scores", [2, 5, 16, 10_001])  # from heavy ties to almost none, edges of bins included
def test_binary_replicates_are_scikit_learns_weighted_values(metric: str, n_scores: int) -> None:
    rng = np.random.default_rng(n_scores)
    for n_rows in (2, 3, 30, 300):
        rows = random_binary(rng, n_rows, n_scores)
        check_against_reference(metric, rows, random_weights(rng, n_rows))


@pytest.mark.parametrize("metric", MULTICLASS)
@pytest.mark.parametrize("n_classes", [3, 10])
def test_multiclass_replicates_are_scikit_learns_weighted_values(metric: str, n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    for n_rows in (2, 40, 300):
        rows = random_multiclass(rng, n_rows, n_classes)
        check_against_reference(metric, rows, random_weights(rng, n_rows))


@pytest.mark.parametrize("metric", REGRESSION)
def test_regression_replicates_are_scikit_learns_weighted_values(metric: str) -> None:
    rng = np.random.default_rng(0)
    for n_rows in (2, 30, 300):
        rows = random_regression(rng, n_rows)
        check_against_reference(metric, rows, random_weights(rng, n_rows))


def test_unit_weights_give_the_point_estimate() -> None:
    rng = np.random.default_rng(1)
    of_task = {
        Task.BINARY: random_binary(rng, 500, 50),
        Task.MULTICLASS: random_multiclass(rng, 500, 7),
        Task.REGRESSION: random_regression(rng, 500),
    }
    for task, rows in of_task.items():
        for metric in metrics_for(task):
            once = replicates(metric.name, rows)(np.ones((1, rows.n_rows), dtype=np.uint8))
            assert point(metric.name, rows) == pytest.approx(once[0], abs=1e-9), metric.name


def test_every_quality_metric_has_a_measure_and_no_other_has() -> None:
    assert set(MEASURES) == {metric.name for metric in METRICS.values() if metric.quality} == set(REFERENCE)


def test_log_loss_of_a_sure_and_wrong_answer_is_scikit_learns() -> None:
    rows = binary([1, 0], [0.0, 0.0])
    assert point("log_loss", rows) == pytest.approx(sk.log_loss([1, 0], [0.0, 0.0]))
    check_against_reference("log_loss", rows, np.array([[1, 1], [3, 1]]))


@pytest.mark.parametrize("metric", BINARY)
def test_without_rows_nothing_is_defined(metric: str) -> None:
    assert point(metric, binary([], [])) is None


@pytest.mark.parametrize("metric", REGRESSION)
def test_without_rows_no_regression_metric_is_defined(metric: str) -> None:
    assert point(metric, regression([], [])) is None


@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_rank_metrics_are_undefined_with_one_class(metric: str, only: int) -> None:
    assert point(metric, binary([only, only], [0.2, 0.7])) is None


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "expected_calibration_error"])
def test_means_are_defined_with_one_class(metric: str) -> None:
    assert point(metric, binary([0, 0], [0.2, 0.7])) is not None


@pytest.mark.parametrize(
    ("metric", "truth", "scores"),
    [
        ("precision", [0, 1], [0.1, 0.2]),  # nothing is predicted positive
        ("recall", [0, 0], [0.1, 0.9]),  # no positives
        ("f1", [0, 0], [0.1, 0.2]),  # neither
    ],
)
def test_shares_of_nothing_are_undefined(metric: str, truth: list[int], scores: list[float]) -> None:
    assert point(metric, binary(truth, scores)) is None


def test_f1_without_a_hit_is_zero() -> None:
    assert point("f1", binary([0, 1], [0.9, 0.1])) == 0.0


@pytest.mark.parametrize("truth", [[1.0], [2.0, 2.0, 2.0]])
def test_r2_is_undefined_without_spread(truth: list[float]) -> None:
    assert point("r2", regression(truth, [1.5] * len(truth))) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_leave_every_metric_undefined(bad: float) -> None:
    assert all(point(metric, binary([0, 1, 1], [0.1, bad, 0.9])) is None for metric in BINARY)
    assert all(point(metric, regression([1.0, 2.0], [1.0, bad])) is None for metric in REGRESSION)
    assert all(point(metric, regression([bad, 2.0], [1.0, 2.0])) is None for metric in REGRESSION)


def test_an_error_too_large_for_a_float_is_undefined() -> None:
    assert point("rmse", regression([1e300, 0.0], [-1e300, 0.0])) is None


@pytest.mark.parametrize(
    ("metric", "weights"),
    [
        ("roc_auc", [1, 0, 2, 0]),
        ("roc_auc", [0, 1, 0, 2]),
        ("average_precision", [1, 0, 2, 0]),
        ("average_precision", [0, 1, 0, 2]),
        ("recall", [1, 0, 2, 0]),
        ("precision", [1, 0, 0, 0]),
        ("accuracy", [0, 0, 0, 0]),
        ("expected_calibration_error", [0, 0, 0, 0]),
    ],
)
def test_a_replicate_is_nan_where_the_weights_leave_the_metric_undefined(metric: str, weights: list[int]) -> None:
    rows = binary([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.3])
    found = replicates(metric, rows)(np.array([weights, [1, 1, 1, 1]], dtype=np.uint8))
    assert np.isnan(found).tolist() == [True, False]


def test_an_r2_replicate_of_one_value_only_is_nan() -> None:
    rows = regression([1e6 + 0.1, 1e6 + 0.1, 1e6 + 5.3], [1e6, 1e6, 1e6])
    found = replicates("r2", rows)(np.array([[3, 4, 0], [1, 1, 1]], dtype=np.uint8))
    assert np.isnan(found).tolist() == [True, False]


def test_a_label_that_the_model_does_not_have_is_wrong_and_not_positive() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    predictions = Predictions(values=np.array(["no", "yes", "yes"], dtype=object), probabilities=probabilities)
    rows = encode(Task.BINARY, np.array(["no", "yes", "maybe"], dtype=object), predictions, LABELS, 1)
    assert point("accuracy", rows) == pytest.approx(2 / 3)
    assert point("precision", rows) == pytest.approx(1 / 2)
    assert point("log_loss", rows) is None


def test_macro_f1_counts_a_class_that_the_model_does_not_have() -> None:
    predictions = Predictions(
        values=np.array(["a", "b", "b"], dtype=object), probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    )
    rows = encode(Task.MULTICLASS, np.array(["a", "b", "c"], dtype=object), predictions, ("a", "b"), None)
    assert point("macro_f1", rows) == pytest.approx((1 + 2 / 3 + 0) / 3)
    check_against_reference("macro_f1", rows, np.array([[1, 1, 1], [1, 2, 1]]))


def test_a_predicted_label_that_is_no_class_is_an_error_that_names_it() -> None:
    predictions = Predictions(values=np.array(["si"], dtype=object), probabilities=np.array([[0.5, 0.5]]))
    with pytest.raises(DataError, match="'si'"):
        encode(Task.BINARY, np.array(["yes"], dtype=object), predictions, LABELS, 1)


def test_truth_and_predictions_of_different_lengths_are_an_error() -> None:
    with pytest.raises(DataError, match="2 true values, but 1 predictions"):
        encode(Task.REGRESSION, np.array([1.0, 2.0]), Predictions(values=np.array([1.0])), (), None)


def test_calibration_of_a_probability_of_one_is_in_the_last_bin() -> None:
    assert point("expected_calibration_error", binary([1, 1, 0, 0], [1.0, 1.0, 0.0, 0.0])) == 0.0
    assert point("expected_calibration_error", binary([0, 0], [1.0, 1.0])) == 1.0


def test_the_positive_class_may_be_the_first_column() -> None:
    predictions = Predictions(
        values=np.array(["late", "on time"], dtype=object), probabilities=np.array([[0.8, 0.2], [0.3, 0.7]])
    )
    rows = encode(Task.BINARY, np.array(["late", "on time"], dtype=object), predictions, ("late", "on time"), 0)
    assert rows.scores.tolist() == [0.8, 0.3]
    assert point("roc_auc", rows) == 1.0
    assert is_defined("roc_auc", rows)
