"""What is told of a rollback and of an abort, how it is signed, and when it is sent again."""

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from release_platform.adapters.receivers import Receiver, find_fault, receivers_of
from release_platform.domain.drill import Half, drill_move_id
from release_platform.domain.errors import SpecError
from release_platform.domain.ledger import LedgerRow, genesis, sealed
from release_platform.domain.lifecycle import Head, Move, advance
from release_platform.domain.messages import (
    KEPT,
    LONGEST_WAIT_S,
    Delivery,
    Message,
    MessageKind,
    State,
    attempted,
    message_of,
    message_of_abort,
    sentence,
    signature,
    slack_body,
    state_of,
    wait_s,
)
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollout import AUTOMATIC, Order, Ordered
from release_platform.domain.rollout import advance as advance_rollout
from tests.contract.test_rollout_store import begun_rollout

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "s" * 32
SLACK = "https://hooks.slack.com/services/T0/B0/token"


def row(move: Move = Move.ROLLED_BACK, actor: str = "ada", request_id: str = "r1") -> LedgerRow:
    head = Head(model="m")
    for of, version in ((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2")):
        head = advance(head, of, version)
    after = advance(head, move, "1" if move is Move.ROLLED_BACK else "3")
    said: dict[str, Any] = {
        "actor": actor,
        "reason": "it hurts",
        "request_id": request_id,
        "evidence": "",
        "digest": "sha256:d",
    }
    heads: dict[str, Any] = {"before": head.to_json(), "after": after.to_json(), "epoch": after.epoch}
    version = "1" if move is Move.ROLLED_BACK else "3"
    of_row = LedgerRow(
        model="m", move=move, version=version, at=AT.isoformat(), previous_hash=genesis("m"), **said, **heads
    )
    return sealed(of_row)


def told(of: LedgerRow) -> Message:
    message = message_of(of)
    assert message is not None
    return message


def test_a_rollback_is_told_with_its_ledger_row() -> None:
    of = row()
    message = told(of)
    assert message.kind is MessageKind.ROLLED_BACK
    assert (message.version_before, message.version_after) == ("2", "1")
    assert (message.epoch, message.ledger_hash, message.actor, message.reason) == (5, of.hash, "ada", "it hurts")
    assert Message.from_json(json.loads(message.body)) == message


@pytest.mark.parametrize("actor", [POLICY, AUTOMATIC])
def test_a_rollback_that_nobody_ordered_says_so(actor: str) -> None:
    assert told(row(actor=actor)).kind is MessageKind.ROLLED_BACK_AUTOMATICALLY


def test_other_moves_and_drills_are_not_told() -> None:
    assert message_of(row(Move.STAGED)) is None
    assert message_of(row(request_id=drill_move_id("d", Half.THERE))) is None


def test_each_ledger_row_and_each_rollout_has_an_id_of_its_own() -> None:
    assert told(row()).id == told(row()).id
    assert len({told(row()).id, told(row(request_id="r2")).id, aborted().id}) == 3


def aborted(production: str = "1") -> Message:
    ordered = Ordered(order=Order.ABORT, actor="ada", reason="no", at=AT)
    ended, _ = advance_rollout(begun_rollout(), ordered)
    return message_of_abort(ended, production=production, epoch=7, ledger_hash="sha256:h", at=AT)


def test_an_abort_is_told() -> None:
    message = aborted()
    assert (message.kind, message.actor) == (MessageKind.ROLLOUT_ABORTED, "ada")
    assert (message.version_before, message.version_after) == ("2", "1")
    assert "the rollout of version 2 was aborted; version 1 has the traffic" in sentence(message)
    assert aborted(production="2").version_after == "1", "the one before comes back"
    assert aborted(production="0").version_after == "0", "somebody rolled back, and so ended the rollout"


def test_a_message_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        Message.from_json({**told(row()).to_json(), "format": 2})


def test_slack_reads_no_mention_and_no_link_in_a_reason() -> None:
    text = json.loads(slack_body(replace(told(row()), reason="<!channel> & <http://x|y>")))["text"]
    assert "&lt;!channel&gt; &amp; &lt;http://x|y&gt;" in text
    assert "<" not in text


def test_the_signature_is_over_time_and_body() -> None:
    expected = hmac.new(SECRET.encode(), b'17.{"a":1}', hashlib.sha256).hexdigest()
    assert signature(SECRET, 17, b'{"a":1}') == f"v1={expected}"
    others = [signature(SECRET, 18, b'{"a":1}'), signature(SECRET, 17, b'{"a":2}'), signature("t", 17, b'{"a":1}')]
    assert f"v1={expected}" not in others


def test_the_wait_doubles_up_to_an_hour() -> None:
    assert [wait_s(n) for n in (1, 2, 3)] == [15, 30, 60]
    assert wait_s(9) == wait_s(10_000) == LONGEST_WAIT_S


def test_a_failed_attempt_is_due_again_after_its_wait() -> None:
    failed = attempted(Delivery(), "it answers 500", committed=AT, now=AT)
    assert (failed.state, failed.n_attempts) == (State.WAITING, 1)
    assert not failed.due(AT + timedelta(seconds=14.9))
    assert failed.due(AT + timedelta(seconds=15))
    assert Delivery.from_json(failed.to_json()) == failed
    delivered = attempted(failed, "", committed=AT, now=AT + timedelta(seconds=15))
    assert (delivered.state, delivered.n_attempts, delivered.problem) == (State.DELIVERED, 2, "")
    assert not delivered.due(AT + timedelta(days=1))


def test_a_message_is_given_up_after_seven_days() -> None:
    before, after = AT + KEPT - timedelta(seconds=1), AT + KEPT
    assert attempted(Delivery(), "down", committed=AT, now=before).state is State.WAITING
    assert attempted(Delivery(), "down", committed=AT, now=after).state is State.GIVEN_UP
    assert attempted(Delivery(), "", committed=AT, now=after).state is State.DELIVERED


@pytest.mark.parametrize(
    ("states", "together"),
    [
        ([], State.UNWANTED),
        ([State.DELIVERED], State.DELIVERED),
        ([State.DELIVERED, State.WAITING, State.GIVEN_UP], State.WAITING),
        ([State.DELIVERED, State.GIVEN_UP], State.GIVEN_UP),
    ],
)
def test_a_message_is_closed_when_no_receiver_waits(states: list[State], together: State) -> None:
    assert state_of(Delivery(state=state) for state in states) is together


def test_receivers_are_read_from_the_settings() -> None:
    urls = f" {SLACK},https://ops.example/hook?k=v,slack+https://chat.example/hook,https://ops.example/hook?k=v,"
    slack, ops, chat = receivers_of(urls, SECRET)
    assert (slack.slack, slack.name, slack.secret) == (True, "hooks.slack.com", "")
    assert (ops.slack, ops.name, ops.secret) == (False, "ops.example", SECRET)
    assert (chat.slack, chat.url) == (True, "https://chat.example/hook")
    assert receivers_of(" ", "") == ()


def test_a_receiver_shows_no_secret() -> None:
    receiver = Receiver(url="https://me:password@ops.example:8443/token", secret=SECRET)
    shown = f"{receiver!r} {receiver.name} {receiver.key}"
    assert not any(secret in shown for secret in ("token", "password", SECRET))
    assert receiver.name == "ops.example:8443"


@pytest.mark.parametrize("url", ["ftp://ops.example", "ops.example/token", "https://", "https://ops.example:token"])
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SpecError, match="address 2 of RELEASE_NOTIFY_URL") as refused:
        receivers_of(f"{SLACK},{url}", SECRET)
    assert url not in refused.value.problem


def test_messages_are_not_sent_unsigned() -> None:
    assert receivers_of(SLACK, "")
    for secret, wrong in (("", "is not set"), (SECRET[1:], "is too short")):
        with pytest.raises(SpecError, match=rf"to ops\.example cannot be signed: RELEASE_NOTIFY_SECRET {wrong}"):
            receivers_of("https://ops.example/token", secret)
        fault = find_fault(f"{SLACK},https://ops.example/token", secret)
        assert fault is not None
        assert (wrong in fault.problem, "32 random characters" in fault.remedy) == (True, True)
    assert find_fault("https://ops.example/token", SECRET) is find_fault("", "") is find_fault(SLACK, "") is None
