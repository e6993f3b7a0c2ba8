"""What an abort, or a rollback by policy, was decided on: kept by its digest, which the ledger row names.

The row is part of the hash chain, and with it the digest: what is kept cannot be changed or taken away unseen. What
nobody ordered must have been decided on a verdict: `failed` of the judge or of the policy, or that the time was over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from release_platform.domain.gates import Verdict
from release_platform.domain.ledger import LedgerRow, is_of_rollout
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.rollback import POLICY, Taken
from release_platform.domain.rollout import AUTOMATIC, Rollout

FORMAT = 2


class DecidedBy(StrEnum):
    """Who or what decided."""

    JUDGE = "judge"
    TIME = "time"
    ORDER = "order"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the release store has under a digest.

    Attributes:
        value: What was decided on; None where it is not there, or is something else.
        problem: What is wrong with it; empty when nothing is.
    """

    value: Mapping[str, Any] | None = None
    problem: str = ""


def of_abort(
    after: Rollout, judged: Mapping[str, Any] | None, verdict: Verdict | None, taken: Taken | None
) -> dict[str, Any]:
    """Returns what a rollout was aborted on, as a JSON value.

    Args:
        after: The rollout, aborted.
        judged: What there was to judge of its stage; None where nothing was.
        verdict: What the blocking gates said together; None where nothing was judged.
        taken: What the rollback policy decided, where it did.
    """
    by = DecidedBy.ORDER
    if taken is not None:
        by, verdict = DecidedBy.POLICY, Verdict.FAILED
    elif not after.actor:
        by = DecidedBy.JUDGE if verdict is Verdict.FAILED else DecidedBy.TIME
    return {
        "format": FORMAT,
        "decided_by": by.value,
        "verdict": None if verdict is None else verdict.value,
        "actor": after.actor or AUTOMATIC,
        "reason": after.reason,
        "rollout_id": after.rollout_id,
        "candidate": after.candidate,
        "stable": after.stable,
        "stage": after.stage,
        "judged": judged,
        "policy": None if taken is None else _of(taken),
    }


def of_rollback(taken: Taken) -> dict[str, Any]:
    """Returns what a version was taken back on by policy, as a JSON value."""
    return {
        "format": FORMAT,
        "decided_by": DecidedBy.POLICY.value,
        "verdict": Verdict.FAILED.value,
        "actor": POLICY,
        "reason": taken.reason,
        "policy": _of(taken),
    }


def _of(taken: Taken) -> dict[str, Any]:
    row = taken.watched.row
    return {"epoch": row.epoch, "version": row.version, "to": taken.watched.before, **taken.found}


def must_name(row: LedgerRow) -> bool:
    """Whether a row says in its evidence what it was decided on: it takes a version's traffic away, or brings one back.

    A shadow that ends because the canary begins takes nothing away, and no more does what a person did by hand.
    """
    match row.move:
        case Move.ROLLED_BACK:
            return row.actor == POLICY or is_of_rollout(row.request_id)
        case Move.CANARY_SET | Move.SHADOW_SET:
            goes_on = row.version in Head.from_json(row.after).beside
            is_end = row.actor in {AUTOMATIC, POLICY} or row.request_id.endswith(_OFF)
            return row.weight == 0 and (bool(row.evidence) or (is_end and not goes_on))
        case _:
            return False


def fault_of(row: LedgerRow, kept: Kept) -> str | None:
    """Returns what is wrong with what such a row was decided on, in a sentence; None where nothing is.

    Args:
        row: The row.
        kept: What is kept under its evidence.
    """
    if not row.evidence:
        return f"names nothing that {row.actor} decided on"
    if kept.problem or kept.value is None:
        return f"what it was decided on ({row.evidence}) {kept.problem or 'is not there any more'}"
    value = kept.value
    if value.get("format") != FORMAT:  # of earlier rows, which kept no verdict beside the reason
        return None if value.get("format") == _WITHOUT_VERDICT else f"its evidence ({row.evidence}) cannot be read"
    if (value.get("actor"), value.get("reason")) != (row.actor, row.reason):
        return f"its evidence ({row.evidence}) is of something else: {value.get('reason')}"
    by, verdict = value.get("decided_by"), value.get("verdict")
    if by in _JUDGED and verdict != Verdict.FAILED:
        return f"was decided by {by}, but its evidence ({row.evidence}) found {verdict}, not failed"
    if row.actor == POLICY and by != DecidedBy.POLICY:
        return f"was made by {POLICY}, but its evidence ({row.evidence}) says that {by} decided"
    return None


_OFF = "-off"  # as `effects` calls the move of a rollout that takes a share away
_WITHOUT_VERDICT = 1
_JUDGED = frozenset({DecidedBy.JUDGE, DecidedBy.POLICY})
