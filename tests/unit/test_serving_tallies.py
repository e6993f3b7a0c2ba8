"""Many requests are counted at once as each of them would be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import Route, number_bucket, share_bucket
from serving.tallies import Arm, Tally, first_answer, number_buckets, prediction_buckets, said, share_buckets

NUMBERS = st.floats(allow_nan=False, allow_infinity=True)


def arm(task, classes=()):
    return Arm("m", "1", Route.STABLE, task, classes)


@given(values=st.lists(NUMBERS | st.floats(-1e-9, 1e-9), max_size=50))
def test_the_bucket_of_a_number_is_that_of_the_domain(values):
    assert number_buckets(np.array(values, dtype=np.float64)).tolist() == [number_bucket(value) for value in values]


@given(values=st.lists(st.floats(0, 1), max_size=50))
def test_the_bucket_of_a_probability_is_too(values):
    assert share_buckets(np.array(values, dtype=np.float64)).tolist() == [share_bucket(value) for value in values]


def test_a_probability_that_rounding_put_beyond_an_end_belongs_to_that_end():
    assert share_buckets(np.array([-1e-17, 1 + 1e-15])).tolist() == [0, 99]


def answered(*rows):
    return Predictions(values=np.array(["?"] * len(rows), dtype=object), probabilities=np.array(rows))


@pytest.mark.parametrize(
    ("counted", "predictions", "answer", "bucket"),
    [
        (arm(Task.REGRESSION), Predictions(values=np.array([2.0, 9.0])), 2.0, number_bucket(2.0)),
        (arm(Task.REGRESSION), Predictions(values=np.array([-0.5])), -0.5, number_bucket(-0.5)),
        (arm(Task.BINARY, ("no", "yes")), answered([0.2, 0.8], [1.0, 0.0]), 1, 80),
        (arm(Task.BINARY, ("no", "yes")), answered([0.5, 0.5]), 0, 50),
        (arm(Task.MULTICLASS, ("a", "b", "c")), answered([0.1, 0.2, 0.7]), 2, 2),
        (arm(Task.MULTICLASS, tuple(range(100))), answered(np.eye(100)[41]), 41, 41),
    ],
)
def test_of_a_request_the_first_row_counts(counted, predictions, answer, bucket):
    found, of_it = first_answer(predictions)
    assert (found, prediction_buckets(counted, np.array([of_it])).tolist()) == (answer, [bucket])


@pytest.mark.parametrize(
    ("task", "value", "answer"),
    [(Task.REGRESSION, 2.5, 2.5), (Task.BINARY, 1, "1"), (Task.BINARY, "no", "no"), (Task.REGRESSION, "no", "no")],
)
def test_an_answer_is_compared_as_what_it_is_whatever_the_other_version_predicts(task, value, answer):
    assert said(task, Predictions(values=np.array([value, value], dtype=object))) == answer


def test_counts_add_up_to_a_window():
    tally = Tally()
    for errors in ([], ["prediction_failed"]):
        latency, predictions = np.array([7, 7, 9]), np.array([1, 2, 2][len(errors) :])
        tally.count({"latency": latency, "predictions": predictions}, errors)
    window = tally.as_window(arm(Task.BINARY), 5)
    assert (window.requests, window.errors, window.latency) == (6, {"prediction_failed": 1}, {7: 4, 9: 2})
    assert window.predictions == {1: 1, 2: 4}
    assert (window.key.model, window.key.version, window.key.route, window.key.minute) == ("m", "1", "stable", 5)
