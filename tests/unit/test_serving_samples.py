"""A sample is of the share that was asked, of whole minutes, holds rows as clients send them, and never too much."""

import json
from dataclasses import replace
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
from serving.samples import (
    MOST_BYTES_OF_ONE,
    MOST_BYTES_TOLD,
    MOST_OF_ONE,
    MOST_VALUES_OF_ONE,
    Page,
    Samples,
    columns_of,
)
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
        self.windows = []
        self.kept = Samples(
            share=share,
            replica="r",
            minute=lambda: self.now,
            windows=lambda after: [one for one in self.windows if after < one.key.minute in self.closed],
            metrics=self.metrics,
            **settings,
        )

    @property
    def closed(self):
        return range(self.now - KEPT_MINUTES, self.now)

    def page(self, after=-1):
        return self.kept.closed_after(after)

    def told(self, after=-1):
        return json.loads(self.page(after).body)["samples"]

    def labels(self, after=-1):
        return json.loads(self.page(after).body)["labels"]

    def lost(self):
        return self._counted("serving_samples_lost_total")

    def left_out(self):
        return self._counted("serving_samples_left_out_total")

    def _counted(self, name):
        lines = self.metrics.exposition().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(name)))


def with_text(loaded, text, n_rows=1):
    """Rows of the typed model, whose category is a text."""
    rows = {name: np.concatenate([values[:1]] * n_rows) for name, values in loaded.package.golden_inputs.items()}
    return rows | {"carrier": np.array([text] * n_rows, dtype=object)}


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
        "confidences": None,
    }


def test_the_probability_of_each_answer_is_told(loaded):
    minutes = Minutes()
    said = Predictions(
        values=np.array(["low", "high"], dtype=object), probabilities=np.array([[0.25, 0.75], [0.9, 0.1]])
    )
    minutes.kept.offer(loaded, Route.STABLE, with_text(loaded, "x", n_rows=2), said, 1)
    minutes.now += 1
    assert minutes.told()[0]["confidences"] == [0.75, 0.9]


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
        minutes.kept.label(arm, f"r-{number:x}", "low", 0.5)
    assert minutes.labels() == []
    minutes.now += 1
    told = minutes.labels(99)
    assert [int(label["prediction_id"].removeprefix("r-"), 16) for label in told] == taken
    assert told[0] == {"model": "typed", "version": "1", "minute": 100, "label": "low"} | {
        "prediction_id": told[0]["prediction_id"]
    }
    assert minutes.labels(100) == []
    minutes.now += KEPT_MINUTES + 1
    minutes.kept.label(arm, f"r-{taken[0]:x}", "low", 0.5)
    minutes.now += 1
    assert len(minutes.labels()) == 1


def test_there_are_never_more_rows_than_so_many_and_few_of_one_request(loaded):
    minutes = Minutes(most_rows=2 * MOST_OF_ONE)
    large = {name: np.concatenate([values] * 60) for name, values in loaded.package.golden_inputs.items()}
    for number in range(1, 6):
        minutes.kept.offer(loaded, Route.STABLE, large, ANSWER, number)
    minutes.now += 1
    told = minutes.told()
    assert [(sample["n_rows"], len(sample["columns"]["x"])) for sample in told] == [(300, MOST_OF_ONE)] * 2
    assert minutes.lost() == 3


def test_what_is_kept_never_has_more_than_so_many_bytes_whatever_clients_send(loaded):
    minutes = Minutes(most_bytes=10_000)
    for number in range(1, 31):
        minutes.kept.offer(loaded, Route.STABLE, with_text(loaded, chr(96 + number) * 1000), ANSWER, number)
    minutes.now += 1
    told = minutes.told()
    assert [sample["prediction_id"] for sample in told] == [f"r-{number:x}" for number in range(23, 31)]
    assert (minutes.lost(), minutes.left_out()) == (22, 0)


@pytest.mark.parametrize("letter", ["x", "\x00", "€"], ids=["plain", "escaped", "of three bytes"])
def test_a_request_whose_rows_are_too_large_is_left_out_and_counted_and_the_others_stay(loaded, letter):
    minutes = Minutes()
    minutes.kept.offer(loaded, Route.STABLE, with_text(loaded, "small"), ANSWER, 1)
    minutes.kept.offer(loaded, Route.STABLE, with_text(loaded, letter * MOST_BYTES_OF_ONE), ANSWER, 2)
    many = with_text(loaded, letter * (MOST_BYTES_OF_ONE // MOST_OF_ONE), n_rows=MOST_OF_ONE)
    minutes.kept.offer(loaded, Route.STABLE, many, ANSWER, 3)
    minutes.now += 1
    assert [sample["prediction_id"] for sample in minutes.told()] == ["r-1"]
    assert (minutes.lost(), minutes.left_out()) == (0, 2)


def test_of_a_model_with_many_inputs_fewer_rows_of_a_request_are_kept(loaded):
    names = [f"c{place}" for place in range(MOST_VALUES_OF_ONE // 4)]
    plan = FeaturePlan(
        inputs=tuple(Input(name=name, type=ColumnType.NUMBER) for name in names), derived=(), features=tuple(names)
    )
    wide = replace(loaded, package=replace(loaded.package, plan=plan))
    minutes = Minutes()
    minutes.kept.offer(wide, Route.STABLE, np.ones((50, len(names))), Predictions(values=np.ones(50)), 1)
    minutes.now += 1
    (sample,) = minutes.told()
    assert (sample["n_rows"], len(sample["predictions"]), len(sample["columns"]["c0"])) == (50, 4, 4)


def test_a_whole_number_of_any_size_is_told():
    column = Input(name="n", type=ColumnType.INTEGER, nullable=True)
    plan = FeaturePlan(inputs=(column,), derived=(), features=("n",))
    typed = {"n": as_column(column, [2**53, -(10**300), None])}
    assert json.loads(orjson.dumps(columns_of(plan, typed))) == {"n": [2**53, -1e300, None]}


def test_much_is_told_in_pages_of_whole_minutes_and_a_minute_is_told_whole(loaded):
    minutes = Minutes()
    text = "x" * (MOST_BYTES_TOLD // 10)
    for number in range(1, 26):  # 6, 6, 6 and 7 in a minute, so that two are more than a page
        minutes.kept.offer(loaded, Route.STABLE, with_text(loaded, text), ANSWER, number)
        minutes.now += number in {6, 12, 18}
    arm = Arm("typed", "1", Route.STABLE, loaded.package.task, loaded.package.classes)
    minutes.kept.label(arm, "r-1", "low", 1.0)
    minutes.now += 3
    pages, after = [], -1
    while not pages or pages[-1].more:
        pages.append(minutes.page(after))
        after = pages[-1].closed
    assert [(page.closed, page.more) for page in pages] == [(100, True), (101, True), (102, True), (105, False)]
    told = [json.loads(page.body) for page in pages]
    assert [len(one["samples"]) for one in told] == [6, 6, 6, 7]
    assert [len(one["labels"]) for one in told] == [0, 0, 0, 1]
    assert [one["closed"] for one in told] == [page.closed for page in pages]


def test_what_is_older_than_an_hour_is_not_told_though_nothing_new_came(loaded):
    minutes = Minutes()
    minutes.kept.offer(loaded, Route.STABLE, loaded.package.golden_inputs, ANSWER, 1)
    minutes.now += KEPT_MINUTES + 1
    assert (minutes.told(), minutes.lost()) == ([], 1)


def test_a_page_that_another_process_wrote_is_read_only_when_it_is_whole():
    page = Page(closed=7, more=True, body=b'{"samples": []}')
    assert Page.from_bytes(page.to_bytes()) == page
    for broken in (b"", b"[7]\n{}", page.to_bytes()[:-1]):
        with pytest.raises(ValueError, match=r"."):
            Page.from_bytes(broken)
