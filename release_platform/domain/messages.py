"""Messages: what is told to the outside of rollbacks, aborts and drift, how it is signed, and when it is sent again."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from release_platform.domain.drift_day import DriftDay
from release_platform.domain.drill import find_drill
from release_platform.domain.identity import canonical_json, digest_of
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Move
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollout import AUTOMATIC, Rollout

FORMAT = 1
KEPT = timedelta(days=7)
"""How long a message is tried to be delivered."""
FIRST_WAIT_S = 15.0
LONGEST_WAIT_S = 3600.0
SIGNATURE_VERSION = "v1"
REPORTER = "drift_report"
"""The actor of a drift alarm."""
_TOLD_OF_DRIFT = ("day", "n_rows", "columns", "schema", "statistics", "report", "run_url")


class MessageKind(StrEnum):
    """What happened."""

    ROLLED_BACK = "rolled_back"
    ROLLED_BACK_AUTOMATICALLY = "rolled_back_automatically"
    ROLLOUT_ABORTED = "rollout_aborted"
    DRIFT_ALARM = "drift_alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message.

    Attributes:
        id: Its identity: the same however often it is sent.
        kind: What happened.
        model: The model's name.
        version_before: The version that lost the traffic; None where there was none, and for drift.
        version_after: The version that has it now; None for the aborted first release.
        epoch: The epoch of the ledger row; of an abort or drift, that of the last row when it was decided.
        ledger_hash: The hash of that row; empty where there is none.
        actor: Who did it.
        reason: Why.
        at: When it was committed: ISO 8601, UTC.
        details: Of drift the day, its columns, their measures and where the report is; empty for all others.
    """

    id: str
    kind: MessageKind
    model: str
    version_before: str | None
    version_after: str | None
    epoch: int
    ledger_hash: str
    actor: str
    reason: str
    at: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the message as a JSON value; one without details has none."""
        told = {"format": FORMAT, **asdict(self), "kind": self.kind.value}
        return told if self.details else {name: value for name, value in told.items() if name != "details"}

    @property
    def body(self) -> bytes:
        """The message as it is sent: the same bytes each time."""
        return canonical_json(self.to_json())

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Message":
        """Returns the message that `to_json` wrote.

        Raises:
            ValueError: It is no such message; so do KeyError and TypeError.
        """
        of = dict(value)
        if of.pop("format") != FORMAT:
            raise ValueError(f"only messages of format {FORMAT} can be read")
        return Message(**{**of, "kind": MessageKind(of["kind"])})


def message_of(row: LedgerRow) -> Message | None:
    """Returns the message of a ledger row: of a rollback; None for every other move, and for those of a drill."""
    if row.move is not Move.ROLLED_BACK or find_drill(row) is not None:
        return None
    automatic = row.actor in {POLICY, AUTOMATIC}
    return Message(
        id=_id("ledger", row.hash),
        kind=MessageKind.ROLLED_BACK_AUTOMATICALLY if automatic else MessageKind.ROLLED_BACK,
        model=row.model,
        version_before=row.before["production"],
        version_after=row.version,
        epoch=row.epoch,
        ledger_hash=row.hash,
        actor=row.actor,
        reason=row.reason,
        at=row.at,
    )


def message_of_abort(
    rollout: Rollout, *, production: str | None, epoch: int, ledger_hash: str, at: datetime
) -> Message:
    """Returns the message of an aborted rollout.

    Args:
        rollout: As it ended.
        production: The version in Production; where it is the rollout's, the one before is brought back.
        epoch: The epoch of the last ledger row of its model.
        ledger_hash: The hash of that row.
        at: When it was aborted.
    """
    return Message(
        id=_id("rollout", rollout.rollout_id),
        kind=MessageKind.ROLLOUT_ABORTED,
        model=rollout.model,
        version_before=rollout.candidate,
        version_after=rollout.stable if production == rollout.candidate else production,
        epoch=epoch,
        ledger_hash=ledger_hash,
        actor=rollout.actor or AUTOMATIC,
        reason=rollout.reason,
        at=at.isoformat(),
    )


def message_of_drift(day: DriftDay, *, epoch: int, ledger_hash: str) -> Message:
    """Returns the message of a day that drifted: however often the day is reported, the same one.

    Args:
        day: The day.
        epoch: The epoch of the last ledger row of its model.
        ledger_hash: The hash of that row.
    """
    told = day.to_json()
    return Message(
        id=_id("drift", f"{day.model}/{day.version}/{day.day}"),
        kind=MessageKind.DRIFT_ALARM,
        model=day.model,
        version_before=None,
        version_after=day.version,
        epoch=epoch,
        ledger_hash=ledger_hash,
        actor=REPORTER,
        reason=day.said,
        at=day.at,
        details={name: told[name] for name in _TOLD_OF_DRIFT},
    )


def sentence(message: Message) -> str:
    """Returns the message as a sentence for people."""
    match message.kind:
        case MessageKind.ROLLED_BACK | MessageKind.ROLLED_BACK_AUTOMATICALLY:
            what = f"version {message.version_after} is in Production again, after version {message.version_before}"
        case MessageKind.ROLLOUT_ABORTED:
            stays = f"; version {message.version_after} has the traffic" if message.version_after else ""
            what = f"the rollout of version {message.version_before} was aborted{stays}"
        case MessageKind.DRIFT_ALARM:
            at = message.details["run_url"] or message.details["report"]
            return f"{message.model}: {message.reason}. The report: {at} ({message.at})"
        case _:
            assert_never(message.kind)
    return f"{message.model}: {what}. By {message.actor}: {message.reason} (epoch {message.epoch}, {message.at})"


def slack_body(message: Message) -> bytes:
    """Returns what a Slack webhook takes; nothing in it is read as a mention or a link."""
    text = sentence(message).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return canonical_json({"text": text})


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Returns the value of the header `X-Release-Signature`.

    Args:
        secret: What sender and receiver share.
        timestamp: Seconds since 1970, as in the header `X-Release-Timestamp`.
        body: The bytes that are sent.
    """
    signed = str(timestamp).encode() + b"." + body
    return f"{SIGNATURE_VERSION}={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class State(StrEnum):
    """Where a message stands with one receiver, or with all of them. All but `waiting` are final."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    UNWANTED = "unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far a message got with one receiver.

    Attributes:
        state: Where it stands.
        n_attempts: How often it was sent.
        next_at: When it is sent next, at the earliest; None: at once.
        problem: Why the last attempt failed; empty when it did not.
    """

    state: State = State.WAITING
    n_attempts: int = 0
    next_at: datetime | None = None
    problem: str = ""

    def due(self, now: datetime) -> bool:
        """Whether it is to be sent at a moment."""
        return self.state is State.WAITING and (self.next_at is None or self.next_at <= now)

    def to_json(self) -> dict[str, Any]:
        """Returns the delivery as a JSON value."""
        next_at = None if self.next_at is None else self.next_at.isoformat()
        return {**asdict(self), "state": self.state.value, "next_at": next_at}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Delivery":
        """Returns the delivery that `to_json` wrote."""
        next_at = None if value["next_at"] is None else datetime.fromisoformat(value["next_at"])
        return Delivery(**{**value, "state": State(value["state"]), "next_at": next_at})


def attempted(delivery: Delivery, problem: str, *, committed: datetime, now: datetime) -> Delivery:
    """Returns a delivery after an attempt.

    Args:
        delivery: As it was before.
        problem: Why the attempt failed; empty when it did not.
        committed: When the message was committed: it is given up `KEPT` after that.
        now: When the attempt ended.
    """
    tried = replace(delivery, n_attempts=delivery.n_attempts + 1, next_at=None, problem=problem)
    if not problem:
        return replace(tried, state=State.DELIVERED)
    if now - committed >= KEPT:
        return replace(tried, state=State.GIVEN_UP)
    return replace(tried, next_at=now + timedelta(seconds=wait_s(tried.n_attempts)))


def wait_s(n_attempts: int) -> float:
    """Returns the seconds after a failed attempt until the next: twice as many each time, an hour at most."""
    return float(min(FIRST_WAIT_S * 2 ** min(n_attempts - 1, 20), LONGEST_WAIT_S))


def state_of(deliveries: Iterable[Delivery]) -> State:
    """Returns where a message stands with all its receivers together."""
    states = {delivery.state for delivery in deliveries}
    if not states:
        return State.UNWANTED
    return next(state for state in (State.WAITING, State.GIVEN_UP, State.DELIVERED) if state in states)


def _id(kind: str, key: str) -> str:
    return digest_of(["message", kind, key]).rpartition(":")[2][:32]
