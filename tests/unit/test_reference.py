"""Summaries of columns: exact where they say so, bounded, mergeable, and the same after JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.features import MISSING
from release_platform.domain.reference import (
    CATEGORIES,
    POINTS,
    Categories,
    Numbers,
    Reference,
    merged,
    of_numbers,
    of_texts,
    summarised,
    summary_from,
    summary_json,
)


def share_at_or_below(sketch: Numbers, value: float) -> float:
    return float(np.array(sketch.counts)[np.array(sketch.values) <= value].sum()) / sketch.n_present


def test_few_different_values_are_kept_exactly_with_what_is_missing():
    found = of_numbers(np.array([3.0, 1.0, 3.0, np.nan, np.inf]))

    assert found == Numbers(values=(1.0, 3.0), counts=(1, 2), missing=2)


def test_many_values_are_thinned_to_a_bounded_sketch_that_is_exact_at_its_points():
    values = np.random.default_rng(1).lognormal(size=50_000)
    found = of_numbers(values)

    assert len(found.values) <= POINTS
    assert found.values[0] == values.min()
    assert found.values[-1] == values.max()
    assert 0 < found.rank_error <= 1 / (POINTS - 1) + 1 / len(values)
    for place in (0, 10, 500, -1):
        point = found.values[place]
        assert share_at_or_below(found, point) == pytest.approx((values <= point).mean(), abs=1e-12)


def test_a_value_that_stands_often_keeps_its_weight():
    values = np.concatenate([np.zeros(40_000), np.random.default_rng(2).normal(size=60_000)])
    found = of_numbers(values)

    assert share_at_or_below(found, 0.0) == (values <= 0).mean()
    assert found.rank_error < 0.002


@settings(max_examples=50)
@given(st.lists(st.integers(-50, 50), max_size=80), st.lists(st.integers(-50, 50), max_size=80))
def test_merging_exact_sketches_is_the_sketch_of_all_rows(one, other):
    apart = of_numbers(np.array(one, dtype=float)).merge(of_numbers(np.array(other, dtype=float)))

    assert apart == of_numbers(np.array([*one, *other], dtype=float))


def test_merged_sketches_stay_within_the_error_that_they_state():
    rng = np.random.default_rng(3)
    parts = [rng.normal(shift, size=20_000) for shift in (0.0, 0.5, 3.0)]
    found = of_numbers(parts[0])
    for part in parts[1:]:
        found = found.merge(of_numbers(part))
    every = np.concatenate(parts)

    assert found.n_rows == len(every)
    assert found.point_error < 0.003
    for value in np.linspace(-3, 6, 40):
        assert abs(share_at_or_below(found, value) - (every <= value).mean()) <= found.rank_error


def test_a_column_without_a_value_has_nothing_but_missing_rows():
    found = of_numbers(np.array([np.nan, np.nan]))

    assert (found.n_present, found.n_rows) == (0, 2)
    assert np.isnan(found.spread)
    assert np.isnan(found.quantiles(np.array([0.5]))).all()


def test_texts_are_counted_and_the_rarest_put_together():
    names = [f"n{i}" for i in range(CATEGORIES + 5)]
    column = np.array([*names, *names[:CATEGORIES], MISSING, MISSING], dtype=object)
    found = of_texts(column)

    assert len(found.counts) == CATEGORIES
    assert (found.other, found.missing) == (5, 2)
    assert found.n_rows == len(column)


def test_texts_add_up():
    one, other = of_texts(np.array(["a", "b"], dtype=object)), of_texts(np.array(["b", MISSING], dtype=object))

    assert merged(one, other) == Categories(counts={"b": 2, "a": 1}, missing=1)


def test_numbers_and_texts_do_not_add_up():
    with pytest.raises(ValueError, match="do not add up"):
        merged(of_numbers(np.zeros(2)), of_texts(np.array(["a"], dtype=object)))


def test_a_reference_comes_back_from_json_as_it_was():
    reference = Reference(
        model="churn",
        version="3",
        columns={
            "age": summarised(np.random.default_rng(4).normal(size=5000)),
            "city": summarised(np.array(["x", MISSING], dtype=object)),
        },
        outputs={"score": summarised(np.array([0.5]))},
        floors={"age": 0.03},
        n_windows=12,
    )

    assert Reference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": [1.0], "counts": [1], "missing": 0},
        {"values": [2.0, 1.0], "counts": [1, 1], "missing": 0, "point_error": 0.0, "rank_error": 0.0},
        {"values": [1.0], "counts": [0], "missing": 0, "point_error": 0.0, "rank_error": 0.0},
        {"counts": {"a": 1}, "other": -1, "missing": 0},
        {"counts": {"a": 0}, "other": 0, "missing": 0},
        None,
    ],
)
def test_what_is_no_summary_is_refused(wrong):
    with pytest.raises(ValueError):
        summary_from(wrong)


def test_a_summary_is_plain_json():
    assert json.loads(json.dumps(summary_json(of_numbers(np.array([1.0, np.nan]))))) == {
        "values": [1.0],
        "counts": [1],
        "missing": 1,
        "point_error": 0.0,
        "rank_error": 0.0,
    }


def test_a_reference_of_another_format_is_not_read():
    value = Reference(model="m", version="1", columns={}, outputs={}, floors={}).to_json()

    with pytest.raises(ValueError, match="format 9"):
        Reference.from_json({**value, "format": 9})
