"""A sample is of the share that was asked, of whole minutes, and holds rows as clients send them."""

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from scipy.stats import binom

from release_platform.adapters.model_package import load_package
from release_platform.adapters.trust import Proof
from release_platform.domain.features import ColumnType, FeaturePlan, Input, as_column
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import Route
from serving.metrics import Metrics
from serving.models import Live, LoadedModel, Origin
from serving.observations import KEPT_MINUTES
from serving.samples import MOST_OF_ONE, Samples, columns_of
from serving.tallies import Arm
from tests.fakes.packages import build_typed_classifier, manifest_of

ANSWER = Predictions(values=np.array(["low"], dtype=object))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = build_typed_classifier(tmp_path_factory.mktemp("packages") / "1")
    return LoadedModel(
        model="typed",
        version="1",
        digest="d",
        epoch=1,
        proof=Proof(signature="", certificate=""),
        package=load_package(folder, manifest_of(folder)),
        since=datetime(2026, 1, 1, tzinfo=UTC),
        origin=Origin.REGISTRY,
    )


class Minutes:
    """The present minute, and samples that go by it."""

    def __init__(self, share=1.0, **settings):
        self.now = 100
        self.metrics = Metrics(Live())
        self.kept = Samples(share=share, replica="r", minute=lambda: self.now, metrics=self.metrics, **settings)

    def told(self, after=-1):
        return orjson.loads(orjson.dumps(self.kept.closed_after(after)))["samples"]

    def lost(self):
        lines = self.metrics.exposition().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith("serving_samples_lost_total")))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_share_is_what_was_asked_and_always_the_same_numbers(share):
    numbers = range(1, 20_001)
    taken = [number for number in numbers if Minutes(share).kept.takes(number)]
    lowest, highest = binom.interval(0.999, len(numbers), share) if 0 < share < 1 else (share * len(numbers),) * 2
    assert lowest <= len(taken) <= highest
    assert taken == [number for number in numbers if Minutes(share).kept.takes(number)]


def test_rows_are_told_as_a_client_sends_them(loaded):
    golden = loaded.package.golden["inputs"]
    minutes = Minutes()
    minutes.kept.offer(loaded, Route.CANARY, loaded.package.golden_inputs, ANSWER, 255)
    assert minutes.told() == []
    minutes.now += 1
    (sample,) = minutes.told()
    rows = sample.pop("columns")
    again = loaded.package.plan.columns(loaded.package.golden_inputs)
    for column in loaded.package.plan.inputs:
        assert as_column(column, rows[column.name]).tolist() == again[column.name].tolist()
    assert {name: rows[name] for name in ("n", "flag", "carrier")} == {
        name: golden[name] for name in ("n", "flag", "carrier")
    }
    assert sample == {
        "prediction_id": "r-ff",
        "model": "typed",
        "version": "1",
        "route": "canary",
        "minute": 100,
        "n_rows": 5,
        "predictions": ["low"],
    }


def test_what_is_missing_stays_missing():
    inputs = tuple(Input(name=kind.value, type=kind, nullable=True) for kind in ColumnType)
    plan = FeaturePlan(inputs=inputs, derived=(), features=("number",))
    typed = {column.name: as_column(column, [None]) for column in inputs}
    assert columns_of(plan, typed) == {column.name: [None] for column in inputs}


def test_rows_of_a_matrix_are_told_by_type_too():
    kinds = (ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN)
    inputs = tuple(Input(name=kind.value, type=kind, nullable=True) for kind in kinds)
    plan = FeaturePlan(inputs=inputs, derived=(), features=tuple(kind.value for kind in kinds))
    told = columns_of(plan, np.array([[0.5, 2.0, 1.0], [np.nan, np.nan, np.nan], [1e300, -3.0, 0.0]]))
    assert told == {"number": [0.5, None, 1e300], "integer": [2, None, -3], "boolean": [True, None, False]}
    assert [type(value) for value in (told["integer"][0], told["boolean"][0])] == [int, bool]


def test_only_later_minutes_are_told_and_they_are_kept_for_an_hour(loaded):
    minutes = Minutes()
    for number in range(1, 4):
        minutes.kept.offer(loaded, Route.STABLE, loaded.package.golden_inputs, ANSWER, number)
        minutes.now += 1
    assert [sample["minute"] for sample in minutes.told(100)] == [101, 102]
    minutes.now += KEPT_MINUTES
    minutes.kept.offer(loaded, Route.STABLE, loaded.package.golden_inputs, ANSWER, 4)
    assert minutes.lost() == 0  # they were fetched
    minutes.now += 1
    assert [sample["minute"] for sample in minutes.told()] == [minutes.now - 1]


def test_labels_of_the_sample_are_told_in_the_minute_in_which_they_came_and_kept_for_an_hour(loaded):
    minutes = Minutes(share=0.5)
    arm = Arm("typed", "1", Route.CANARY, loaded.package.task, loaded.package.classes)
    taken = [number for number in range(1, 20) if minutes.kept.takes(number)]
    for number in range(1, 20):
        minutes.kept.label(arm, number, "low")
    assert minutes.kept.closed_after(-1)["labels"] == []
    minutes.now += 1
    told = minutes.kept.closed_after(99)["labels"]
    assert [int(label["prediction_id"].removeprefix("r-"), 16) for label in told] == taken
    assert told[0] == {"model": "typed", "version": "1", "minute": 100, "label": "low"} | {
        "prediction_id": told[0]["prediction_id"]
    }
    assert minutes.kept.closed_after(100)["labels"] == []
    minutes.now += KEPT_MINUTES + 1
    minutes.kept.label(arm, taken[0], "low")
    minutes.now += 1
    assert len(minutes.kept.closed_after(-1)["labels"]) == 1


def test_there_are_never_more_rows_than_so_many_and_few_of_one_request(loaded):
    minutes = Minutes(most_rows=2 * MOST_OF_ONE)
    large = {name: np.concatenate([values] * 60) for name, values in loaded.package.golden_inputs.items()}
    for number in range(1, 6):
        minutes.kept.offer(loaded, Route.STABLE, large, ANSWER, number)
    minutes.now += 1
    told = minutes.told()
    assert [(sample["n_rows"], len(sample["columns"]["x"])) for sample in told] == [(300, MOST_OF_ONE)] * 2
    assert minutes.lost() == 3
