"""The share that a canary gets is the one that was asked for, and a key stays where it is."""

import json
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from serving.models import Beside
from serving.routing import key_in, place_of, takes

KEYS = [f"customer-{n}".encode() for n in range(20_000)]
SHARES = st.floats(0, 1)


def canary(weight: float, model: str = "cancer") -> Beside:
    return Beside(loaded=cast(Any, SimpleNamespace(model=model)), weight=weight)


def within_bound(n_taken: int, n_asked: int, share: float) -> bool:
    """Whether a count lies within the 99.9 % interval of a binomial with this share."""
    lowest, highest = binom.interval(0.999, n_asked, share)
    return bool(lowest <= n_taken <= highest)


def test_the_place_of_a_key_is_the_documented_one() -> None:
    # printf 'cancer\0customer-1' | sha256sum | cut -c -14, its last 3 bits cut off, over 2**53
    assert place_of("cancer", b"customer-1") == (0x616EC91973B1E6 >> 3) / 2**53


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.99])
def test_the_share_of_the_keys_is_what_was_asked(share: float) -> None:
    taken = sum(takes(canary(share), key) for key in KEYS)
    assert within_bound(taken, len(KEYS), share)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_requests_without_a_key_are_drawn_with_the_share_that_was_asked(share: float) -> None:
    random.seed(6)
    assert within_bound(sum(takes(canary(share), None) for _ in KEYS), len(KEYS), share)


@pytest.mark.parametrize(("share", "taken"), [(0.0, {False}), (1.0, {True})])
def test_nothing_is_nobody_and_everything_is_everybody(share: float, taken: set[bool]) -> None:
    assert {takes(canary(share), key) for key in (*KEYS[:1000], None, b"\xff\x00")} == taken


@given(key=st.binary(min_size=1, max_size=64), share=SHARES)
def test_a_key_is_where_its_place_is_at_each_request(key: bytes, share: float) -> None:
    for _ in range(3):
        assert takes(canary(share), key) is (place_of("cancer", key) < share)


@given(key=st.binary(min_size=1, max_size=64), lower=SHARES, higher=SHARES)
def test_a_higher_weight_moves_nobody_back(key: bytes, lower: float, higher: float) -> None:
    lower, higher = sorted((lower, higher))
    assert takes(canary(lower), key) <= takes(canary(higher), key)
    assert 0 <= place_of("cancer", key) < 1


def test_who_is_first_for_one_model_is_not_for_another() -> None:
    first = [key for key in KEYS if takes(canary(0.1), key)]
    assert within_bound(sum(takes(canary(0.1, "other"), key) for key in first), len(first), 0.1)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"rows": [], "route_key": "a:ü"}, "a:ü"),
        ({"rows": [], "route_key": ""}, None),
        ({"rows": [], "route_key": 7}, None),
        ({"rows": [{"route_key": "k"}]}, None),
        (["route_key"], None),
    ],
)
def test_the_key_is_found_beside_the_rows(body: Any, found: str) -> None:
    wanted = None if found is None else found.encode()
    assert key_in(json.dumps(body, ensure_ascii=False).encode()) == wanted


def test_what_is_no_json_has_no_key() -> None:
    assert key_in(b'{"route_key": "k"') is None
    assert key_in(b"") is None
