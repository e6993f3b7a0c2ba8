"""Windows add up in any order and grouping, and are read back exactly as they were written or not at all."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan, nextafter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_platform.domain.windows import (
    EVERY_SLICE,
    LABEL,
    Route,
    Window,
    WindowKey,
    find_flip,
    merged,
    number_bucket,
    number_of,
    share_bucket,
)

KEY = WindowKey(model="churn", version="7", route=Route.SHADOW, minute=29_000_000)


def counts_of(random: Random, keys: Sequence[Any], most: int = 3) -> dict[Any, int]:
    return {key: random.randint(1, 10**12) for key in random.sample(keys, random.randint(0, most))}


def window_of(seed: int, key: WindowKey = KEY) -> Window:
    random, kinds, buckets = Random(seed), ["timeout", "not_finite", "model_failed"], range(-641, 642)
    errors, latency, predictions = (counts_of(random, keys) for keys in (kinds, buckets, buckets))
    flips = {name: counts_of(random, ["no -> yes", "lower"], 2) for name in (EVERY_SLICE, "plan=pro")}
    pairs = {name: sum(counts.values()) + random.randint(1, 9) for name, counts in flips.items()}
    outcomes = {
        name: {age: aged for age in (0, 7, 1440) if (aged := counts_of(random, buckets))} for name in (LABEL, "bought")
    }
    return Window(
        key=key,
        requests=sum(sum(counts.values()) for counts in (errors, latency, predictions, pairs)),
        errors=errors,
        latency=latency,
        predictions=predictions,
        outcomes={name: counts for name, counts in outcomes.items() if counts},
        pairs=pairs,
        flips={name: counts for name, counts in flips.items() if counts},
    )


def keyed_window_of(seed: int) -> Window:
    random = Random(seed)
    route, minute = random.choice(list(Route)), random.randint(0, 2)
    return window_of(seed, WindowKey(model="churn", version=random.choice("12"), route=route, minute=minute))


SEEDS = st.integers(0, 2**32)
WINDOWS, KEYED_WINDOWS = SEEDS.map(window_of), SEEDS.map(keyed_window_of)


@given(WINDOWS, WINDOWS)
def test_the_order_of_merging_does_not_matter(one: Window, other: Window) -> None:
    assert one.merge(other) == other.merge(one)


@given(WINDOWS, WINDOWS, WINDOWS)
def test_the_grouping_of_merging_does_not_matter(one: Window, two: Window, three: Window) -> None:
    assert one.merge(two).merge(three) == one.merge(two.merge(three))


@given(WINDOWS)
def test_an_empty_window_changes_nothing(window: Window) -> None:
    assert window.merge(Window(key=KEY)) == window == Window(key=KEY).merge(window)


@given(WINDOWS, WINDOWS)
def test_nothing_is_lost_or_made_up_when_windows_merge(one: Window, other: Window) -> None:
    both = one.merge(other)
    assert both.requests == one.requests + other.requests
    assert Counter(both.latency) == Counter(one.latency) + Counter(other.latency)
    assert Counter(both.flips.get("plan=pro")) == Counter(one.flips.get("plan=pro")) + Counter(
        other.flips.get("plan=pro")
    )


@given(st.lists(KEYED_WINDOWS, max_size=6), SEEDS)
def test_merged_gives_one_window_for_each_key_whatever_the_order(given_: list[Window], seed: int) -> None:
    shuffled = Random(seed).sample(given_, len(given_))
    assert merged(given_) == merged(shuffled)
    assert len({window.key for window in merged(given_)}) == len(merged(given_))
    assert merged(merged(given_)) == merged(given_)


def test_windows_of_different_things_do_not_merge() -> None:
    for other in (replace(KEY, minute=1), replace(KEY, version="8"), replace(KEY, route=Route.STABLE)):
        with pytest.raises(ValueError, match="different things"):
            Window(key=KEY).merge(Window(key=other))


@given(KEYED_WINDOWS)
def test_a_window_comes_back_from_json_as_it_was(window: Window) -> None:
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window


FULL = Window(
    key=KEY, requests=3, errors={"timeout": 1}, latency={350: 3}, predictions={40: 2}, outcomes={LABEL: {2: {0: 5}}},
    pairs={EVERY_SLICE: 2}, flips={EVERY_SLICE: {"no -> yes": 1}},
)  # fmt: skip


WRONG: list[object] = [None, True, 1.0, nan, -1, "x", [], {"x": -1}, {"1": 0}, {"1": 1.5}, {"01": 1}]
RIGHT: dict[str, list[object]] = {  # what is wrong elsewhere
    "model": ["x"], "version": ["x"], "errors": [{"01": 1}], "pairs": [{"01": 1}]
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "wrong"), [(f, wrong) for f in FULL.to_json() for wrong in WRONG if wrong not in RIGHT.get(f, [])]
)
def test_a_field_of_the_wrong_kind_is_refused(field: str, wrong: object) -> None:
    with pytest.raises(ValueError):
        Window.from_json({**FULL.to_json(), field: wrong})


@pytest.mark.parametrize("field", FULL.to_json())
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    value = FULL.to_json()
    del value[field]
    with pytest.raises(ValueError, match=field):
        Window.from_json(value)


@pytest.mark.parametrize("value", [None, [], "window", {**FULL.to_json(), "format": 3}, {**FULL.to_json(), "more": 1}])
def test_what_is_no_window_of_this_format_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        Window.from_json(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"errors": {"timeout": 4}},
        {"latency": {1: 4}},
        {"predictions": {1: 2, 2: 2}},
        {"pairs": {EVERY_SLICE: 4}},
        {"flips": {EVERY_SLICE: {"no -> yes": 3}}},
        {"flips": {"plan=pro": {"no -> yes": 1}}},
        {"outcomes": {LABEL: {}}},
        {"outcomes": {LABEL: {3: {}}}},
        {"outcomes": {LABEL: {-1: {0: 1}}}},
    ],
)
def test_counts_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(FULL, **wrong)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_buckets_are_ordered_as_their_numbers(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert number_bucket(low) <= number_bucket(high)


@given(st.floats(2.0**-39, 2.0**39))
def test_a_number_lies_within_nine_per_cent_of_its_bucket(value: float) -> None:
    edge = number_of(number_bucket(value))
    assert edge * (1 - 1e-9) <= value <= edge * 2 ** (1 / 8) * (1 + 1e-9)
    assert number_bucket(-value) == -number_bucket(value)


def test_the_ends_of_the_scales_are_buckets_too() -> None:
    assert number_bucket(0.0) == number_bucket(1e-300) == number_bucket(-0.0) == 0
    assert number_bucket(inf) == number_bucket(1e300) == -number_bucket(-inf) == number_bucket(2.0**40)
    assert [share_bucket(p) for p in (0.0, 0.009, 0.01, 0.999, 1.0)] == [0, 0, 1, 99, 99]


def test_nan_has_no_bucket() -> None:
    for bucket in (number_bucket, share_bucket):
        with pytest.raises(ValueError):
            bucket(nan)


def test_a_flip_says_what_becomes_what() -> None:
    assert find_flip("no", "no") is None
    assert find_flip("no", "yes") == "no -> yes"
    assert find_flip("no", 1.0) == find_flip(1.0, "no") == "another kind"


def test_numbers_flip_when_they_are_more_than_a_tenth_apart() -> None:
    assert find_flip(10.0, 9.0) is None
    assert find_flip(10.0, nextafter(9.0, 0.0)) == "lower"
    assert find_flip(-1.0, 1.0) == "higher"
    assert find_flip(0.0, 0.0) is None
    assert find_flip(inf, inf) is None
    assert find_flip(1.0, nan) == "not a number"


def test_outcomes_are_told_by_the_minute_of_their_predictions() -> None:
    aged = replace(FULL, key=replace(KEY, minute=100), outcomes={LABEL: {0: {0: 5}, 10: {0: 2, 8: 1}, 60: {8: 40}}})
    assert aged.outcomes_since(LABEL, 0) == {0: 7, 8: 41}
    assert aged.outcomes_since(LABEL, 90) == {0: 7, 8: 1}
    assert aged.outcomes_since(LABEL, 91) == {0: 5}
    assert aged.outcomes_since("bought", 0) == {}


def test_a_window_of_before_ages_were_kept_is_read_without_its_outcomes() -> None:
    before = json.loads(json.dumps({**FULL.to_json(), "format": 1, "outcomes": {LABEL: {"0": 5}}}))
    assert Window.from_json(before) == replace(FULL, outcomes={})
