"""What became of a prediction is counted once, for the version that made it, in the minute in which it is told."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.metrics import Task
from release_platform.domain.windows import LABEL, Route, number_bucket
from serving.errors import DuplicateKey, InvalidInput, MalformedBody
from serving.observations import Reflection
from serving.outcomes import Told, bucket_of, memory_of
from serving.ring import MOST_NAMES
from serving.routes.outcomes import MOST_OUTCOMES, read_outcomes
from serving.tallies import Arm, first_answer
from tests.unit.test_serving_observations import ANSWER, CANARY, FIRST, STABLE, Server

CLASSIFIER = Arm("m", "1", Route.STABLE, Task.MULTICLASS, ("a", "b", 3))
REGRESSION = Arm("m", "2", Route.CANARY, Task.REGRESSION, ())
RIGHT, WRONG = number_bucket(0.0), number_bucket(1.0)


@pytest.mark.parametrize(
    ("arm", "answer", "name", "value", "bucket"),
    [
        (CLASSIFIER, 1.0, LABEL, "b", RIGHT),
        (CLASSIFIER, 1.0, LABEL, "a", WRONG),
        (CLASSIFIER, 2.0, LABEL, 3, RIGHT),
        (REGRESSION, 5.0, LABEL, 7.5, number_bucket(2.5)),
        (REGRESSION, 5.0, LABEL, 2.5, number_bucket(2.5)),
        (CLASSIFIER, 1.0, "cost", -12.5, number_bucket(-12.5)),
        (REGRESSION, 5.0, "bought", True, number_bucket(1.0)),
    ],
)
def test_an_outcome_has_the_bucket_of_its_kind(arm, answer, name, value, bucket):
    assert bucket_of(arm, answer, name, value) == bucket


@pytest.mark.parametrize(
    ("arm", "name", "value"),
    [(CLASSIFIER, LABEL, "c"), (CLASSIFIER, LABEL, True), (REGRESSION, LABEL, "a"), (CLASSIFIER, "cost", "high")],
)
def test_what_is_no_outcome_of_that_kind_is_refused(arm, name, value):
    with pytest.raises(ValueError, match="is no"):
        bucket_of(arm, 1.0, name, value)


@given(size=st.integers(0, 20), batches=st.lists(st.integers(0, 30), max_size=8))
def test_the_last_so_many_predictions_are_remembered_and_no_other(size, batches):
    memory, last = memory_of(size), 0
    for n in batches:
        numbers = list(range(last + 1, last + n + 1))
        memory.keep(REGRESSION, last, np.array(numbers, dtype=np.int64), np.array(numbers, dtype=np.float64) / 2)
        last += n
    for number in range(-1, last + 3):
        found = memory.find(number)
        if 0 < number <= last and number > last - size:
            assert found is not None
            assert found.answers == ((REGRESSION, number / 2),)
        else:
            assert found is None


def test_a_place_that_is_used_again_knows_nothing_of_before():
    memory = memory_of(2)
    memory.keep(REGRESSION, 7, np.array([1]), np.array([1.0]))
    memory.keep_shadow(CLASSIFIER, np.array([0, 1]), np.array([9.0, 2.0]))
    assert memory.find(1).answers == ((REGRESSION, 1.0), (CLASSIFIER, 2.0))
    assert memory.is_first(memory.find(1), 63)
    assert not memory.is_first(memory.find(1), 63)
    assert memory.is_first(memory.find(1), 0)
    memory.keep(REGRESSION, 8, np.array([3]), np.array([3.0]))
    assert memory.find(3).answers == ((REGRESSION, 3.0),)
    assert memory.find(3).minute == 8
    assert memory.is_first(memory.find(3), 63)
    memory.keep_shadow(CLASSIFIER, np.array([0, 1]), np.array([9.0, 2.0]))
    assert memory.find(3).answers == ((REGRESSION, 3.0),)


def served(**settings):
    server = Server(most_remembered=10, **settings)
    for number, (version, route) in enumerate([(STABLE, Route.STABLE), (CANARY, Route.CANARY)], 1):
        server.seen.put_down((version, route, 0.0, server.steady_s, "", *first_answer(ANSWER), number))  # both: "yes"
    return server


def outcome(server, number, value, name=LABEL):
    return {"prediction_id": f"{server.seen.replica}-{number:x}", "name": name, "value": value}


def outcomes_of(server):
    return {(w.key.version, w.key.minute - FIRST): w.outcomes for w in server.told() if w.outcomes}


def test_it_counts_for_the_arm_that_answered_in_the_minute_in_which_it_is_told():
    server = served()
    server.pass_s(61)
    told = server.seen.take([outcome(server, 1, "yes"), outcome(server, 2, "no"), outcome(server, 2, 3.5, "cost")])
    assert told == Told(counted=3)
    server.pass_s(60)
    assert outcomes_of(server) == {
        ("1", 1): {LABEL: {1: {RIGHT: 1}}},
        ("2", 1): {LABEL: {1: {WRONG: 1}}, "cost": {1: {number_bucket(3.5): 1}}},
    }
    line = 'serving_outcomes_total{model="m",model_route="canary",outcome="cost",version="2"} 1.0'
    assert line in server.metrics.exposition().decode()


def test_a_second_one_is_ignored_an_unknown_one_is_told_back_and_a_wrong_one_may_be_put_right():
    server = served()
    unknown = outcome(server, 9, "yes")
    wrong = outcome(server, 1, "maybe")
    told = server.seen.take([wrong, outcome(server, 1, "yes"), outcome(server, 1, "no"), unknown, unknown])
    assert (told.counted, told.repeated) == (1, (outcome(server, 1, "")["prediction_id"],))
    assert told.unknown == (unknown["prediction_id"],)
    (refused,) = told.refused
    assert refused["reason"] == "it is none of the labels of the version that answered"
    assert Told.from_json(json.loads(json.dumps(told.to_json()))) == told
    server.pass_s(60)
    assert outcomes_of(server) == {("1", 0): {LABEL: {0: {RIGHT: 1}}}}


def test_a_label_counts_for_the_shadow_too_and_nothing_else_does():
    server = served()
    no = Reflection(number=1, ms=1.0, answer=0.0, counted=0.25, is_pair=True, flip="yes -> no")
    server.seen.reflected(CANARY, [no])
    server.seen.take([outcome(server, 1, "yes"), outcome(server, 1, 1, "cost")])
    server.pass_s(60)
    shadow = next(window for window in server.told() if window.key.route is Route.SHADOW)
    assert (shadow.outcomes, shadow.pairs) == ({LABEL: {0: {WRONG: 1}}}, {"": 1})
    assert shadow.flips == {"": {"yes -> no": 1}}
    assert outcomes_of(server)["1", 0] == {LABEL: {0: {RIGHT: 1}}, "cost": {0: {WRONG: 1}}}


def test_there_are_no_more_names_than_so_many():
    server = served()
    told = server.seen.take([outcome(server, 1, 1.0, f"name_{n}") for n in range(MOST_NAMES + 2)])
    assert (told.counted, len(told.refused)) == (MOST_NAMES, 2)
    assert "64 are known already" in told.refused[0]["reason"]


ID = "0123456789abcdef-1"


def test_each_outcome_of_a_body_is_read():
    body = json.dumps([{"prediction_id": ID, "label": "a", "cost": 1.5}, {"prediction_id": "x", "bought": True}])
    assert read_outcomes(body.encode()) == [
        {"prediction_id": ID, "name": "label", "value": "a"},
        {"prediction_id": ID, "name": "cost", "value": 1.5},
        {"prediction_id": "x", "name": "bought", "value": True},
    ]


@pytest.mark.parametrize(
    ("body", "problem", "field", "row"),
    [
        ("{}", InvalidInput, None, None),
        ("[]", InvalidInput, None, None),
        ("[1]", InvalidInput, None, 0),
        ('[{"label": "a"}]', InvalidInput, "prediction_id", 0),
        ('[{"prediction_id": 1, "label": "a"}]', InvalidInput, "prediction_id", 0),
        ('[{"prediction_id": "x"}]', InvalidInput, "label", 0),
        ('[{"prediction_id": "x", "label": 1}, {"prediction_id": "x", "label": null}]', InvalidInput, "label", 1),
        ('[{"prediction_id": "x", "label": [1]}]', InvalidInput, "label", 0),
        ('[{"prediction_id": "x", "a b": 1}]', InvalidInput, "a b", 0),
        ('[{"prediction_id": "x", "label": 1, "label": 2}]', DuplicateKey, "label", None),
        ('[{"prediction_id": "x", "cost": NaN}]', MalformedBody, None, None),
        ("[", MalformedBody, None, None),
    ],
)
def test_what_is_no_list_of_outcomes_is_refused_by_row_and_member(body, problem, field, row):
    with pytest.raises(problem) as caught:
        read_outcomes(body.encode())
    assert (caught.value.field, caught.value.row) == (field, row)


def test_more_than_so_many_are_refused():
    one = {"prediction_id": ID, "label": 1}
    assert len(read_outcomes(json.dumps([one] * MOST_OUTCOMES).encode())) == MOST_OUTCOMES
    with pytest.raises(InvalidInput, match="10,001 outcomes"):
        read_outcomes(json.dumps([one] * (MOST_OUTCOMES + 1)).encode())
