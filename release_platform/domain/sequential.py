"""Evidence that may be looked at at any time: is one share larger than another by more than a margin?

Each window gives a 2 x 2 table: of `n_c` requests of the candidate `k_c` are bad, of `n_s` of the stable version `k_s`.
For an alternative `(a, b)` of the two shares, chosen from earlier windows only, and its projection `(a0, b0)` on the
null hypothesis, the one that minimises `n_c KL(a, a0) + n_s KL(b, b0)`, the likelihood ratio of the window is an
e-variable: whatever shares of the null are true in it, its expectation is at most 1. For with `A` and `B` the
expectation of one request's ratio, minimality gives `n_c A + n_s B <= n_c + n_s` for every point of a convex null, and
the mean inequality then `A**n_c B**n_s <= 1`. Requests of one window need not be alike, only independent.

The product over windows, averaged over a few alternatives, so is an e-process: the probability that it ever reaches
`1 / p` is at most `p` (Ville). The shares may change from window to window in any way; only requests of the same minute
are ever compared.

Sources: Turner, Ly, Grünwald, Generic E-variables for exact sequential k-sample tests, J. Stat. Plan. Inference 2024;
Turner, Grünwald, Safe sequential testing and effect estimation in stratified count data, AISTATS 2023; Howard, Ramdas,
McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Ann. Statist. 2021; Waudby-Smith,
Ramdas, Estimating means of bounded random variables by betting, JRSS B 2024. Lindon, Sanden, Shirikian (KDD 2022) and
Johari, Koomen, Pekelis, Walsh (Oper. Res. 2022) judge releases and A/B tests in the same always-valid way.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

WORSE_BY = (1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0)
"""Differences that the evidence of a failure looks for, in margins, but no further than halfway from it to 1."""
FINE_AT = (0.5, 0.0, -1.0)
"""Differences that the evidence of harmlessness looks for, in margins."""
FINE_PAIRS_AT = (0.5, 0.25, 0.05)
"""The same for pairs, which cannot differ less than never."""
_MOST = 1 - 1e-4


def evidence_worse(tables: Counts, margin: float) -> Floats:
    """Returns the logarithm of the evidence that a share is larger by more than `margin`, after each window.

    Args:
        tables: Shape (..., windows, 4): n_c, k_c, n_s, k_s of each window, in time order; a window without one of the
            arms says nothing. Or shape (..., windows, 2): pairs, and how many of them differ.
        margin: Above 0 and below 1.
    """
    differences = np.minimum(np.array(WORSE_BY) * margin, (1 + margin) / 2)
    if _are_pairs(tables):
        return _mixed(_pair_steps(tables, differences, margin))
    stable = np.minimum(_known_share(tables), _MOST - differences)
    return _mixed(_arm_steps(tables, stable + differences, stable, margin))


def evidence_fine(tables: Counts, margin: float) -> Floats:
    """Returns the same of the evidence that a share is larger by less than `margin`, or not larger at all."""
    if _are_pairs(tables):
        return _mixed(_pair_steps(tables, np.array(FINE_PAIRS_AT) * margin, margin))
    stable = _known_share(tables)
    candidate = np.clip(stable + np.array(FINE_AT) * margin, stable / 4, _MOST)
    return _mixed(_arm_steps(tables, candidate, stable, margin))


def growth_if_fine(share: float, stable_for_each: float | None, margin: float) -> float:
    """Returns what one more request of the candidate adds to the evidence of harmlessness if all is well.

    Args:
        share: The share of both arms; of pairs the share that differs. Above 0 and below 1.
        stable_for_each: Requests of the stable version for each of the candidate; None for pairs.
        margin: The margin.
    """
    a = np.array(share)
    if stable_for_each is None:
        return float(_divergence(a, np.array(margin)))
    at_c, at_s = _projected(a, a, np.array(1.0), np.array(stable_for_each), margin)
    return float(_divergence(a, at_c) + stable_for_each * _divergence(a, at_s))


def _are_pairs(tables: Counts) -> bool:
    return bool(tables.shape[-1] == 2)


def _known_share(tables: Counts) -> Floats:
    """Returns the stable version's share as it is known before each window, shape (..., windows, 1)."""
    n, k = tables[..., 2], tables[..., 3]
    before_n, before_k = np.cumsum(n, axis=-1) - n, np.cumsum(k, axis=-1) - k
    return np.asarray((before_k + 0.5) / (before_n + 1.0))[..., None]


def _arm_steps(tables: Counts, candidate: Floats, stable: Floats, margin: float) -> Floats:
    """Returns the logarithm of each window's likelihood ratio, for each alternative on the last axis."""
    n_c, k_c, n_s, k_s = np.moveaxis(tables[..., None, :], -1, 0).astype(float)
    speaks = (n_c > 0) & (n_s > 0) & (np.cumsum(n_s, axis=-2) > n_s)  # the first window only tells what is usual
    at_c, at_s = _projected(candidate, stable, np.maximum(n_c, 1.0), np.maximum(n_s, 1.0), margin)
    steps = _ratio(k_c, n_c, candidate, at_c) + _ratio(k_s, n_s, stable, at_s)
    return np.where(speaks, steps, 0.0)


def _pair_steps(tables: Counts, shares: Floats, margin: float) -> Floats:
    n, k = np.moveaxis(tables[..., None, :], -1, 0).astype(float)
    return _ratio(k, n, shares, np.array(margin))


def _projected(a: Floats, b: Floats, n_c: Floats, n_s: Floats, margin: float) -> tuple[Floats, Floats]:
    """Returns the point with a difference of `margin` that is nearest to (a, b): n_c KL(a, .) + n_s KL(b, .).

    It solves a cubic equation (Farrington, Manning, Stat. Med. 1990); two steps of Newton's take off the rounding.
    """
    each = n_s / n_c
    cubic, square = 1 + each, -(1 + each + a + each * b + margin * (each + 2))
    linear = margin * (margin + 2 * a + each + 1) + a + each * b
    third = square / (3 * cubic)
    v = third**3 - third * linear / (2 * cubic) - a * margin * (1 + margin) / (2 * cubic)
    u = np.copysign(np.sqrt(np.maximum(third**2 - linear / (3 * cubic), 1e-300)), v)
    s = 2 * u * np.cos((np.pi + np.arccos(np.clip(v / u**3, -1, 1))) / 3) - third - margin
    s = np.clip(s, 1e-12, 1 - margin - 1e-12)
    for _ in range(2):
        c = s + margin
        slope = n_c * (a / c - (1 - a) / (1 - c)) + n_s * (b / s - (1 - b) / (1 - s))
        bend = n_c * (a / c**2 + (1 - a) / (1 - c) ** 2) + n_s * (b / s**2 + (1 - b) / (1 - s) ** 2)
        s = np.clip(s + slope / bend, s / 2, (s + 1 - margin) / 2)
    return s + margin, s


def _ratio(k: Floats, n: Floats, share: Floats, null: Floats) -> Floats:
    return np.asarray(k * np.log(share / null) + (n - k) * np.log((1 - share) / (1 - null)))


def _divergence(share: Floats, null: Floats) -> Floats:
    return _ratio(share, np.array(1.0), share, null)


def _mixed(steps: Floats) -> Floats:
    """Returns the logarithm of the average over the alternatives of the running product."""
    running = np.cumsum(steps, axis=-2)
    return np.asarray(np.logaddexp.reduce(running, axis=-1) - np.log(running.shape[-1]))
