"""Reported days in the release store, on SQLite and on PostgreSQL alike: an alarm is told once and may be lifted."""

from dataclasses import replace
from datetime import date

import pytest

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.drift_day import DriftDay, Lift
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.errors import IntegrityError, Unavailable
from release_platform.domain.history import DayShape
from release_platform.domain.messages import MessageKind, State
from tests.contract.test_outbox_store import execute, twice_promoted
from tests.unit.test_drift_day import DRIFTED, LIFT, QUIET


def on(day: int, of: DriftDay = DRIFTED) -> DriftDay:
    return replace(of, day=date(2026, 3, day))


def test_an_alarm_is_told_once_however_often_its_day_is_reported(store: ReleaseStore) -> None:
    twice_promoted(store)
    for of in (DRIFTED, DRIFTED, QUIET, DRIFTED):  # the last two: recorded rows that came late
        store.drift.record(of)
    (posted,) = store.outbox.find(State.WAITING)
    assert (posted.message.kind, posted.message.epoch) == (MessageKind.DRIFT_ALARM, 4)
    assert posted.message.ledger_hash == store.ledger("m")[-1].hash
    store.drift.record(on(2))
    assert len(store.outbox.find(State.WAITING)) == 2


def test_what_nobody_wants_to_be_told_is_kept_without_a_message(store: ReleaseStore) -> None:
    silent = replace(DRIFTED, on_alarm=(OnAlarm.HOLD,))
    assert store.drift.record(silent) == store.drift.find_last("m", "3") == silent
    store.drift.record(on(2, QUIET))
    assert store.outbox.find(State.WAITING) == ()


def test_a_day_whose_message_cannot_be_kept_is_not_kept(store: ReleaseStore, url: str) -> None:
    execute(url, "ALTER TABLE outbox RENAME TO away")
    with pytest.raises(Unavailable, match="nothing was changed"):
        store.drift.record(DRIFTED)
    assert store.drift.find_last("m", "3") is None
    execute(url, "ALTER TABLE away RENAME TO outbox")
    store.drift.record(DRIFTED)
    assert len(store.outbox.find(State.WAITING)) == 1


def test_the_last_day_of_a_version_counts_whatever_was_reported_last(store: ReleaseStore) -> None:
    assert store.drift.find_last("m", "3") is None
    for of in (on(3, QUIET), on(2), replace(on(9), version="4")):
        store.drift.record(of)
    assert store.drift.find_last("m", "3") == on(3, QUIET)
    assert [day.day.day for day in store.drift.days("m", "3")] == [2, 3]
    assert store.drift.days("other", "3") == ()


def test_what_later_days_learn_from_is_kept_with_each_day(store: ReleaseStore) -> None:
    shape = DayShape(version="3", day=date(2026, 3, 2), n_rows={"age": 1200}, shares={"age": (0.0, 0.25)})
    taught, later = replace(on(2), shape=shape), replace(on(3), version="4")
    for of in (on(1), taught, later, on(4), replace(on(2), model="other")):
        store.drift.record(of)
    assert store.drift.days_before("m", date(2026, 3, 4), most=2) == (taught, later)
    assert store.drift.days_before("m", date(2026, 3, 1), most=2) == ()


def test_who_lifts_an_alarm_first_stays_and_a_new_report_of_the_day_changes_nothing_of_it(store: ReleaseStore) -> None:
    store.drift.record(DRIFTED)
    assert store.drift.lift(DRIFTED, LIFT).lift == LIFT
    assert store.drift.lift(DRIFTED, Lift(actor="bob", reason="me too", at="")).lift == LIFT
    assert store.drift.record(replace(DRIFTED, n_rows=1300)).lift == LIFT
    assert store.drift.find_last("m", "3") == replace(DRIFTED, n_rows=1300, lift=LIFT)
    store.drift.record(on(2))
    last = store.drift.find_last("m", "3")
    assert last is not None
    assert last.stands


def test_a_day_that_was_changed_in_the_database_is_named(store: ReleaseStore, url: str) -> None:
    store.drift.record(DRIFTED)
    execute(url, "UPDATE drift_days SET version = '5'")
    with pytest.raises(IntegrityError, match=r"the drift of m version 5 on 2026-03-01"):
        store.drift.find_last("m", "5")
