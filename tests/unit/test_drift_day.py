"""What follows from a day that drifted: what stands, what it asks for, what it says, and its message."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from release_platform.domain.drift_day import DriftDay, Lift
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.errors import SpecError
from release_platform.domain.history import DayShape
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.messages import Message, MessageKind, message_of_drift, sentence
from release_platform.domain.policy import Hold, Ready, decide
from release_platform.domain.rollback import Taken, Watched, find_drift
from tests.unit.test_messages import row
from tests.unit.test_policy import FACTS
from tests.unit.test_spec import spec

LIFT = Lift(actor="ada", reason="known", at="2026-03-02T09:00:00+00:00")
ALL = tuple(OnAlarm)
DRIFTED = DriftDay(
    model="m",
    version="3",
    day=date(2026, 3, 1),
    n_rows=1200,
    columns=("age",),
    schema=(),
    statistics={"age": {"psi": 0.4}},
    on_alarm=ALL,
    report="/drift/3.html",
    run_url="http://dagster/runs/r",
    at=datetime(2026, 3, 2, tzinfo=UTC).isoformat(),
)
QUIET = replace(DRIFTED, columns=(), statistics={})


@pytest.mark.parametrize("what", OnAlarm)
def test_an_alarm_asks_for_what_the_yaml_said_until_somebody_lifts_it(what: OnAlarm) -> None:
    assert DRIFTED.asks_for(what)
    assert not replace(DRIFTED, lift=LIFT).asks_for(what)
    assert not replace(DRIFTED, on_alarm=tuple(one for one in ALL if one is not what)).asks_for(what)
    assert not QUIET.asks_for(what)


def test_a_column_that_is_missing_is_an_alarm_without_evidence() -> None:
    assert replace(QUIET, schema=("the column 'age' is missing",)).asks_for(OnAlarm.HOLD)


def test_a_hold_says_why_until_when_and_what_to_do_next() -> None:
    assert DRIFTED.hold.startswith("drift on 2026-03-01 in 1,200 rows of version 3: age; this holds promotions until")
    assert "`release lift-hold m`" in DRIFTED.hold
    assert QUIET.hold == replace(DRIFTED, lift=LIFT).hold == ""


def test_of_many_columns_the_first_are_named() -> None:
    many = replace(DRIFTED, columns=tuple("abcdefgh"))
    assert many.said.endswith("a, b, c, d, e and 3 more")


def test_a_promotion_waits_while_a_hold_stands() -> None:
    held = decide(replace(FACTS, drifting=DRIFTED.hold))
    assert isinstance(held, Hold)
    assert held.reasons == (DRIFTED.hold,)
    assert decide(replace(FACTS, drifting=QUIET.hold)) == Ready()


def test_it_is_read_as_it_was_written() -> None:
    again = DriftDay.from_json(json.loads(json.dumps(DRIFTED.to_json())), LIFT)
    assert again == replace(DRIFTED, lift=LIFT)
    assert "shape" not in DRIFTED.to_json(), "days of before are as they were"
    shape = DayShape(version=DRIFTED.version, day=DRIFTED.day, n_rows={"age": 9}, shares={"age": (0.5,)})
    taught = replace(DRIFTED, shape=shape)
    assert DriftDay.from_json(json.loads(json.dumps(taught.to_json()))) == taught
    with pytest.raises(ValueError, match="format"):
        DriftDay.from_json({**DRIFTED.to_json(), "format": 2})


def test_the_message_tells_columns_measures_and_where_the_report_is() -> None:
    message = message_of_drift(DRIFTED, epoch=7, ledger_hash="sha256:h")
    assert (message.kind, message.version_after, message.epoch) == (MessageKind.DRIFT_ALARM, "3", 7)
    told = json.loads(message.body)["details"]
    assert told["statistics"] == {"age": {"psi": 0.4}}
    assert (told["report"], told["run_url"]) == ("/drift/3.html", "http://dagster/runs/r")
    assert sentence(message).startswith("m: drift on 2026-03-01 in 1,200 rows of version 3: age. The report: http://")
    assert Message.from_json(json.loads(message.body)) == message
    again = message_of_drift(replace(DRIFTED, columns=("x",), at="later"), epoch=8, ledger_hash="")
    assert again.id == message.id
    assert message_of_drift(replace(DRIFTED, version="4"), epoch=7, ledger_hash="").id != message.id


def watched(of: LedgerRow) -> Watched:
    return Watched(row=of, before="1", since=0)


def test_a_version_is_taken_back_for_its_own_standing_alarm_only() -> None:
    mine = watched(replace(row(), version="3"))
    assert find_drift(mine, DRIFTED) == Taken(watched=mine, reason=DRIFTED.said, found={"drift": DRIFTED.to_json()})
    assert find_drift(mine, None) is None
    assert find_drift(mine, QUIET) is None
    assert find_drift(mine, replace(DRIFTED, lift=LIFT)) is None
    assert find_drift(mine, replace(DRIFTED, on_alarm=(OnAlarm.NOTIFY,))) is None
    assert find_drift(watched(replace(row(), version="4")), DRIFTED) is None


def test_what_was_known_when_a_version_was_promoted_takes_it_back_no_more() -> None:
    promoted = watched(replace(row(), version="3", at="2026-03-02T10:00:00+00:00"))
    assert find_drift(promoted, DRIFTED) is None
    assert find_drift(promoted, replace(DRIFTED, at="2026-03-02T11:00:00+00:00")) is None, "it is the day before"
    today = replace(DRIFTED, day=date(2026, 3, 2), at="2026-03-02T09:59:59+00:00")
    assert find_drift(promoted, today) is None
    assert find_drift(promoted, replace(today, at="2026-03-02T10:00:01+00:00")) is not None


def test_by_default_an_alarm_is_told() -> None:
    assert DriftSpec().on_alarm == (OnAlarm.NOTIFY,)


def test_what_follows_is_named_once_and_a_rollback_needs_its_policy() -> None:
    with pytest.raises(ValueError, match="twice"):
        DriftSpec(on_alarm=(OnAlarm.HOLD, OnAlarm.HOLD))
    with pytest.raises(SpecError, match="rollback_policy"):
        spec(drift={"on_alarm": ["roll_back"]})
    assert spec(drift={"on_alarm": ["roll_back"]}, rollback_policy={}).drift.on_alarm == (OnAlarm.ROLL_BACK,)
