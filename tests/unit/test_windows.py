"""Windows add up in any order and grouping, and are read back exactly as they were written or not at all."""

import json
from collections import Counter
from dataclasses import replace
from math import inf, nan, nextafter
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
COUNT = st.integers(1, 10**12)
BUCKETS = st.dictionaries(st.integers(-642, 642), COUNT, max_size=4)
TEXTS = st.dictionaries(st.sampled_from(["timeout", "not_finite", "plan=pro"]), COUNT, max_size=3)


@st.composite
def windows(draw: st.DrawFn, key: st.SearchStrategy[WindowKey] = st.just(KEY)) -> Window:  # noqa: B008
    errors, latency, predictions = draw(TEXTS), draw(BUCKETS), draw(BUCKETS)
    flips = draw(st.dictionaries(st.sampled_from([EVERY_SLICE, "plan=pro"]), TEXTS.filter(bool), max_size=2))
    pairs = {name: sum(counts.values()) + draw(st.integers(0, 9)) for name, counts in flips.items()}
    most = max([sum(c.values()) for c in (errors, latency, predictions)] + list(pairs.values()))
    return Window(
        key=draw(key),
        requests=most + draw(st.integers(0, 9)),
        errors=errors,
        latency=latency,
        predictions=predictions,
        outcomes=draw(st.dictionaries(st.sampled_from([LABEL, "bought"]), BUCKETS.filter(bool), max_size=2)),
        pairs=pairs,
        flips=flips,
    )


KEYS = st.builds(
    WindowKey, model=st.just("churn"), version=st.sampled_from("12"), route=st.sampled_from(Route),
    minute=st.integers(0, 2),
)  # fmt: skip


@given(windows(), windows())
def test_the_order_of_merging_does_not_matter(one: Window, other: Window) -> None:
    assert one.merge(other) == other.merge(one)


@given(windows(), windows(), windows())
def test_the_grouping_of_merging_does_not_matter(one: Window, two: Window, three: Window) -> None:
    assert one.merge(two).merge(three) == one.merge(two.merge(three))


@given(windows())
def test_an_empty_window_changes_nothing(window: Window) -> None:
    assert window.merge(Window(key=KEY)) == window == Window(key=KEY).merge(window)


@given(windows(), windows())
def test_nothing_is_lost_or_made_up_when_windows_merge(one: Window, other: Window) -> None:
    both = one.merge(other)
    assert both.requests == one.requests + other.requests
    assert Counter(both.latency) == Counter(one.latency) + Counter(other.latency)
    assert Counter(both.flips.get("plan=pro")) == Counter(one.flips.get("plan=pro")) + Counter(
        other.flips.get("plan=pro")
    )


@given(st.lists(windows(KEYS), max_size=6), st.randoms())
def test_merged_gives_one_window_for_each_key_whatever_the_order(given_: list[Window], random: Any) -> None:
    shuffled = random.sample(given_, len(given_))
    assert merged(given_) == merged(shuffled)
    assert len({window.key for window in merged(given_)}) == len(merged(given_))
    assert merged(merged(given_)) == merged(given_)


def test_windows_of_different_things_do_not_merge() -> None:
    for other in (replace(KEY, minute=1), replace(KEY, version="8"), replace(KEY, route=Route.STABLE)):
        with pytest.raises(ValueError, match="different things"):
            Window(key=KEY).merge(Window(key=other))


@given(windows(KEYS))
def test_a_window_comes_back_from_json_as_it_was(window: Window) -> None:
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window


FULL = Window(
    key=KEY, requests=3, errors={"timeout": 1}, latency={350: 3}, predictions={40: 2}, outcomes={LABEL: {0: 5}},
    pairs={EVERY_SLICE: 2}, flips={EVERY_SLICE: {"no -> yes": 1}},
)  # fmt: skip


@pytest.mark.parametrize("field", FULL.to_json())
@pytest.mark.parametrize("wrong", [None, True, 1.0, nan, -1, "x", [], {"x": -1}, {"1": 0}, {"1": 1.5}, {"01": 1}])
def test_a_field_of_the_wrong_kind_is_refused(field: str, wrong: object) -> None:
    if (field in {"model", "version"} and wrong == "x") or (field in {"errors", "pairs"} and wrong == {"01": 1}):
        return
    with pytest.raises(ValueError):
        Window.from_json({**FULL.to_json(), field: wrong})


@pytest.mark.parametrize("field", FULL.to_json())
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    value = FULL.to_json()
    del value[field]
    with pytest.raises(ValueError, match=field):
        Window.from_json(value)


@pytest.mark.parametrize("value", [None, [], "window", {**FULL.to_json(), "format": 2}, {**FULL.to_json(), "more": 1}])
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


def test_numbers_flip_when_they_are_more_than_a_tenth_apart() -> None:
    assert find_flip(10.0, 9.0) is None
    assert find_flip(10.0, nextafter(9.0, 0.0)) == "lower"
    assert find_flip(-1.0, 1.0) == "higher"
    assert find_flip(0.0, 0.0) is None
    assert find_flip(inf, inf) is None
    assert find_flip(1.0, nan) == "not a number"
