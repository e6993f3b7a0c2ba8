"""Refused calls are counted by input and reason, never by what a client calls its inputs, and the day tells of them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.call_counts import calls_of, table_of
from release_platform.domain.alarms import Budget, Detector
from release_platform.domain.drift import Rows, WindowDrift, watch_all
from release_platform.domain.reference import REFUSED_CALLS, Reference, of_numbers
from release_platform.domain.refusals import OTHER, Calls, CallsOfMinute, Reason, added
from release_platform.domain.windows import Route, Window, WindowKey
from serving.errors import InvalidInput, MalformedBody
from serving.observations import KEPT_MINUTES
from serving.refusals import faults_of
from tests.unit.test_serving_samples import Minutes, loaded

__all__ = ["loaded"]

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
INPUTS = {"age", "city"}
FAULTS = {("age", Reason.MISSING): 120, ("city", Reason.VALUE): 10, (OTHER, Reason.UNKNOWN): 5, (OTHER, Reason.BODY): 1}
CALLS = Calls(answered=870, refused=130, faults=FAULTS)


class TestFaults:
    def test_each_input_that_is_missing_counts_whatever_else_is_there(self):
        assert faults_of(InvalidInput("", field="age", missing=["age", "city"]), INPUTS) == {
            ("age", Reason.MISSING),
            ("city", Reason.MISSING),
        }
        assert faults_of(InvalidInput("", field="Age", missing=["age"]), INPUTS) == {
            ("age", Reason.MISSING),
            (OTHER, Reason.UNKNOWN),
        }

    def test_a_value_counts_for_its_input_and_nothing_is_named_that_a_client_made_up(self):
        assert faults_of(InvalidInput("", field="city", row=3), INPUTS) == {("city", Reason.VALUE)}
        assert faults_of(InvalidInput("", field="made up"), INPUTS) == {(OTHER, Reason.UNKNOWN)}
        assert faults_of(InvalidInput("no rows"), INPUTS) == {(OTHER, Reason.UNKNOWN)}
        assert faults_of(MalformedBody("no JSON"), INPUTS) == {(OTHER, Reason.BODY)}


def window(minute, requests, route=Route.STABLE, **counts):
    return Window(key=WindowKey(model="typed", version="1", route=route, minute=minute), requests=requests, **counts)


class TestCounting:
    def test_a_minute_is_told_when_it_is_over_and_for_an_hour(self, loaded):
        minutes = Minutes()
        minutes.windows = [window(100, 2), window(100, 2, Route.CANARY, errors={"timeout": 1}), window(101, 1)]
        minutes.windows += [window(100, 9, Route.SHADOW), window(101, 0, Route.CANARY)]
        minutes.kept.calls.refused(loaded, InvalidInput("", field="x", missing=["x"]))
        assert calls_told(minutes) == []
        minutes.now += 1
        told = calls_told(minutes)
        assert told == [
            {
                "model": "typed",
                "version": "1",
                "minute": 100,
                "answered": 3,
                "refused": 1,
                "faults": [["x", "missing", 1]],
            }
        ]
        assert CallsOfMinute.from_json(told[0], "r").calls == Calls(
            answered=3, refused=1, faults={("x", Reason.MISSING): 1}
        )
        minutes.now += 1
        assert [one["minute"] for one in calls_told(minutes, 100)] == [101]
        minutes.now += KEPT_MINUTES + 1
        assert calls_told(minutes) == []

    def test_a_count_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match="faults"):
            CallsOfMinute.from_json({"model": "m"}, "r")
        with pytest.raises(ValueError, match="from 0"):
            Calls(answered=-1)


class TestTable:
    def test_counts_add_up_again(self):
        assert calls_of(table_of(CALLS)) == CALLS
        both = pd.concat([table_of(CALLS), table_of(Calls(answered=9))], ignore_index=True)
        assert calls_of(both) == added([CALLS, Calls(answered=9)]) == replace(CALLS, answered=879)
        assert calls_of(pd.DataFrame()) == Calls()

    def test_it_says_what_share_of_the_calls_lacked_what(self):
        assert CALLS.said == (
            "13.0% of 1,000 calls were refused: 12.0% lacked 'age', 1.0% had no value of the type of 'city', "
            "0.5% had what is no input, and 1 faults more"
        )
        assert list(CALLS.shares) == ["age: missing", "city: value", "other: unknown", "other: body"]
        assert Calls(answered=5).said == ""


class TestAlarms:
    def test_refused_calls_alarm_within_the_budget_and_teach_as_a_column_does(self):
        shown = watched([Calls(answered=1000)] * 12 + [CALLS] * 3)

        assert [one.alarm.columns for one in shown if one.alarm] == [(REFUSED_CALLS,)] * 3
        assert shown[11].shape.shares[REFUSED_CALLS] == (0.0,)
        assert shown[12].calls == CALLS

    def test_few_refused_calls_are_no_drift_however_many_calls_there_are(self):
        shown = watched([Calls(answered=98_500, refused=1_500)] * 30)

        assert [one.alarm for one in shown] == [None] * 30

    def test_a_day_on_which_every_call_was_refused_alarms_without_a_row(self):
        shown = watched([Calls(refused=500)], n_rows=0)

        assert shown[0].n_rows == 0
        assert shown[0].alarm.columns == (REFUSED_CALLS,)

    def test_where_nobody_counted_nothing_is_said(self):
        assert watched([None])[0].alarm is None


def calls_told(minutes: Minutes, after: int = -1):
    return json.loads(minutes.page(after).body)["calls"]


def watched(calls: list[Calls | None], *, n_rows: int = 200) -> list[WindowDrift]:
    rng = np.random.default_rng(1)
    reference = Reference(
        model="m", version="1", columns={"x": of_numbers(rng.normal(size=9000))}, outputs={}, floors={}
    )
    days = []
    for number, of_day in enumerate(calls):
        begins = BEGIN + timedelta(days=number)
        rows = {"x": rng.normal(size=n_rows)} if n_rows else {}
        days.append(Rows(begins=begins, ends=begins + timedelta(days=1), columns=rows, calls=of_day))
    return list(watch_all(reference, Detector.of(reference.watched, Budget()), days)[1])
