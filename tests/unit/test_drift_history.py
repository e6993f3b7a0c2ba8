"""What a model's own recorded days teach its alarms: to be quiet about what days always do, and about nothing else."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.distances import Distance
from release_platform.domain.drift import Rows, WindowDrift, watch_all
from release_platform.domain.features import MISSING
from release_platform.domain.history import (
    MINIMUM_DAYS,
    SETTLED_DAYS,
    DayShape,
    History,
    learned_history,
    shape_of,
)
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER, ClassifierTest
from release_platform.domain.reference import Reference, of_numbers, of_texts, summarised

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
N_ROWS = 1000
NAMED = ("x", "y", "z")
NAMES = np.array(["a", "b", "c", "d"], dtype=object)


def day(rng: np.random.Generator, number: int, *, alike: int = 1, weekend: float = 0.0, shift: float = 0.0) -> Rows:
    """A day of requests of so many alike rows: two numbers and a text, of which only the first may shift."""
    n = N_ROWS // alike
    level = np.repeat(rng.normal(size=(n, 3)), alike, axis=0) * np.sqrt(0.25)
    x, y, z = (level + rng.normal(size=(N_ROWS, 3)) * np.sqrt(0.75)).T
    later = weekend if number % 7 >= 5 else 0.0
    columns = {"x": x + later + shift, "y": y + later, "z": NAMES[np.searchsorted([-0.7, 0.0, 0.7], z + later)]}
    begins = BEGIN + timedelta(days=number)
    return Rows(begins=begins, ends=begins + timedelta(days=1), columns=columns)


def watched(n_days: int, *, seed: int = 1, learns: bool = True, moved=lambda _: 0.0, **traffic) -> list[WindowDrift]:
    rng = np.random.default_rng(seed)
    past = [day(rng, number, **traffic) for number in range(63)]
    every = {name: np.concatenate([one.columns[name] for one in past]) for name in past[0].columns}
    columns = {name: summarised(values) for name, values in every.items()}
    reference = Reference(model="m", version="1", columns=columns, outputs={}, floors={})
    detector = Detector.of(list(columns), Budget())
    days = [day(rng, number, shift=moved(number), **traffic) for number in range(n_days)]
    if learns:
        return list(watch_all(reference, detector, days)[1])
    shown = []
    for one in days:
        detector, (drift,) = watch_all(reference, detector, [one])
        shown.append(drift)
    return shown


def after_another(n_days: int, seed: int = 1, **traffic) -> list[WindowDrift]:
    """The first days of a version that has another reference, after so many of the one before it."""
    before = [one.shape for one in watched(n_days, seed=seed, **traffic)]
    rng = np.random.default_rng([seed, 2])
    rows = [day(rng, number, shift=0.3, **traffic) for number in range(63)]
    columns = {name: summarised(np.concatenate([one.columns[name] for one in rows])) for name in NAMED}
    reference = Reference(model="m", version="2", columns=columns, outputs={}, floors={})
    days = [day(rng, n_days + number, shift=0.3, **traffic) for number in range(14)]
    return list(watch_all(reference, Detector.of(list(columns), Budget()), days, days=before)[1])


def alarms(shown: list[WindowDrift], name: str | None = None) -> list[int]:
    return [n for n, one in enumerate(shown) if one.alarm and (name is None or name in one.alarm.columns)]


def shapes(shares: list[float], *, n_rows: int = N_ROWS) -> list[DayShape]:
    return [
        DayShape(
            version="1", day=date(2026, 1, 5) + timedelta(days=n), n_rows={"x": n_rows}, shares={"x": (0.0, share)}
        )
        for n, share in enumerate(shares)
    ]


X = {"x": of_numbers(np.arange(100.0))}


class TestQuiet:
    @pytest.mark.parametrize(
        "traffic", [{"alike": 100}, {"weekend": 0.6}, {"alike": 100, "weekend": 0.6}], ids=["alike", "weekends", "both"]
    )
    def test_what_days_always_do_alarms_until_it_is_learned_and_then_no_more(self, traffic):
        iid, learned = watched(28, learns=False, **traffic), watched(56, **traffic)

        assert len(alarms(iid)) > 5
        assert [one.history.n_days for one in learned[9:12]] == [0, 10, 11]
        assert alarms(learned[:9]) == alarms(iid[:9])
        assert alarms(learned[21:]) == []

    @pytest.mark.parametrize(
        "traffic", [{"alike": 100}, {"weekend": 0.6}, {"alike": 100, "weekend": 0.6}], ids=["alike", "weekends", "both"]
    )
    def test_a_new_version_knows_it_from_the_days_of_the_one_before(self, traffic):
        assert alarms(after_another(35, **traffic)) == []
        assert len(alarms(after_another(0, **traffic))) > 2

    def test_independent_rows_are_taken_as_they_are(self):
        history = watched(40)[-1].history

        assert history.n_days == 39
        assert (dict(history.weekdays), len(history.effects) <= 1) == ({}, True)

    def test_a_weekday_is_given_what_it_is_away_and_other_days_what_they_are(self):
        floors = watched(36, weekend=0.6)[-1].history.weekdays["x"]

        assert max(floors[:5]) < 0.11
        assert min(floors[5:]) > 0.14


class TestAlert:
    @pytest.mark.parametrize("traffic", [{"alike": 20}, {"weekend": 0.6}], ids=["alike", "weekends"])
    def test_a_shift_is_found_that_begins_when_days_are_known(self, traffic):
        shown = watched(50, moved=lambda number: 0.8 * (number >= 35), **traffic)

        assert 1 <= next(n for n in alarms(shown, "x") if n >= 21) - 34 <= 4
        assert alarms(shown, "y") == [n for n in alarms(shown, "y") if n < 21]

    def test_a_shift_that_lasts_alarms_for_as_long_as_it_lasts(self):
        shown = watched(110, moved=lambda number: 0.8 * (number >= 35))

        assert set(range(36, 110)) <= set(alarms(shown, "x"))
        assert shown[-1].history.effects.get("x", 1.0) < 5

    def test_a_shift_that_was_there_before_anything_was_known_is_not_learned_either(self):
        shown = watched(60, moved=lambda number: 0.5 * (number >= 5))

        assert set(range(6, 60)) <= set(alarms(shown, "x"))

    def test_a_slow_drift_does_not_teach_itself_away(self):
        shown = watched(90, moved=lambda number: 0.01 * max(number - 30, 0))

        assert alarms(shown, "x")[0] < 30 + 40
        assert alarms(shown, "x")[-1] == 89
        assert shown[-1].history.effects.get("x", 1.0) < 3

    def test_what_alarmed_teaches_nothing_once_the_days_are_known(self):
        shown = watched(SETTLED_DAYS + 5, moved=lambda number: 1.0 * (number in (4, SETTLED_DAYS + 2)))

        assert {4, SETTLED_DAYS + 2} <= set(alarms(shown, "x"))
        assert shown[4].shape.left_out == frozenset()
        assert shown[SETTLED_DAYS + 2].shape.left_out == {"x"}


class TestLearned:
    def test_fewer_days_teach_nothing(self):
        wild = shapes([0.2, 0.8] * MINIMUM_DAYS)

        assert learned_history(wild[: MINIMUM_DAYS - 1], X, {}) == History()
        assert learned_history(wild[:MINIMUM_DAYS], X, {}).effects["x"] > 100

    def test_days_with_few_rows_or_of_another_reference_teach_nothing(self):
        wild = shapes([0.2, 0.8] * MINIMUM_DAYS)
        few = [replace(one, n_rows={"x": 29}) for one in wild]
        other = [replace(one, shares={"x": (0.0,)}) for one in wild[:-1]] + wild[-1:]

        assert learned_history(few, X, {}).effects == {}
        assert learned_history(other, X, {}).effects == {}
        assert learned_history([replace(one, left_out=frozenset({"x"})) for one in wild], X, {}).effects == {}

    def test_what_the_training_data_taught_already_is_not_counted_again(self):
        wild = shapes([0.4, 0.6] * MINIMUM_DAYS)

        assert "x" in learned_history(wild, X, {"x": 0.1}).effects
        assert learned_history(wild, X, {"x": 0.25}).effects == {}

    def test_a_column_that_never_changes_teaches_nothing(self):
        assert learned_history(shapes([1.0] * 30), X, {}) == History(n_days=30)

    def test_one_day_that_is_off_and_a_level_that_changed_once_are_no_habit(self):
        rng = np.random.default_rng(3)
        still = rng.binomial(N_ROWS, 0.5, size=30) / N_ROWS
        off, step = still.copy(), still + 0.2 * (np.arange(30) >= 15)
        off[12] += 0.3

        assert learned_history(shapes(list(still)), X, {}).effects == {}
        assert learned_history(shapes(list(off)), X, {}).effects == {}
        assert learned_history(shapes(list(step)), X, {}).effects == {}
        assert learned_history(shapes(list(step)), X, {}).weekdays == {}

    def test_days_of_different_versions_are_not_held_against_one_another(self):
        rng, levels = np.random.default_rng(5), (0.2, 0.8)
        shares = [rng.binomial(N_ROWS, levels[n // 2 % 2]) / N_ROWS for n in range(40)]
        turns = [replace(one, version=str(n // 2 % 2)) for n, one in enumerate(shapes(shares))]

        assert learned_history(shapes(shares), X, {}).effects["x"] > 100
        assert learned_history(turns, X, {}) == History(n_days=40)

    def test_the_effect_is_no_smaller_than_it_is_in_19_of_20_histories(self):
        rng, n, effect = np.random.default_rng(4), 400, 9.0
        shares = np.clip(rng.normal(0.5, np.sqrt(0.25 * effect / N_ROWS), size=(n, 30)), 0, 1)
        found = [learned_history(shapes(list(one)), X, {}).effects.get("x", 1.0) for one in shares]

        assert np.mean(np.array(found) < effect) < 0.12  # the smaller of two such bounds is taken
        assert np.median(found) < 2.5 * effect

    def test_rows_count_as_the_fewer_that_they_are_worth_and_more_rows_than_usual_tell_no_more(self):
        history = History(n_days=20, effects={"x": 10.0}, usual_rows={"x": 1000})
        found = Distance(
            share=0.2, expected=0.03, n_rows=1000, n_reference=50_000, missing=0.0, missing_before=0.0, unseen=None
        )
        worth = history.judged({"x": found, "y": found})

        assert worth["y"] == found
        assert (worth["x"].n_rows, worth["x"].n_reference) == (100, 5000)
        assert worth["x"].expected == pytest.approx(0.03 * np.sqrt(10))
        assert history.judged({"x": replace(found, n_rows=20_000)})["x"].n_rows == 100

    def test_the_classifier_may_tell_days_from_the_last_reference_as_well_as_from_one_another(self):
        def days(auc: list[float]) -> list[DayShape]:
            tests = [ClassifierTest(auc=one, p_value=0.0, n_judged=500, n_reference=10_000) for one in auc]
            return [replace(of, apart=test) for of, test in zip(shapes([0.5] * 20), tests, strict=True)]

        assert learned_history(days([0.7] * 20), X, {}).together > 0.1
        assert learned_history(days([0.5] * 19 + [0.9]), X, {}).together == 0.0
        alarmed = [replace(one, left_out=frozenset({DOMAIN_CLASSIFIER})) for one in days([0.7] * 20)]
        assert learned_history(alarmed, X, {}).together == 0.0

    def test_a_floor_is_never_lower_than_it_was(self):
        history = History(n_days=20, weekdays={"x": (0.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.3)}, together=0.2)
        saturday, monday = date(2026, 1, 10), date(2026, 1, 5)

        assert history.floors({"x": 0.2, "y": 0.1}, saturday, smallest=0.02) == {
            "x": pytest.approx(0.32),
            "y": 0.1,
            DOMAIN_CLASSIFIER: 0.2,
        }
        assert history.floors({"x": 0.2}, monday, smallest=0.02)["x"] == 0.2


class TestShape:
    def test_numbers_are_missing_or_below_the_deciles_of_the_reference(self):
        reference = of_numbers(np.arange(1.0, 101.0))

        assert shape_of(reference, np.array([np.nan, np.inf, 10.0, 55.0])) == (
            *(0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 1.0, 1.0, 1.0, 1.0),
        )

    def test_texts_are_missing_the_most_frequent_ones_or_others(self):
        reference = of_texts(np.array(["a"] * 5 + ["b"] * 3, dtype=object))

        assert shape_of(reference, np.array([MISSING, "b", "new", "b"], dtype=object)) == (0.25, 0.0, 0.5, 0.25)

    def test_it_is_the_same_after_json(self):
        (one,) = shapes([0.25])
        told = replace(one, apart=ClassifierTest(auc=0.6, p_value=0.1, n_judged=10, n_reference=20))

        assert DayShape.from_json(json.loads(json.dumps(told.to_json())), "1") == told
        assert DayShape.from_json(one.to_json(), "1") == one
        with pytest.raises(ValueError, match="left_out"):
            DayShape.from_json({"day": "2026-01-05"}, "1")
