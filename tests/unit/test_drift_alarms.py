"""Alarms of drift: the promised budget of false ones, what is found and how soon, and what counts as no drift."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf, log

import numpy as np
import pytest
from scipy.integrate import quad

from release_platform.domain.alarms import Alarm, Budget, Detector, learned_floor, log_e, log_p, log_p_of_share
from release_platform.domain.distances import distance
from release_platform.domain.drift import Rows, watch, watch_all, with_floors
from release_platform.domain.reference import Reference, of_numbers, of_texts, summarised

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
N_ROWS = 300


def day(rng: np.random.Generator, number: int = 0, *, shift: float = 0.0, missing: float = 0.0) -> Rows:
    shared = rng.normal(size=N_ROWS)
    columns = {
        "amount": shared + shift,
        "age": np.where(rng.random(N_ROWS) < missing, np.nan, 0.7 * shared + rng.normal(size=N_ROWS)),
        "items": rng.poisson(2, size=N_ROWS).astype(float),
        "city": np.array(["a", "b", "c", "d"], dtype=object)[np.minimum(rng.geometric(0.5, size=N_ROWS), 4) - 1],
    }
    begins = BEGIN + timedelta(days=number)
    return Rows(begins=begins, ends=begins + timedelta(days=1), columns=columns)


def reference_of(days: list[Rows]) -> Reference:
    columns = {name: summarised(np.concatenate([one.columns[name] for one in days])) for name in days[0].columns}
    floors = with_floors(columns, [one.columns for one in days])
    return Reference(model="m", version="1", columns=columns, outputs={}, floors=floors, n_windows=len(days))


@pytest.fixture(scope="module")
def reference() -> Reference:
    rng = np.random.default_rng(1)
    return reference_of([day(rng) for _ in range(60)])


def detector(reference: Reference, **budget: float) -> Detector:
    return Detector.of(list(reference.every), Budget(**budget))


def test_an_e_value_of_a_uniform_p_value_is_one_on_average():
    mean, _ = quad(lambda log_of_p: np.exp(log_e(log_of_p) + log_of_p), -np.inf, -1e-3, limit=500)

    assert 0.98 < mean + np.exp(log_e(0.0)) * 1e-3 <= 1.0 + 1e-3


def test_more_evidence_never_counts_less():
    found = [log_e(-x) for x in np.concatenate(([0.0], np.logspace(-6, 3, 200)))]

    assert found[0] == log(0.5)
    assert all(one <= other + 1e-6 for one, other in pairwise(found))


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_the_p_value_is_small_no_more_often_than_it_says(kind):
    rng = np.random.default_rng(2)
    if kind == "numbers":
        whole, draw = of_numbers(rng.normal(size=100_000)), lambda: rng.normal(size=80)
    else:
        names = np.array(list("abcdefgh"), dtype=object)
        whole, draw = of_texts(names[rng.integers(8, size=100_000)]), lambda: names[rng.integers(8, size=80)]
    found = np.array([log_p(distance(whole, draw()), 0.0) for _ in range(800)])

    for level in (0.2, 0.05, 0.01):
        assert (found <= log(level)).mean() <= level + 3 * np.sqrt(level / 800)


def test_small_shares_are_judged_by_how_small_they_are():
    few = {"n_rows": 1000, "n_reference": 100_000}

    assert log_p_of_share(0.03, 0.01, 0.02, **few) > log(0.5)
    assert log_p_of_share(0.06, 0.01, 0.02, **few) < log(1e-3)
    assert log_p_of_share(0.0, 0.1, 0.02, **few) < log(1e-9)
    assert log_p_of_share(1.0, 0.0, 1.0, **few) == 0.0
    rng = np.random.default_rng(12)
    found = np.array([log_p_of_share(x / 1000, 0.01, 0.0, **few) for x in rng.binomial(1000, 0.01, size=4000)])
    for level in (0.2, 0.05, 0.01):
        assert (found <= log(level)).mean() <= level


def test_without_drift_alarms_keep_far_within_the_budget(reference):
    rng = np.random.default_rng(3)
    _, shown = watch_all(reference, detector(reference, per_month=1.0), [day(rng, i) for i in range(200)])

    alarms = sum(one.alarm is not None for one in shown)
    assert alarms <= 200 / 30
    naive = sum(min(found.p_value for found in one.found.values()) < 0.05 for one in shown)
    assert naive > 20  # what p < 0.05 by column would have told


def test_a_budget_can_be_spent_to_see_more(reference):
    steps = []
    for per_month in (0.01, 1.0, 20.0):
        rng, watching, n = np.random.default_rng(4), detector(reference, per_month=per_month), 0
        alarm = None
        while alarm is None and n < 90:
            watching, shown = watch(reference, watching, day(rng, n, shift=0.22))
            alarm, n = shown.alarm, n + 1
        assert alarm == Alarm(columns=("amount",))
        steps.append(n)

    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


@pytest.mark.parametrize(("shift", "missing", "column"), [(0.8, 0.0, "amount"), (0.0, 0.1, "age")])
def test_a_large_change_is_told_on_its_first_day_and_names_its_column(reference, shift, missing, column):
    rng = np.random.default_rng(5)
    _, shown = watch(reference, detector(reference), day(rng, shift=shift, missing=missing))

    assert shown.alarm == Alarm(columns=(column,))


def test_a_category_that_nobody_knew_is_told(reference):
    rows = day(np.random.default_rng(6))
    city = np.where(np.random.default_rng(6).random(N_ROWS) < 0.3, "new", rows.columns["city"]).astype(object)
    _, shown = watch(reference, detector(reference), replace(rows, columns={**rows.columns, "city": city}))

    assert shown.alarm == Alarm(columns=("city",))
    assert shown.found["city"].distance.unseen > 0.2


def test_a_difference_that_does_not_matter_alarms_never_however_many_rows_show_it(reference):
    rng = np.random.default_rng(7)
    watching = detector(reference, smallest=0.05)
    for _ in range(30):
        many = {"amount": rng.normal(0.05, size=100_000)}  # 2 % of the rows
        watching, shown = watch(reference, watching, Rows(begins=BEGIN, ends=BEGIN, columns=many))
        assert shown.alarm is None


def test_what_history_always_did_is_no_drift():
    rng = np.random.default_rng(8)
    levels = rng.normal(0, 0.5, size=250)  # each day has a level of its own
    reference = reference_of([day(rng, shift=level) for level in levels[:90]])
    _, shown = watch_all(reference, detector(reference), [day(rng, i, shift=x) for i, x in enumerate(levels[90:])])

    assert reference.floors["amount"] > 0.2
    assert reference.floors["items"] < 0.02
    assert sum(one.alarm is not None for one in shown) <= 160 / 30


def test_a_short_history_teaches_nothing():
    far = distance(of_numbers(np.zeros(100)), np.ones(50))

    assert learned_floor([far] * 9) == 0.0
    assert learned_floor([far] * 10) > 0.5


def test_the_whole_of_a_reference_as_its_own_window_teaches_nothing():
    values = {"amount": np.arange(50.0)}

    assert with_floors({"amount": of_numbers(values["amount"])}, [values] * 12) == {"amount": 0.0}


def test_missing_columns_and_other_kinds_are_told_as_they_are(reference):
    rows = day(np.random.default_rng(9))
    columns = {name: values for name, values in rows.columns.items() if name != "age"}
    columns["items"] = np.array(["two"] * N_ROWS, dtype=object)
    after, shown = watch(reference, detector(reference), replace(rows, columns=columns))

    assert shown.schema == ("the column 'age' is missing", "the column 'items' held numbers and now holds text")
    assert shown.drifted
    assert after.evidence["age"] == -inf


def test_a_window_without_rows_shows_nothing_and_changes_nothing(reference):
    before = detector(reference)
    after, shown = watch(reference, before, Rows(begins=BEGIN, ends=BEGIN, columns={}))

    assert after == before
    assert (shown.n_rows, shown.found, shown.drifted) == (0, {}, False)


def test_columns_that_drift_together_need_less_evidence_each():
    budget = Budget(per_month=1.0)
    columns = [f"c{i}" for i in range(10)]
    needed_alone, needed_together = log(10 * 30), log(30)
    still = distance(of_numbers(np.arange(100.0)), np.arange(100.0))

    def look(evidence: dict[str, float]) -> Alarm | None:
        return Detector(budget=budget, evidence=evidence).look({"c0": still}, {})[1]

    assert look(dict.fromkeys(columns, needed_together + 0.01) | {"c0": -inf}) is None
    assert look(dict.fromkeys(columns[1:], needed_together + 0.2) | {"c0": -inf}) is not None
    assert look(dict.fromkeys(columns, -inf) | {"c1": needed_alone - 0.01}) is None
    assert look(dict.fromkeys(columns, -inf) | {"c1": needed_alone + 0.01}) == Alarm(columns=("c1",))


def test_who_alarmed_begins_again_and_the_others_keep_what_they_have(reference):
    rng = np.random.default_rng(10)
    after, shown = watch(reference, detector(reference), day(rng, shift=1.0))

    assert shown.alarm == Alarm(columns=("amount",))
    assert after.evidence["amount"] == -inf
    assert after.evidence["items"] > -inf


def test_a_detector_goes_on_after_json(reference):
    rng = np.random.default_rng(11)
    seen, _ = watch_all(reference, detector(reference), [day(rng, i, shift=0.1) for i in range(3)])
    kept = Detector.from_json(json.loads(json.dumps(seen.to_json())), list(reference.every), seen.budget)

    assert kept == seen
    wider = Detector.from_json(seen.to_json(), [*reference.every, "fresh"], seen.budget)
    assert wider.evidence["fresh"] == -inf


@pytest.mark.parametrize(
    "wrong", [{"per_month": 0.0}, {"per_month": float("nan")}, {"windows_per_month": 0.5}, {"smallest": 1.0}]
)
def test_a_budget_that_promises_nothing_is_refused(wrong):
    with pytest.raises(ValueError):
        Budget(**wrong)
