"""Rollouts: a version comes into Production stage by stage, judged on live traffic. Sensor, jobs and doors call this.

The state is `domain.rollout.Rollout`, kept in the release store and replaced as a whole, if nobody else was first.
After that, all that must hold in the new state is brought about. Whoever is killed between the two, or anywhere in the
second, leaves a state from which the next step does all of it again; what is done already is left as it is.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.rollout_store import KeptRollout
from release_platform.domain.asked_rollout import NOTHING_ASKED, AskedRollout, find_laxer, plan_of
from release_platform.domain.assessed import of_abort
from release_platform.domain.errors import IntegrityError, NotFound, Refused
from release_platform.domain.freeze import find_freeze
from release_platform.domain.judge import SETTLE_S, Assessment, Evidence, Plan, plan, settled_minute
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.policy import PromotionRequest, RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import Clock, Given, Servers
from release_platform.domain.rollback import Taken
from release_platform.domain.rollout import (
    AUTOMATIC,
    Begun,
    Order,
    Ordered,
    Rollout,
    RolloutState,
    Ticked,
    advance,
    begin,
)
from release_platform.domain.spec import ModelSpec
from release_platform.domain.strategy import RolloutSpec, Strategy
from release_platform.effects import Effects, find_other_move
from release_platform.live_traffic import RECENT, LiveTraffic, Round
from release_platform.releases import Releases, Tell, check_words, keep_quiet
from release_platform.window_history import WindowHistory

ATTEMPTS = 5
"""How often an order is given again because the rollout moved on meanwhile."""
LATE = timedelta(minutes=2)
"""A look that is due for longer is told: `rollout_sensor` looks every five seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one look at a rollout came to.

    Attributes:
        before: Where it stood.
        after: Where it stands.
        judged: What the judge looked at; None when there was nothing new to judge.
        said: Sentences for people: servers that do not answer, what waits and for what.
        settled: Whether it has ended, and all that must hold at its end was brought about.
    """

    before: Rollout
    after: Rollout
    judged: Evidence | None = None
    said: tuple[str, ...] = ()
    settled: bool = False

    @property
    def looked(self) -> tuple[Assessment, ...]:
        """What each gate found; empty when there was nothing new to judge."""
        return () if self.judged is None else self.judged.found

    @property
    def moved(self) -> bool:
        """Whether stage or state are others than before."""
        return (self.before.stage, self.before.state) != (self.after.stage, self.after.state)


class Rollouts:
    """The rollouts of all models in one release store, over the live servers."""

    def __init__(self, releases: Releases, servers: Servers | None = None, clock: Clock | None = None) -> None:
        self._releases = releases
        self._store = releases.store
        self._traffic = LiveTraffic(releases.store, servers)
        self._history = WindowHistory(releases.store.windows)
        self._clock = clock or SystemClock()
        self._effects = Effects(releases, self._clock)

    def carry_out(self, request_id: str, spec: ModelSpec, *, tell: Tell = keep_quiet) -> LedgerRow | Rollout:
        """Does what a request asks for, if every condition holds: moves Production, or begins the rollout to it.

        The first release has nothing to be compared with, and goes all at once. Again changes nothing.

        Raises:
            Refused: A condition does not hold, or another transition or rollout was first.
            IntegrityError: The version's files are not the registered ones.
        """
        request = self._store.get_request(request_id)
        kept = self._store.rollouts.find(request_id)
        if kept is None:
            first = self._store.head(request.model).production is None
            chosen = _plan(request.model, spec.rollout, request.strategy, request.asked, first=first)
            if chosen.strategy is Strategy.ALL_AT_ONCE or first or self._releases.find_done(request) is not None:
                return self._releases.promote(request_id, spec.policy, tell=tell)
            kept = self._begin(request, chosen, spec.policy)
        for sentence in self._effects.bring_about(kept, spec.policy):
            tell(sentence)
        return self._begun(kept).rollout

    def request(
        self,
        spec: ModelSpec,
        *,
        version: str | None,
        actor: str,
        reason: str,
        request_id: str | None = None,
        strategy: Strategy | None = None,
        asked: AskedRollout = NOTHING_ASKED,
    ) -> PromotionRequest:
        """Opens a promotion request, see `Releases.request`, if its rollout is one that the model's YAML allows.

        Raises:
            Refused: It would skip what the YAML demands before a version gets more traffic, or is no rollout.
        """
        first = self._store.head(spec.name).production is None
        _plan(spec.name, spec.rollout, strategy, asked, first=first)
        return self._releases.request(
            spec.name,
            version=version,
            actor=actor,
            reason=reason,
            request_id=request_id,
            strategy=strategy,
            asked=asked,
        )

    def ask(self) -> Round:
        """Returns a round in which the servers are asked once, for the steps of many models."""
        return self._traffic.ask(self._clock.now())

    def step(self, model: str, spec: ModelSpec, heard: Round | None = None) -> Step | None:
        """Looks at a model's rollout once: collects, judges, goes on, and brings about what must hold then.

        Args:
            model: The model's name.
            spec: Its spec.
            heard: What the servers hand in; None: they are asked now.

        Returns:
            What it came to; None when there is no rollout, or another process was first.

        Raises:
            Unavailable: An outside system does not answer; the next step does it again.
            Refused: Another transition was first; so does the next step.
        """
        kept = self._store.rollouts.find_current(model)
        if kept is None:
            return None
        heard = heard or self.ask()
        said = self._collect(kept.rollout, heard)
        rollout, judged = self._advanced(kept, spec.policy, heard.at)
        rollout = self._with_assessment(kept.rollout, rollout)
        after = kept if rollout == kept.rollout else self._store.rollouts.save(kept, rollout)
        if after is None:
            return None
        said += self._effects.bring_about(after, spec.policy)
        rollout = self._begun(after).rollout
        current = self._store.rollouts.find_current(model)
        return Step(before=kept.rollout, after=rollout, judged=judged, said=said, settled=current is None)

    def order(
        self,
        model: str,
        order: Order,
        *,
        actor: str,
        reason: str,
        policy: PolicySpec,
        taken: Taken | None = None,
        tell: Tell = keep_quiet,
    ) -> Rollout:
        """Does what a person orders of a model's rollout, and returns where it stands then.

        The same order of the same person with the same reason, sent again, changes nothing. `taken` is what the
        rollback policy found, where the order is its.

        Raises:
            NotFound: The model has no rollout.
            Refused: The order makes no sense now, promotions are frozen, or actor or reason are missing.
        """
        check_words(f"to {order} a rollout", actor, reason)
        for _ in range(ATTEMPTS):
            now = self._clock.now()
            kept = self.get(model)
            asked = Ordered(order=order, actor=actor, reason=reason, at=now, freeze=policy.freeze)
            ordered = self._ordered(kept, asked)
            rollout = self._with_assessment(kept.rollout, ordered, taken)
            after = kept if rollout == kept.rollout else self._store.rollouts.save(kept, rollout)
            if after is not None:
                break
        else:
            raise Refused(f"{model}: its rollout does not stand still", remedy="order it again")
        if not after.settled:
            for sentence in self._effects.bring_about(after, policy):
                tell(sentence)
        return self._begun(after).rollout

    def get(self, model: str) -> KeptRollout:
        """Returns the rollout of a model that is under way, or else the one that began last.

        Raises:
            NotFound: There never was one.
        """
        kept = self._store.rollouts.find_current(model) or self._store.rollouts.find_last(model)
        if kept is None:
            raise NotFound(
                f"{model}: there is no rollout",
                remedy=f"`release promote {model} --strategy canary` begins one, or `rollout` in its defs.yaml",
            )
        return kept

    def evidence(self, rollout: Rollout) -> Evidence | None:
        """Returns what there is to judge of the present stage; of a rollout that has ended, what ended it.

        None when the stage has no concurrent control, or no minute of it is over.
        """
        now = self._clock.now()
        planned = plan(replace(rollout, state=RolloutState.RUNNING, paused_at=None))
        until = rollout.judged if rollout.ended else settled_minute(now)
        if planned is None or until < planned.first_minute:
            return None
        return self._evidence(planned, until)

    def overdue(self, rollout: Rollout, policy: PolicySpec) -> datetime | None:
        """Returns since when the next look at a rollout is due, if for so long that nobody seems to look any more."""
        now, planned = self._clock.now(), plan(rollout)
        if rollout.ended or find_freeze(policy.freeze, now) is not None or not rollout.begun:
            return None
        if planned is not None:
            minute = max(rollout.judged + 1, planned.first_minute)
            due = datetime.fromtimestamp(60 * (minute + 1) + SETTLE_S, UTC)
        elif rollout.state is RolloutState.PAUSED:
            return None
        else:
            over_s = rollout.elapsed_s(now, policy.freeze) - rollout.present.minimum_s
            due = now - timedelta(seconds=over_s)
        return due if now - due >= LATE else None

    def assessment(self, rollout: Rollout) -> dict[str, Any] | None:
        """Returns what an aborted rollout was decided on, as it was kept, with its digest; None of any other.

        Raises:
            IntegrityError: It was changed in the release store, or is not there any more.
        """
        if not rollout.assessment:
            return None
        kept = self._store.assessments.find(rollout.assessment)
        if kept is None:
            raise IntegrityError(
                f"release store: what the rollout {rollout.rollout_id} was aborted on is not there any more",
                remedy="somebody changed the database: restore a backup",
            )
        return {"digest": rollout.assessment, **kept}

    def _evidence(self, planned: Plan, until: int) -> Evidence:
        period = planned.model, planned.first_minute, until
        holes = self._store.windows.holes(*period)
        return Evidence(planned=planned, windows=self._history.windows(*period), holes=holes, until=until)

    def _with_assessment(self, before: Rollout, after: Rollout, taken: Taken | None = None) -> Rollout:
        """Returns an aborted rollout with the digest of what there was to judge, which is kept first."""
        if after.state is not RolloutState.ABORTED or before.ended:
            return after
        there = self.evidence(after)
        judged, verdict = (None, None) if there is None else (there.to_json(), there.verdict)
        value = of_abort(after, judged, verdict, taken)
        return replace(after, assessment=self._store.assessments.record(after.model, value))

    def _begin(self, request: PromotionRequest, chosen: RolloutSpec, policy: PolicySpec) -> KeptRollout:
        facts = self._releases.facts(request, policy)
        evidence = self._releases.check_ready(facts)
        rollout, _ = begin(
            rollout_id=request.request_id,
            model=request.model,
            candidate=request.version,
            stable=facts.head.production,
            plan=chosen,
            at=self._clock.now(),
            evidence=evidence,
        )
        return self._store.rollouts.open(rollout, epoch=facts.head.epoch)

    def _collect(self, rollout: Rollout, heard: Round) -> tuple[str, ...]:
        """Keeps what the servers counted since the last judged minute, and returns a sentence for each problem.

        A window that comes after its minute was judged is left out, so that what was judged never changes.
        """
        if rollout.ended:
            return ()
        planned = plan(rollout)
        if planned is None:  # nothing is judged: only the record is kept
            return self._traffic.collect(rollout.model, heard, after=heard.last - RECENT)
        after = max(rollout.judged, int(rollout.since.timestamp() // 60) - 1)
        share = Given(route=planned.route, version=planned.candidate, weight=rollout.present.share)
        return self._traffic.collect_all(rollout.model, share, heard, after=after)

    def _begun(self, kept: KeptRollout) -> KeptRollout:
        """Returns a rollout whose stage begins now, if all that must hold in it was brought about by now."""
        rollout = kept.rollout
        if rollout.begun or rollout.ended or not self._effects.holds(rollout):
            return kept
        begun, _ = advance(rollout, Begun(stage=rollout.stage, at=self._clock.now()))
        return self._store.rollouts.save(kept, begun) or kept

    def _advanced(self, kept: KeptRollout, policy: PolicySpec, now: datetime) -> tuple[Rollout, Evidence | None]:
        rollout = kept.rollout
        if rollout.ended:
            return rollout, None
        ending = self._find_end(kept, now)
        if ending is not None:
            return advance(rollout, ending)[0], None
        there: Evidence | None = None
        planned = plan(rollout)
        if planned is not None and settled_minute(now) > max(rollout.judged, planned.first_minute - 1):
            there = self._evidence(planned, settled_minute(now))
            rollout, _ = advance(rollout, replace(there.event(now), freeze=policy.freeze))
        rollout, _ = advance(rollout, Ticked(stage=rollout.stage, at=now, freeze=policy.freeze))
        return rollout, there

    def _find_end(self, kept: KeptRollout, now: datetime) -> Ordered | None:
        """Returns what ended a rollout behind its back: another move of Production, or its request was closed."""
        row = find_other_move(kept, self._store.ledger(kept.rollout.model))
        if row is not None:
            reason = f"version {row.version} was {row.move}: {row.reason}"
            return Ordered(order=Order.ABORT, actor=row.actor, reason=reason, at=now)
        request = self._store.get_request(kept.rollout.rollout_id)
        if request.state in {RequestState.REFUSED, RequestState.CANCELLED}:
            reason = f"its request is {request.state}: {request.outcome}"
            return Ordered(order=Order.ABORT, actor=AUTOMATIC, reason=reason, at=now)
        return None

    def _ordered(self, kept: KeptRollout, ordered: Ordered) -> Rollout:
        rollout = kept.rollout
        if rollout.reason == ordered.said:
            return rollout
        frozen = find_freeze(ordered.freeze, ordered.at)
        if ordered.order is Order.PROMOTE and frozen is not None and not rollout.ended:
            raise Refused(f"{rollout.model}: {frozen.said}", remedy="promote it after that")
        return advance(rollout, ordered)[0]


def _plan(model: str, own: RolloutSpec, strategy: str | None, asked: AskedRollout, *, first: bool) -> RolloutSpec:
    """Returns the rollout that a request asks for; the first release has none, so there is nothing to be skipped."""
    try:
        plan = plan_of(own, None if strategy is None else Strategy(strategy), asked)
    except ValueError as error:
        raise Refused(
            f"{model}: its rollout cannot go" + (f" by {strategy}" if strategy else "") + f": {error}",
            remedy="change `rollout` in its defs.yaml, or ask for another rollout",
        ) from None
    laxer = None if first else find_laxer(own, plan)
    if laxer is not None:
        raise Refused(
            f"{model}: a request may ask for more than its defs.yaml demands, not for less: {laxer}",
            remedy="ask for as much, or change `rollout` in its defs.yaml; `release rollout promote` is the order of "
            "a person to go on without the judge",
        )
    return plan
