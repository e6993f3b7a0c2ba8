"""Distances of a window from a reference: the known measures, and the share of rows that alarms judge."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from release_platform.domain.distances import difference, psi, total_variation
from release_platform.domain.features import MISSING
from release_platform.domain.reference import of_numbers, of_texts

RNG = np.random.default_rng(7)


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def test_the_distance_of_numbers_is_that_of_kolmogorov_and_smirnov():
    before, now = np.round(RNG.normal(size=3000), 2), np.round(RNG.normal(0.2, size=400), 2)
    found, known = difference(of_numbers(before), now), ks_2samp(before, now, method="asymp")

    assert found.distance.share == pytest.approx(known.statistic, abs=1e-12)
    assert np.log(found.p_value) == pytest.approx(np.log(known.pvalue), rel=0.05)
    assert found.wasserstein == pytest.approx(wasserstein_distance(before, now) / before.std(), rel=1e-9)


def test_against_a_thinned_sketch_it_is_at_most_the_true_one_and_hardly_less():
    before, now = RNG.normal(size=40_000), RNG.normal(0.1, size=5000)
    found, known = difference(of_numbers(before), now), ks_2samp(before, now).statistic

    assert known - 0.003 <= found.distance.share <= known


@pytest.mark.parametrize("now", [4.0, 6.0])
def test_a_constant_that_becomes_another_is_away_with_all_its_rows(now):
    assert difference(of_numbers(np.full(100, 5.0)), np.full(10, now)).distance.share == 1.0


def test_missing_numbers_count_as_a_value_of_their_own():
    now = np.where(np.arange(1000) < 100, np.nan, RNG.normal(size=1000))
    found = difference(of_numbers(RNG.normal(size=50_000)), now)

    assert found.distance.share >= 0.1
    assert (found.distance.missing, found.distance.missing_before) == (pytest.approx(0.1), 0.0)
    assert found.psi > 0.5


def test_a_column_that_became_all_missing_is_as_far_away_as_can_be():
    found = difference(of_numbers(RNG.normal(size=100)), np.full(20, np.nan))

    assert found.distance.share == 1.0
    assert found.wasserstein is None


def test_the_distance_of_texts_is_the_total_variation_with_rare_ones_together():
    before = of_texts(texts(*["a"] * 600, *["b"] * 398, "c", "d"))
    found = difference(before, texts(*["a"] * 50, *["b"] * 40, *["e"] * 10))

    assert found.distance.share == pytest.approx(
        total_variation(np.array([0.6, 0.398, 0.002]), np.array([0.5, 0.4, 0.1]))
    )
    assert found.distance.unseen == pytest.approx(0.1)
    assert found.distance.expected == pytest.approx(sum(np.sqrt(p * (1 - p) / 100) for p in (0.6, 0.398, 0.002)) / 2)


def test_the_p_value_of_texts_is_pearsons():
    before, now = texts(*["a"] * 300, *["b"] * 700), texts(*["a"] * 45, *["b"] * 55)

    found = difference(of_texts(before), now).p_value

    assert found == pytest.approx(chi2_contingency([[300, 700], [45, 55]], correction=False).pvalue)


def test_missing_texts_are_a_category_and_no_unseen_one():
    found = difference(of_texts(texts(*["a"] * 100)), texts(*["a"] * 80, *[MISSING] * 20))

    assert (found.distance.share, found.distance.missing, found.distance.unseen) == (pytest.approx(0.2), 0.2, 0.0)


def test_psi_of_the_same_shares_is_nothing_and_bounded_where_one_is_empty():
    same = np.array([0.5, 0.5])

    assert psi(same, same) == 0.0
    assert 0 < psi(same, np.array([1.0, 0.0])) < 10


def test_the_same_rows_show_no_difference():
    values = RNG.normal(size=5000)
    found = difference(of_numbers(values), values)

    assert (found.distance.share, found.psi, found.jensen_shannon) == (0.0, 0.0, 0.0)
    assert found.p_value == 1.0


def test_without_rows_or_of_another_kind_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="at least one row"):
        difference(of_numbers(np.zeros(3)), np.array([]))
    with pytest.raises(ValueError, match="at least one row"):
        difference(of_numbers(np.array([])), np.zeros(3))
    with pytest.raises(ValueError, match="numbers"):
        difference(of_numbers(np.zeros(3)), texts("a"))
    with pytest.raises(ValueError, match="texts"):
        difference(of_texts(texts("a")), np.zeros(3))
