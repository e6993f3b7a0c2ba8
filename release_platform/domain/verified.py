"""What verifications of the live servers showed after a promotion, and when that takes the version back.

A verification compares answers bit by bit, so it needs no statistics; but a server may be seen while a move is under
way. So one counts only some seconds after the promotion, and only several in a row that failed take a version back.
A server that does not answer is no evidence, and what is old is none either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from release_platform.domain.identity import digest_of
from release_platform.domain.ledger import LedgerRow

SETTLED_S = 10.0
"""So long after a promotion every server has taken it, or does not take it."""
AGAIN_S = 30.0
"""So long after a verification that failed the next one comes."""
COUNTS_S = 7200.0
"""So long a verification that failed is evidence: until the hourly one should have come twice."""
MOST_PROBLEMS = 5
"""How many problems are kept of one verification."""
LONGEST = 500
"""Characters that are kept of one problem."""


class Found(StrEnum):
    """What a verification came to."""

    PASSED = "passed"
    FAILED = "failed"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What one verification of all live servers showed of one model.

    Attributes:
        model: The model's name.
        version: The version that was in Production.
        digest: Its digest, by the ledger.
        epoch: The epoch of the move by which it was.
        at: When it ended, ISO 8601, UTC.
        found: What it came to.
        servers: The addresses that were asked.
        problems: What is wrong, a sentence each; the first ones only where there are many.
    """

    model: str
    version: str
    digest: str
    epoch: int
    at: str
    found: Found
    servers: Sequence[str]
    problems: Sequence[str] = ()

    @property
    def verification_id(self) -> str:
        """Its identity: the digest of all that it says."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return {**asdict(self), "servers": list(self.servers), "problems": list(self.problems)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Verified":
        """Returns the verification that `to_json` wrote.

        Raises:
            ValueError: It is none; so do KeyError and TypeError.
        """
        lists = {name: tuple(value[name]) for name in ("servers", "problems")}
        return Verified(**{**value, **lists, "found": Found(value["found"])})

    def shortened(self) -> "Verified":
        """Returns it as it is kept: the first problems, and each of a bounded length."""
        return replace(self, problems=tuple(problem[:LONGEST] for problem in self.problems[:MOST_PROBLEMS]))


def failures_of(row: LedgerRow, verified: Sequence[Verified], at: datetime) -> tuple[Verified, ...]:
    """Returns the last verifications that failed since a promotion, oldest first, with none between that passed.

    Empty when the last of them is too old to be evidence.

    Args:
        row: The promotion.
        verified: Those of the model, in any order.
        at: The present moment.
    """
    failed: list[Verified] = []
    for one in sorted(_since(row, verified), key=_moment):
        match one.found:
            case Found.PASSED:
                failed.clear()
            case Found.FAILED:
                failed.append(one)
            case Found.UNANSWERED:
                pass
    fresh = bool(failed) and (at - _moment(failed[-1])).total_seconds() <= COUNTS_S
    return tuple(failed) if fresh else ()


def is_due(row: LedgerRow, verified: Sequence[Verified], at: datetime, *, wanted: int) -> bool:
    """Whether a promotion is to be verified now: the first time, and again while too few failures are there."""
    since = _since(row, verified)
    if not since:
        return at >= _settled(row)
    failed = failures_of(row, verified, at)
    last = max(map(_moment, since))
    return 0 < len(failed) < wanted and at >= last + timedelta(seconds=AGAIN_S)


def sentence_of(failed: Sequence[Verified]) -> str:
    """Returns what verifications that failed say together, with the identity of the last; at least one."""
    last = failed[-1]
    more = f" (and {len(last.problems) - 1} more)" if len(last.problems) > 1 else ""
    problem = last.problems[0] if last.problems else "an answer is wrong"
    when = f"{len(failed)} in a row failed, {failed[0].at} to {last.at}" if len(failed) > 1 else f"failed at {last.at}"
    return f"verification: {when}: {problem}{more} ({last.verification_id})"


def _since(row: LedgerRow, verified: Sequence[Verified]) -> list[Verified]:
    """Returns those of a promotion; a drill in between brings the same version back by a later row."""
    settled = _settled(row)
    return [v for v in verified if v.version == row.version and v.epoch >= row.epoch and _moment(v) >= settled]


def _settled(row: LedgerRow) -> datetime:
    return datetime.fromisoformat(row.at) + timedelta(seconds=SETTLED_S)


def _moment(verified: Verified) -> datetime:
    return datetime.fromisoformat(verified.at)
