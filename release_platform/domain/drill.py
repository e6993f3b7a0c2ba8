"""Drills: Production goes to the previous version and back under the current load, to show that a rollback works.

```
production 2, previous 1 --rolled_back to 1 ("there")--> production 1 --rolled_back to 2 ("back")--> as before
```

Both are ordinary rollbacks in the ledger, so a drill that was cut off between them is read off the ledger's last row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from release_platform.domain.errors import Refused
from release_platform.domain.ledger import LedgerRow, moves_production
from release_platform.domain.lifecycle import Head, Move, advance

_OF_DRILL = "#drill-"
REASON = "drill: "
"""How the reason of both moves begins."""


class Half(StrEnum):
    """The two moves of a drill."""

    THERE = "there"
    BACK = "back"


class Outcome(StrEnum):
    """What a drill came to."""

    READY = "ready"
    NOT_READY = "not_ready"
    OVERTAKEN = "overtaken"
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """From which version in Production to which former one, and back."""

    home: str
    away: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a server, or what came instead of it.

    Attributes:
        url: The server.
        at: When all of it was there.
        version: The version that it names; empty where there is no answer.
        epoch: The epoch that it names, as text.
        problem: What is wrong with it; empty when it is right.
    """

    url: str
    at: datetime
    version: str = ""
    epoch: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """What a drill showed.

    Attributes:
        drill_id: Its identity.
        model: The model's name.
        home: The version that is in Production before and after it.
        away: The version that was before, to which a rollback goes.
        at: When it ended, ISO 8601, UTC.
        actor: Who ordered it.
        outcome: What it came to.
        there_ms: From the commit of the first move until the last server answered with `away` only; None: never.
        back_ms: The same of the second move and `home`.
        servers: The milliseconds there and back of each server, by its address.
        n_requests: How many requests were made meanwhile.
        n_failures: How many of them got no answer or a wrong one.
        problems: What is wrong, a sentence each; some only where there are many.
    """

    drill_id: str
    model: str
    home: str
    away: str
    at: str
    actor: str
    outcome: Outcome
    there_ms: float | None = None
    back_ms: float | None = None
    servers: Mapping[str, Sequence[float | None]]
    n_requests: int = 0
    n_failures: int = 0
    problems: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return {**asdict(self), "problems": list(self.problems)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Drilled":
        """Returns the drill that `to_json` wrote.

        Raises:
            ValueError: It is none; so do KeyError and TypeError.
        """
        return Drilled(**{**value, "outcome": Outcome(value["outcome"]), "problems": tuple(value["problems"])})

    @property
    def slowest_ms(self) -> float:
        """The longer one of both ways."""
        return max(self.there_ms or 0.0, self.back_ms or 0.0)


def plan_drill(head: Head) -> Route:
    """Returns where a drill goes from a head.

    Raises:
        Refused: There is no previous version, a version is asked beside Production, or the way back would lead to
            another head than the one before.
    """
    if head.production is None or not head.previous:
        raise Refused(
            f"{head.model}: there is no previous Production version, so no rollback to drill",
            remedy="a drill is possible after the next promotion",
        )
    if head.beside:
        raise Refused(
            f"{head.model}: version {min(head.beside)} is asked beside Production",
            remedy="wait until its rollout has ended",
        )
    route = Route(home=head.production, away=head.previous[-1])
    there = advance(head, Move.ROLLED_BACK, route.away)
    back = advance(there, Move.ROLLED_BACK, route.home)
    if back.previous != head.previous:
        raise Refused(
            f"{head.model}: version {route.home} stands among the previous versions too, and after a drill "
            f"version {route.away} would not be the previous one any more",
            remedy="a drill is possible after the next promotion of another version",
        )
    return route


def drill_move_id(drill_id: str, half: Half) -> str:
    """Returns the request id of a move of a drill."""
    return f"{drill_id}{_OF_DRILL}{half}"


def find_drill(row: LedgerRow) -> tuple[str, Half] | None:
    """Returns the drill that a row is of, and which half of it; None for any other move."""
    drill_id, mark, half = row.request_id.rpartition(_OF_DRILL)
    if row.move is not Move.ROLLED_BACK or not mark or half not in list(Half):
        return None
    return drill_id, Half(half)


def find_unfinished(rows: Iterable[LedgerRow]) -> LedgerRow | None:
    """Returns the first half of a drill after which Production did not move any more, or None.

    Args:
        rows: The rows of one model, by epoch.
    """
    last = None
    for row in rows:
        last = row if moves_production(row) else last
    of = find_drill(last) if last is not None else None
    return last if of is not None and of[1] is Half.THERE else None


def find_unfinished_id(rows: Iterable[LedgerRow]) -> str | None:
    """Returns the id of the drill whose first half is Production's last move, or None."""
    row = find_unfinished(rows)
    of = None if row is None else find_drill(row)
    return None if of is None else of[0]


def swap_ms(answers: Iterable[Answer], version: str, epoch: int, committed: datetime) -> float | None:
    """Returns after how many milliseconds one server answered with a version, and never with another after that.

    Args:
        answers: All that it answered from the commit to the next one, in order; those without a version are left out.
        version: The version that the move put into Production.
        epoch: The epoch of the move.
        committed: When the move was committed.

    Returns:
        Milliseconds, 0 and up; None when it did not answer with it, or another answer came last.
    """
    since = None
    for answer in answers:
        if not answer.version:
            continue
        if (answer.version, answer.epoch) == (version, str(epoch)):
            since = answer.at if since is None else since
        else:
            since = None
    return None if since is None else max((since - committed).total_seconds() * 1000, 0.0)


def slowest(found: Iterable[float | None]) -> float | None:
    """Returns the longest of some times; None when there is none, or one of them never came."""
    times = list(found)
    return None if not times or None in times else max(time for time in times if time is not None)


def readiness(found: Drilled | None, head: Head, now: datetime) -> dict[str, Any] | None:
    """Returns what the last drill says of a rollback now; None when there is nothing to roll back to.

    What was drilled with other versions than those that stand in Production and before it shows nothing.
    """
    if head.production is None or not head.previous:
        return None
    pair = (head.production, head.previous[-1])
    if found is None or (found.home, found.away) != pair:
        return {
            "ready": None,
            "said": f"a rollback from version {pair[0]} to {pair[1]} was never drilled",
            "last": None if found is None else found.to_json(),
        }
    ready = found.outcome is Outcome.READY
    what = f"rollback-ready, {found.slowest_ms:.0f} ms" if ready else f"not rollback-ready: {found.problems[0]}"
    return {
        "ready": ready,
        "said": f"{what}, {ago(datetime.fromisoformat(found.at), now)}",
        "last": found.to_json(),
    }


def ago(moment: datetime, now: datetime) -> str:
    """Returns in a few words how long a moment is past."""
    seconds = (now - moment).total_seconds()
    for size_s, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size_s:
            number = int(seconds // size_s)
            return f"{number} {name}{'s' if number > 1 else ''} ago"
    return "just now"
