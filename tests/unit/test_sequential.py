"""The evidence: an e-variable on every null, the same however often one looks, and decisive where it should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from release_platform.domain.sequential import Counts, evidence_fine, evidence_worse, growth_if_fine

SHARE = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)


def log_chance(n: int, share: float) -> np.ndarray:  # type: ignore[type-arg]
    """Returns the logarithms of the probabilities of 0 to n."""
    with np.errstate(divide="ignore"):
        return np.log(binom.pmf(np.arange(n + 1), n, share))


def expected(evidence: Counts, n_c: int, n_s: int, share_c: float, share_s: float) -> float:
    """Returns the expectation of exp(evidence), shape (n_c + 1, n_s + 1), when these shares are true."""
    chances = log_chance(n_c, share_c)[:, None] + log_chance(n_s, share_s)
    return float(np.exp(chances + evidence).sum())


def every_second_window(n_c: int, n_s: int, past: tuple[int, int]) -> Counts:
    """Returns tables of two windows: a past, then every possible count of the second."""
    k_c, k_s = np.meshgrid(np.arange(n_c + 1), np.arange(n_s + 1), indexing="ij")
    second = np.stack([np.full_like(k_c, n_c), k_c, np.full_like(k_c, n_s), k_s], axis=-1)
    first = np.broadcast_to(np.array([5, 0, *past]), second.shape)
    return np.stack([first, second], axis=-2)


@settings(max_examples=150)
@given(
    n_c=st.integers(1, 12), n_s=st.integers(1, 30), past=st.sampled_from([(10, 0), (40, 3), (900, 900)]),
    margin=st.sampled_from([0.005, 0.05, 0.3, 0.9]), share_s=SHARE, beyond=SHARE,
)  # fmt: skip
def test_the_expectation_is_at_most_one_wherever_the_null_is_true(
    n_c: int, n_s: int, past: tuple[int, int], margin: float, share_s: float, beyond: float
) -> None:
    tables = every_second_window(n_c, n_s, past)
    no_worse = min(share_s + margin, 1.0) * beyond
    assert expected(evidence_worse(tables, margin)[..., -1], n_c, n_s, no_worse, share_s) <= 1 + 1e-9
    stable = share_s * (1 - margin)
    no_better = stable + margin + (1 - stable - margin) * beyond
    assert expected(evidence_fine(tables, margin)[..., -1], n_c, n_s, min(no_better, 1.0), stable) <= 1 + 1e-9


@given(st.integers(1, 200), st.sampled_from([0.01, 0.3, 0.9]), SHARE)
def test_pairs_are_held_to_the_margin_itself(n: int, margin: float, part: float) -> None:
    k = np.arange(n + 1)
    tables = np.stack([np.full_like(k, n), k], axis=-1)[:, None, :]
    below, above = margin * part, margin + (1 - margin) * part
    assert np.exp(log_chance(n, below) + evidence_worse(tables, margin)[:, 0]).sum() <= 1 + 1e-9
    assert np.exp(log_chance(n, above) + evidence_fine(tables, margin)[:, 0]).sum() <= 1 + 1e-9


def random_tables(seed: int, *, n: int, share_c: float, share_s: float, streams: int, windows: int = 40) -> Counts:
    random = np.random.default_rng(seed)
    n_c, n_s = (random.poisson(mean, size=(streams, windows)) for mean in (n * 0.25, n * 0.75))
    return np.stack([n_c, random.binomial(n_c, share_c), n_s, random.binomial(n_s, share_s)], axis=-1)


@pytest.mark.parametrize("evidence", [evidence_worse, evidence_fine])
def test_what_was_found_at_one_look_does_not_depend_on_later_windows(evidence: object) -> None:
    assert callable(evidence)
    tables = random_tables(1, n=100, share_c=0.2, share_s=0.1, streams=3)
    whole = evidence(tables, 0.05)
    for until in (1, 2, 17, 40):
        np.testing.assert_allclose(evidence(tables[:, :until], 0.05), whole[:, :until], rtol=1e-9)


@pytest.mark.parametrize("evidence", [evidence_worse, evidence_fine])
def test_windows_without_an_arm_say_nothing(evidence: object) -> None:
    assert callable(evidence)
    tables = random_tables(2, n=100, share_c=0.2, share_s=0.1, streams=1)
    holed = np.insert(tables, [5, 9], [[50, 50, 0, 0], [0, 0, 0, 0]], axis=1)
    assert evidence(holed, 0.05)[0, -1] == pytest.approx(evidence(tables, 0.05)[0, -1], rel=1e-9)
    assert evidence(np.zeros((1, 7, 4), dtype=np.int64), 0.05) == pytest.approx(np.zeros((1, 7)), abs=1e-12)


def reached(evidence: np.ndarray, level: float) -> float:  # type: ignore[type-arg]
    return float((evidence.max(axis=-1) >= np.log(1 / level)).mean())


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_at_the_margin_itself_both_errors_stay_within_their_level(share: float) -> None:
    tables = random_tables(3, n=400, share_c=share + 0.05, share_s=share, streams=400)
    assert reached(evidence_worse(tables, 0.05), 0.05) <= 0.05
    assert reached(evidence_fine(tables, 0.05), 0.05) <= 0.05


def test_alike_arms_are_found_fine_and_a_threefold_margin_is_found_worse() -> None:
    alike = random_tables(4, n=400, share_c=0.1, share_s=0.1, streams=100)
    assert (reached(evidence_fine(alike, 0.05), 0.05), reached(evidence_worse(alike, 0.05), 0.001)) == (1.0, 0.0)
    worse = random_tables(5, n=400, share_c=0.25, share_s=0.1, streams=100)
    assert (reached(evidence_fine(worse, 0.05), 0.05), reached(evidence_worse(worse, 0.05), 0.001)) == (0.0, 1.0)


def test_shares_that_change_together_are_no_evidence_against_the_candidate() -> None:
    random = np.random.default_rng(6)
    n_c, n_s = random.poisson(100, size=(200, 60)), random.poisson(300, size=(200, 60))
    share = np.where(np.arange(60) < 30, 0.02, 0.6)  # an outage of something behind both
    tables = np.stack([n_c, random.binomial(n_c, share), n_s, random.binomial(n_s, share)], axis=-1)
    assert reached(evidence_worse(tables, 0.05), 0.01) == 0.0


def test_no_failure_at_all_is_enough_after_enough_requests() -> None:
    tables = np.broadcast_to(np.array([100, 0, 900, 0]), (1, 20, 4))
    evidence = evidence_fine(tables, 0.01)[0]
    needed = int((evidence >= np.log(20)).argmax()) * 100
    assert 300 <= needed <= 600


@pytest.mark.parametrize(("share", "ratio"), [(0.01, 3.0), (0.3, 3.0), (0.3, 19.0)])
def test_the_growth_foretells_the_evidence(share: float, ratio: float) -> None:
    random = np.random.default_rng(7)
    n_c = np.full((200, 100), 50)
    n_s = np.full((200, 100), int(50 * ratio))
    tables = np.stack([n_c, random.binomial(n_c, share), n_s, random.binomial(n_s, share)], axis=-1)
    found = float(np.mean(evidence_fine(tables, 0.05)[:, -1])) / 5000
    assert growth_if_fine(share, ratio, 0.05) == pytest.approx(found, rel=0.35)
