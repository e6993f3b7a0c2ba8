"""Freeze windows: exactly when they hold, over midnight, in their own zone, and where clocks are changed."""

from datetime import UTC, datetime, timedelta

import pytest

from release_platform.domain.freeze import CHAINED_WINDOWS, FreezeWindow, Weekday, find_freeze, frozen_s, moment_text

EPSILON = timedelta(microseconds=1)
EVERY_DAY = tuple(Weekday)


def weekly(days: str, start: str, until: str, zone: str = "Europe/Berlin", reason: str = "why") -> FreezeWindow:
    named = EVERY_DAY if days == "all" else tuple(Weekday(day) for day in days.split())
    return FreezeWindow(days=named, from_=start, until=until, timezone=zone, reason=reason)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def held(window: FreezeWindow, moment: datetime) -> bool:
    found = {find_freeze([window], moment.astimezone(zone)) is not None for zone in (UTC, moment.tzinfo)}
    assert len(found) == 1  # in whatever zone the clock speaks
    return found.pop()


def assert_holds_exactly(window: FreezeWindow, start: str, end: str) -> None:
    assert [held(window, at(start) + shift) for shift in (-EPSILON, 0 * EPSILON, EPSILON)] == [False, True, True]
    assert [held(window, at(end) + shift) for shift in (-EPSILON, 0 * EPSILON, EPSILON)] == [True, False, False]
    assert window.find_end(at(start)) == at(end)


def test_an_absolute_window_holds_from_its_beginning_until_before_its_end() -> None:
    window = FreezeWindow(from_="2026-12-20T00:00:00+01:00", until="2027-01-04T06:00:00Z", reason="holidays")
    assert_holds_exactly(window, "2026-12-19T23:00:00Z", "2027-01-04T06:00:00Z")


def test_a_weekly_window_is_of_its_own_zone() -> None:  # 2026-01-09 is a Friday
    assert_holds_exactly(weekly("fri", "14:00", "18:00"), "2026-01-09T13:00:00Z", "2026-01-09T17:00:00Z")
    assert_holds_exactly(weekly("fri", "14:00", "18:00", "UTC"), "2026-01-09T14:00:00Z", "2026-01-09T18:00:00Z")
    asian = weekly("fri", "08:00", "10:00", "Pacific/Auckland")  # there it is Friday when it is Thursday in UTC
    assert_holds_exactly(asian, "2026-01-08T19:00:00Z", "2026-01-08T21:00:00Z")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    window = weekly("fri", "22:00", "06:00")
    assert_holds_exactly(window, "2026-01-09T21:00:00Z", "2026-01-10T05:00:00Z")
    assert not held(window, at("2026-01-09T03:00:00+01:00"))  # the night from Thursday to Friday
    assert not held(window, at("2026-01-10T23:00:00+01:00"))


def test_a_window_from_a_time_until_the_same_time_is_a_whole_day() -> None:
    assert_holds_exactly(weekly("sun", "00:00", "00:00"), "2026-01-10T23:00:00Z", "2026-01-11T23:00:00Z")


@pytest.mark.parametrize(
    ("start", "until", "first", "last"),
    [
        ("01:00", "05:00", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"),  # three hours only: one is skipped
        ("02:30", "05:00", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z"),  # begins when the clock jumps over 02:30
        ("01:00", "02:30", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),  # and ends there
        ("02:00", "03:30", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"),
    ],
)
def test_where_the_clock_goes_forward(start: str, until: str, first: str, last: str) -> None:
    assert_holds_exactly(weekly("sun", start, until), first, last)


@pytest.mark.parametrize(
    ("start", "until", "first", "last"),
    [
        ("01:00", "05:00", "2026-10-24T23:00:00Z", "2026-10-25T04:00:00Z"),  # five hours: one comes twice
        ("02:30", "05:00", "2026-10-25T00:30:00Z", "2026-10-25T04:00:00Z"),  # begins at the first 02:30
        ("01:00", "02:30", "2026-10-24T23:00:00Z", "2026-10-25T01:30:00Z"),  # ends at the second
        ("02:10", "02:20", "2026-10-25T00:10:00Z", "2026-10-25T01:20:00Z"),
    ],
)
def test_where_the_clock_goes_back(start: str, until: str, first: str, last: str) -> None:
    assert_holds_exactly(weekly("sun", start, until), first, last)


def test_a_window_all_of_whose_times_are_skipped_never_holds() -> None:
    window = weekly("sun", "02:10", "02:50")
    moments = [at("2026-03-29T00:30:00Z") + timedelta(minutes=n) for n in range(90)]
    assert not any(held(window, moment) for moment in moments)


def test_a_night_on_which_the_clock_changes_keeps_its_wall_clock_ends() -> None:
    assert_holds_exactly(weekly("sat", "22:00", "06:00"), "2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z")
    assert_holds_exactly(weekly("sat", "22:00", "06:00"), "2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z")


def test_windows_that_follow_each_other_are_one_freeze() -> None:
    weekend = [weekly("sat sun", "00:00", "00:00", reason="weekend"), weekly("mon", "00:00", "06:00", reason="backup")]
    freeze = find_freeze(weekend, at("2026-01-10T12:00:00Z"))
    assert freeze is not None
    assert freeze.said == "promotions are frozen until 2026-01-12 05:00:00+00:00: weekend"


def test_every_reason_that_holds_is_told_once() -> None:
    windows = [
        weekly("all", "00:00", "12:00", reason="mornings"),
        weekly("sat", "08:00", "14:00", reason="saturdays"),
        weekly("sat", "09:00", "11:00", reason="mornings"),
    ]
    freeze = find_freeze(windows, at("2026-01-10T10:00:00+01:00"))
    assert freeze is not None
    assert freeze.reasons == ("mornings", "saturdays")
    assert freeze.until == at("2026-01-10T14:00:00+01:00")


def test_a_freeze_without_an_end_says_so() -> None:
    freeze = find_freeze([weekly("all", "00:00", "00:00", reason="retired")], at("2026-01-10T10:00:00Z"))
    assert freeze is not None
    assert freeze.said == "promotions are frozen without an end: retired"


def test_the_end_of_a_long_chain_of_windows_is_found() -> None:
    first = at("2026-01-01T00:00:00+00:00")
    days = [first + timedelta(days=n) for n in range(CHAINED_WINDOWS)]
    chain = [
        FreezeWindow(from_=day.isoformat(), until=(day + timedelta(days=1)).isoformat(), reason="chain")
        for day in days[: CHAINED_WINDOWS - 1]
    ]
    freeze = find_freeze(chain, first)
    assert freeze is not None
    assert freeze.until == days[-1]


def test_without_a_window_that_holds_there_is_no_freeze() -> None:
    assert find_freeze([], at("2026-01-10T10:00:00Z")) is None
    assert find_freeze([weekly("mon", "00:00", "12:00")], at("2026-01-10T10:00:00Z")) is None


def test_a_moment_is_read_to_the_second_with_its_offset() -> None:
    assert moment_text(at("2026-01-10T10:00:00.999+01:00")) == "2026-01-10 10:00:00+01:00"


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        ("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", 48 + 5),
        ("2026-01-10T06:00:00Z", "2026-01-10T07:00:00Z", 1),
        ("2026-01-06T00:00:00Z", "2026-01-07T00:00:00Z", 0),
        ("2026-01-07T12:00:00Z", "2026-01-07T12:00:00Z", 0),
        ("2026-01-07T13:00:00Z", "2026-01-07T12:00:00Z", 0),
    ],
)
def test_what_windows_hold_together_counts_once(since: str, until: str, hours: float) -> None:
    # Given a weekend, a Saturday in it, and five hours on Wednesday, 2026-01-07, of which two are in two windows
    windows = (
        weekly("sat sun", "00:00", "00:00", zone="UTC"),
        weekly("sat", "06:00", "18:00", zone="UTC"),
        weekly("wed", "10:00", "13:00", zone="UTC"),
        FreezeWindow(from_="2026-01-07T11:00:00Z", until="2026-01-07T15:00:00Z", reason="an outage"),
    )
    assert frozen_s(windows, at(since), at(until)) == 3600 * hours
