"""The domain classifier: it sees what no column shows alone, promises what columns promise, and says the same again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import log

import numpy as np
import pandas as pd
import pytest

from release_platform.domain.alarms import Budget, Detector, learned_floor, log_p_of_area
from release_platform.domain.drift import Rows, WindowDrift, watch, with_floors
from release_platform.domain.features import MISSING
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER, ClassifierTest
from release_platform.domain.reference import Reference, summarised
from release_platform.pipeline.domain_classifier import DomainClassifier, learned

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
N_DAYS, N_ROWS = 16, 400
Columns = dict[str, np.ndarray]


def day(rng: np.random.Generator, *, correlation: float = 0.6) -> Columns:
    """Four numbers and a text; two of the numbers go together, and each alone is the same whatever the correlation."""
    x, y = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=N_ROWS).T
    return {
        "x": x,
        "y": y,
        "z": np.where(rng.random(N_ROWS) < 0.1, np.nan, rng.normal(size=N_ROWS)),
        "inf": np.where(rng.random(N_ROWS) < 0.1, np.inf, rng.normal(size=N_ROWS)),
        "city": rng.choice(np.array(["Ulm", "Bonn", MISSING], dtype=object), size=N_ROWS),
    }


def history(rng: np.random.Generator, *, correlations: np.ndarray | None = None) -> tuple[Reference, DomainClassifier]:
    days = [day(rng, correlation=one) for one in (np.full(N_DAYS, 0.6) if correlations is None else correlations)]
    every = {name: np.concatenate([one[name] for one in days]) for name in days[0]}
    windows = tuple(np.split(np.arange(len(days) * N_ROWS), len(days)))
    classifier, floor = learned(pd.DataFrame(every), windows, named="m 1")
    columns = {name: summarised(values) for name, values in every.items()}
    floors = with_floors(columns, days) | {DOMAIN_CLASSIFIER: floor}
    return Reference(
        model="m", version="1", columns=columns, outputs={}, floors=floors, n_windows=len(days)
    ), classifier


@pytest.fixture(scope="module")
def stationary() -> tuple[Reference, DomainClassifier]:
    return history(np.random.default_rng(1))


def shown(known: tuple[Reference, DomainClassifier], days: list[Columns]) -> list[WindowDrift]:
    reference, classifier = known
    detector, found = Detector.of(reference.watched, Budget()), []
    for number, columns in enumerate(days):
        begins = BEGIN + timedelta(days=number)
        rows = Rows(begins=begins, ends=begins + timedelta(days=1), columns=columns)
        together = classifier.test(columns, window=str(begins.date()))
        detector, one = watch(reference, detector, rows, together=together)
        found.append(one)
    return found


def area(auc: float, *, n_judged: int = 500, n_reference: int = 10_000) -> ClassifierTest:
    return ClassifierTest(auc=auc, p_value=0.5, n_judged=n_judged, n_reference=n_reference)


def test_a_correlation_that_turns_round_alarms_although_no_column_shows_it(stationary):
    rng = np.random.default_rng(2)
    days = shown(stationary, [day(rng, correlation=-0.6) for _ in range(5)])
    named = [one.alarm.columns for one in days if one.alarm]

    assert named
    assert set(named) == {(DOMAIN_CLASSIFIER,)}
    assert days[0].together is not None
    assert days[0].together.auc > 0.6
    assert days[0].together.p_value < 0.01


def test_days_like_those_before_raise_no_alarm_and_are_told_apart_by_chance_only(stationary):
    rng = np.random.default_rng(3)
    days = shown(stationary, [day(rng) for _ in range(40)])
    values = np.array([one.together.p_value for one in days if one.together])

    assert stationary[0].floors[DOMAIN_CLASSIFIER] < 0.02
    assert not any(one.alarm for one in days)
    assert len(values) == 40
    for level in (0.5, 0.2, 0.05):  # Mann and Whitney's p-value is small no more often than it says
        assert (values <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 40)


def test_days_that_always_were_apart_teach_a_floor_and_raise_no_alarm():
    rng = np.random.default_rng(4)
    levels = rng.choice([-0.9, 0.9], size=N_DAYS + 20)
    known = history(rng, correlations=levels[:N_DAYS])
    days = shown(known, [day(rng, correlation=one) for one in levels[N_DAYS:]])

    assert known[0].floors[DOMAIN_CLASSIFIER] > 0.05
    assert sum(one.alarm is not None for one in days) <= 1


def test_the_same_rows_of_the_same_day_say_the_same_and_of_another_day_others_are_drawn(stationary):
    _, classifier = stationary
    columns = day(np.random.default_rng(5))
    found = classifier.test(columns, window="2026-03-01")

    assert classifier.test(columns, window="2026-03-01") == found
    assert classifier.test(columns, window="2026-03-02") != found
    assert replace(classifier, named="m 2").test(columns, window="2026-03-01") != found


def test_new_texts_and_columns_without_a_value_are_told_apart(stationary):
    _, classifier = stationary
    columns = day(np.random.default_rng(6))
    strange = classifier.test({**columns, "city": np.full(N_ROWS, "Kiel", dtype=object)}, window="a")
    empty = classifier.test({**columns, "z": np.full(N_ROWS, np.nan)}, window="a")

    assert strange is not None
    assert empty is not None
    assert strange.auc > 0.95
    assert empty.auc > 0.9


def test_a_column_that_is_empty_on_both_days_tells_nothing_and_the_others_do(stationary):
    _, classifier = stationary
    empty = {"z": np.full(N_ROWS, np.nan)}
    monday, tuesday = (day(np.random.default_rng(seed)) for seed in (7, 8))
    strange = {"city": np.full(N_ROWS, "Kiel", dtype=object)}
    apart = classifier.apart({**monday, **empty}, {**tuesday, **empty, **strange}, window="a")
    nothing = classifier.apart(empty, empty, window="a")

    assert apart is not None
    assert nothing is not None
    assert apart.auc > 0.9
    assert (nothing.auc, nothing.p_value) == (0.5, 1.0)


def test_few_rows_no_feature_in_common_and_another_kind_say_nothing():
    classifier = DomainClassifier(sample=pd.DataFrame({"x": np.zeros(100)}), named="m 1")

    assert classifier.test({"x": np.zeros(49)}, window="a") is None
    assert classifier.test({"z": np.zeros(100)}, window="a") is None
    assert classifier.test({"x": np.full(100, "0", dtype=object)}, window="a") is None
    assert classifier.test({}, window="a") is None
    same = classifier.test({"x": np.zeros(100)}, window="a")
    assert same == ClassifierTest(auc=0.5, p_value=1.0, n_judged=50, n_reference=100)


def test_it_is_asked_of_no_more_rows_than_its_past_windows_had(stationary):
    _, classifier = stationary
    rng = np.random.default_rng(7)
    many = {name: np.concatenate([values, day(rng)[name]]) for name, values in day(rng).items()}
    found = classifier.test(many, window="a")

    assert classifier.most_rows == N_ROWS
    assert found is not None
    assert found.n_judged == N_ROWS // 2


def test_an_area_within_the_floor_is_no_evidence_and_one_beyond_it_is_worth_its_rows():
    assert log_p_of_area(area(0.5), 0.0) == log_p_of_area(area(0.3), 0.0) == log_p_of_area(area(0.53), 0.02) == 0.0
    assert log_p_of_area(area(0.7), 0.02) < log_p_of_area(area(0.65), 0.02) < log(0.01)
    assert log_p_of_area(area(0.7, n_judged=50), 0.02) > log_p_of_area(area(0.7), 0.02) / 9
    assert log_p_of_area(area(0.7, n_reference=100), 0.02) > log_p_of_area(area(0.7), 0.02)


def test_the_floor_is_the_smallest_at_which_the_past_is_no_evidence():
    assert learned_floor([area(0.5)] * 30) == learned_floor([area(0.9)] * 9) == 0.0
    floor = learned_floor([area(0.7)] * 30)
    assert 0.1 < floor < 0.2
    assert log_p_of_area(area(0.7), floor) > log_p_of_area(area(0.7), floor - 0.02)


def test_the_bound_holds_where_the_area_is_as_large_as_the_floor_allows():
    rng = np.random.default_rng(8)
    moved = (rng.random((2000, 200)) < 0.1) * 10.0 + rng.normal(size=(2000, 200))  # a tenth of the rows: area 0.55
    ranks = np.argsort(np.argsort(np.hstack([moved, rng.normal(size=(2000, 200))]), axis=1), axis=1)[:, :200].sum(
        axis=1
    )
    areas = (ranks - 200 * 199 / 2) / 200**2
    found = np.array([log_p_of_area(area(one, n_judged=200, n_reference=10**9), 0.05) for one in areas])

    assert abs(areas.mean() - 0.55) < 0.01
    for level in (0.5, 0.2, 0.05):
        assert (found <= log(level)).mean() <= level
