"""A version's way into Production, stage by stage.

```
             passed, minima reached                          bake time over, or promote
running(stage i) ------------> running(stage i + 1) ... running(full) ------------> completed
   |  ^                                                    |
   |  | resume          promote: straight to full          |
pause |                                                    |
   v  |                                                    |
 paused ----- abort, failed, or maximum time over ---------+----------------------> aborted
```

The state is a frozen `Rollout`; `advance` is the one transition function. What must hold of the outside world is a
function of the state alone, `wanted`: whoever was killed at any moment does all of it again, in its order.

Which events count:

- What the machine notices (`Assessed`, `Ticked`) may be late or come twice. It is ignored when the rollout has ended,
  when it is of another stage, from before the stage, or of a minute that was judged already.
- What a person orders is refused, with the reason, when it makes no sense in the present state.
- A paused rollout goes no further and its maximum time stands still, but a failed gate aborts it all the same. So does
  one in a freeze, and one whose stage has not `Begun`: what must hold in it could not be brought about yet.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from release_platform.domain.errors import Refused
from release_platform.domain.freeze import FreezeWindow, find_freeze, frozen_s
from release_platform.domain.gates import Verdict
from release_platform.domain.json_form import exactly
from release_platform.domain.strategy import RolloutSpec, Stage, StageKind, Strategy

FORMAT = 1
AUTOMATIC = "rollout"
"""The actor of what no person ordered: the judge and the clock."""


class RolloutState(StrEnum):
    """Whether a rollout goes on. `completed` and `aborted` are final."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"


class Order(StrEnum):
    """What a person may order."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    PROMOTE = "promote"


def order_named(name: str) -> Order:
    """Returns the order of a name that a person gives.

    Raises:
        Refused: There is no such order.
    """
    try:
        return Order(name)
    except ValueError:
        raise Refused(f"there is no order '{name}'", remedy=f"known are: {', '.join(Order)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """The judge looked.

    Attributes:
        stage: The stage that it looked at.
        minute: The last minute that it looked at, since 1970.
        verdict: What it found over all blocking gates.
        n: Requests (of a shadow: pairs) that the candidate answered in the stage.
        reason: One sentence for people.
        at: When.
        freeze: The times in which nothing goes to Production.
    """

    stage: int
    minute: int
    verdict: Verdict
    n: int
    reason: str
    at: datetime
    freeze: tuple[FreezeWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """Time went on; `freeze` is as in `Assessed`."""

    stage: int
    at: datetime
    freeze: tuple[FreezeWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What must hold in a stage was brought about: its time and its evidence count from this moment."""

    stage: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A person, or the rollback policy in its own name, ordered something; `freeze` is as in `Assessed`."""

    order: Order
    actor: str
    reason: str
    at: datetime
    freeze: tuple[FreezeWindow, ...] = ()

    @property
    def said(self) -> str:
        """The sentence by which it is kept."""
        return f"{self.order} by {self.actor}: {self.reason}"


Event = Assessed | Ticked | Begun | Ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class InProduction:
    """This version stands in Production."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """These shares of the traffic go to the candidate beside Production, 0 to 1."""

    canary: float
    shadow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWarm:
    """This version stays loaded, so that going back to it takes no loading."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The promotion request is closed with this outcome: no traffic goes to its version any more."""

    state: RolloutState
    reason: str


Effect = InProduction | Traffic | KeptWarm | Closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Where a rollout stands.

    Attributes:
        rollout_id: Its id: that of the promotion request.
        model: The model's name.
        candidate: The version that comes.
        stable: The version that was in Production at the start; None for the first release, which has one stage.
        plan: Strategy, stages and gates, as they were at the start.
        since: When the present stage began; while it has not, when it was entered.
        begun: Whether it has: what must hold in it was brought about.
        state: Whether it goes on.
        stage: Index of the present stage.
        judged: The last minute that the judge looked at, since 1970; -1: it has not in this stage.
        paused_at: When the present pause began; None while it is not paused.
        paused_s: Seconds of earlier pauses in this stage, without those of a freeze.
        reason: Why it is where it is.
        actor: Who ordered that; empty when nobody did: the judge, or time.
        evidence: What the approvals of its request were bound to when it began.
        assessment: Digest of what there was to judge when it was aborted; empty before.
    """

    rollout_id: str
    model: str
    candidate: str
    stable: str | None
    plan: RolloutSpec
    since: datetime
    begun: bool = True
    state: RolloutState = RolloutState.RUNNING
    stage: int = 0
    judged: int = -1
    paused_at: datetime | None = None
    paused_s: float = 0.0
    reason: str = "it began"
    actor: str = ""
    evidence: str = ""
    assessment: str = ""

    def __post_init__(self) -> None:
        if self.candidate == self.stable or not 0 <= self.stage < len(self.plan.stages):
            raise ValueError("a rollout brings another version, and is in one of its stages")
        if self.stable is None and self.plan.strategy is not Strategy.ALL_AT_ONCE:
            raise ValueError("the first release has nothing to be compared with: its strategy is all_at_once")
        if (self.state is RolloutState.PAUSED) != (self.paused_at is not None) or self.paused_s < 0 or self.judged < -1:
            raise ValueError("what is paused says since when, and nothing else does")
        if self.since.tzinfo is None or (self.paused_at is not None and self.paused_at.tzinfo is None):
            raise ValueError("a rollout's moments carry their zone")

    @property
    def present(self) -> Stage:
        """The present stage."""
        return self.plan.stages[self.stage]

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state in {RolloutState.COMPLETED, RolloutState.ABORTED}

    @property
    def said(self) -> str:
        """Where it stands, in a few words."""
        stage = f"stage {self.stage + 1} of {len(self.plan.stages)}, {self.present.said}"
        return f"{self.state}: {self.reason}" if self.ended else f"{self.state} in {stage}"

    def elapsed_s(self, at: datetime, freeze: tuple[FreezeWindow, ...] = ()) -> float:
        """Returns how long the present stage has lasted at a moment, in seconds; pauses and a freeze do not count."""
        until = at if self.paused_at is None else self.paused_at
        still_s = self.paused_s + frozen_s(freeze, self.since, until)
        return max((until - self.since).total_seconds() - still_s, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Returns the rollout as a JSON value."""
        return {
            "format": FORMAT,
            "rollout_id": self.rollout_id,
            "model": self.model,
            "candidate": self.candidate,
            "stable": self.stable,
            "plan": self.plan.to_json(),
            "since": _text(self.since),
            "begun": self.begun,
            "state": self.state.value,
            "stage": self.stage,
            "judged": self.judged,
            "paused_at": None if self.paused_at is None else _text(self.paused_at),
            "paused_s": self.paused_s,
            "reason": self.reason,
            "actor": self.actor,
            "evidence": self.evidence,
            "assessment": self.assessment,
        }

    @staticmethod
    def from_json(value: object) -> "Rollout":
        """Returns the rollout that `to_json` wrote; raises ValueError for anything else, or for another format."""
        kept = (
            {"assessment": "", "begun": True, **value} if isinstance(value, dict) else value
        )  # earlier ones have none
        of = dict(exactly(kept, "rollout", **_FIELDS))
        if of.pop("format") != FORMAT:
            raise ValueError(f"only rollouts of format {FORMAT} can be read")
        of["plan"] = RolloutSpec.from_json(of["plan"])
        of["state"] = RolloutState(of["state"])
        of["since"] = datetime.fromisoformat(of["since"])
        of["paused_at"] = None if of["paused_at"] is None else datetime.fromisoformat(of["paused_at"])
        return Rollout(**of)


def begin(
    *,
    rollout_id: str,
    model: str,
    candidate: str,
    stable: str | None,
    plan: RolloutSpec,
    at: datetime,
    evidence: str = "",
) -> tuple[Rollout, tuple[Effect, ...]]:
    """Returns a new rollout in its first stage, and what must hold. The first release goes all at once."""
    fitting = plan if stable is not None else replace(plan, strategy=Strategy.ALL_AT_ONCE)
    rollout = Rollout(
        rollout_id=rollout_id,
        model=model,
        candidate=candidate,
        stable=stable,
        plan=fitting,
        since=at.astimezone(UTC),
        begun=False,
        evidence=evidence,
    )
    return rollout, wanted(rollout)


def advance(rollout: Rollout, event: Event) -> tuple[Rollout, tuple[Effect, ...]]:
    """Returns the rollout after an event, and what must hold then; nothing when that is what had to hold before.

    Raises:
        Refused: A person's order makes no sense now; says why.
    """
    match event:
        case Assessed():
            moved = _assessed(rollout, event)
        case Ticked():
            moved = _ticked(rollout, event)
        case Begun():
            moved = _begun(rollout, event)
        case Ordered():
            moved = replace(_ordered(rollout, event), actor=event.actor)
        case _:
            assert_never(event)
    effects = wanted(moved)
    return moved, () if effects == wanted(rollout) else effects


def wanted(rollout: Rollout) -> tuple[Effect, ...]:
    """Returns what must hold in this state, in the order in which it is brought about; each may be done again."""
    kind, share = rollout.present.kind, rollout.present.share
    none = Traffic(canary=0.0, shadow=0.0)
    closed = Closed(state=rollout.state, reason=rollout.reason)
    if rollout.state is RolloutState.ABORTED:  # closed first: whoever gives the candidate traffic now is refused
        back = () if rollout.stable is None else (InProduction(version=rollout.stable),)
        return (closed, none, *back)
    if rollout.state is RolloutState.COMPLETED:
        return InProduction(version=rollout.candidate), none, closed
    if kind is StageKind.FULL:  # Production moves first: the canary's share must not fall back to the old version
        warm = () if rollout.stable is None else (KeptWarm(version=rollout.stable),)
        return InProduction(version=rollout.candidate), none, *warm
    assert rollout.stable is not None
    canary, shadow = (share, 0.0) if kind is StageKind.CANARY else (0.0, share)
    return InProduction(version=rollout.stable), Traffic(canary=canary, shadow=shadow)


def _is_late(rollout: Rollout, event: Assessed | Ticked | Begun) -> bool:
    return rollout.ended or event.stage != rollout.stage or event.at < rollout.since


def _stands_still(rollout: Rollout, event: Assessed | Ticked) -> bool:
    paused = rollout.state is RolloutState.PAUSED
    return paused or not rollout.begun or find_freeze(event.freeze, event.at) is not None


def _assessed(rollout: Rollout, event: Assessed) -> Rollout:
    if _is_late(rollout, event) or event.minute <= rollout.judged:
        return rollout
    judged = replace(rollout, judged=event.minute)
    if event.verdict is Verdict.FAILED:
        return _ended(judged, RolloutState.ABORTED, event.reason)
    if _stands_still(rollout, event):
        return judged
    stage, elapsed_s = rollout.present, rollout.elapsed_s(event.at, event.freeze)
    passed = event.verdict is Verdict.PASSED and event.n >= stage.minimum
    if passed and elapsed_s >= stage.minimum_s:
        return _next(judged, event.at, event.reason)
    return _timed_out(judged, elapsed_s)


def _ticked(rollout: Rollout, event: Ticked) -> Rollout:
    if _is_late(rollout, event) or _stands_still(rollout, event):
        return rollout
    stage, elapsed_s = rollout.present, rollout.elapsed_s(event.at, event.freeze)
    if stage.kind is StageKind.FULL and elapsed_s >= stage.minimum_s:
        return _ended(rollout, RolloutState.COMPLETED, f"all traffic for {stage.minimum_s:g} s")
    return _timed_out(rollout, elapsed_s)


def _begun(rollout: Rollout, event: Begun) -> Rollout:
    if rollout.begun or _is_late(rollout, event):
        return rollout
    at = event.at.astimezone(UTC)
    paused_at = None if rollout.paused_at is None else max(rollout.paused_at, at)
    return replace(rollout, since=at, begun=True, judged=-1, paused_at=paused_at, paused_s=0.0)


def _timed_out(rollout: Rollout, elapsed_s: float) -> Rollout:
    most = rollout.present.maximum_s
    if most is None or elapsed_s < most:
        return rollout
    return _ended(rollout, RolloutState.ABORTED, f"the gates did not pass within {most:g} s")


def _ordered(rollout: Rollout, event: Ordered) -> Rollout:
    if rollout.ended:
        raise _refused(rollout, event, f"it is {rollout.state} already")
    why = event.said
    match event.order:
        case Order.PAUSE:
            if rollout.state is RolloutState.PAUSED:
                raise _refused(rollout, event, "it is paused already")
            at = max(event.at.astimezone(UTC), rollout.since)
            return replace(rollout, state=RolloutState.PAUSED, paused_at=at, reason=why)
        case Order.RESUME:
            return _resumed(rollout, event, why)
        case Order.ABORT:
            if rollout.stable is None:
                raise _refused(rollout, event, "it is the first release: there is no version to go back to")
            return _ended(rollout, RolloutState.ABORTED, why)
        case Order.PROMOTE:
            if rollout.present.kind is StageKind.FULL:
                return _ended(rollout, RolloutState.COMPLETED, why)
            return _entered(rollout, len(rollout.plan.stages) - 1, event.at, why)
        case _:
            assert_never(event.order)


def _resumed(rollout: Rollout, event: Ordered, why: str) -> Rollout:
    if rollout.paused_at is None:
        raise _refused(rollout, event, "it is not paused")
    pause_s = (event.at - rollout.paused_at).total_seconds() - frozen_s(event.freeze, rollout.paused_at, event.at)
    paused_s = rollout.paused_s + max(pause_s, 0.0)
    return replace(rollout, state=RolloutState.RUNNING, paused_at=None, paused_s=paused_s, reason=why)


def _next(rollout: Rollout, at: datetime, why: str) -> Rollout:
    if rollout.present.kind is StageKind.FULL:
        return _ended(rollout, RolloutState.COMPLETED, why)
    return _entered(rollout, rollout.stage + 1, at, why)


def _entered(rollout: Rollout, stage: int, at: datetime, why: str) -> Rollout:
    since = max(at.astimezone(UTC), rollout.since + timedelta(seconds=rollout.paused_s))
    running = replace(rollout, state=RolloutState.RUNNING, paused_at=None, paused_s=0.0, actor="")
    return replace(running, stage=stage, since=since, begun=False, judged=-1, reason=why)


def _ended(rollout: Rollout, state: RolloutState, why: str) -> Rollout:
    return replace(rollout, state=state, paused_at=None, reason=why, actor="")


def _refused(rollout: Rollout, event: Ordered, why: str) -> Refused:
    return Refused(
        f"{rollout.model}: the rollout of version {rollout.candidate} cannot {event.order}: {why}",
        remedy="nothing is to be done" if rollout.ended else "look at where it stands, then decide again",
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


_FIELDS: dict[str, Any] = {
    "format": int,
    "rollout_id": str,
    "model": str,
    "candidate": str,
    "stable": (str, type(None)),
    "plan": dict,
    "since": str,
    "begun": bool,
    "state": str,
    "stage": int,
    "judged": int,
    "paused_at": (str, type(None)),
    "paused_s": (int, float),
    "reason": str,
    "actor": str,
    "evidence": str,
    "assessment": str,
}
