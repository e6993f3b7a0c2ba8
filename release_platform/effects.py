"""Brings about what must hold of a rollout: each effect may be done again; what is done already is left as it is."""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from release_platform.adapters.rollout_store import KeptRollout
from release_platform.domain.errors import Unavailable
from release_platform.domain.freeze import find_freeze
from release_platform.domain.ledger import LedgerRow, moves_production, request_of, rollout_move_id, standing
from release_platform.domain.lifecycle import Head, Move, Share
from release_platform.domain.policy import PromotionRequest, RequestState, decide, missing_of
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import Clock
from release_platform.domain.rollout import (
    AUTOMATIC,
    Closed,
    InProduction,
    KeptWarm,
    Rollout,
    RolloutState,
    Traffic,
    wanted,
)
from release_platform.releases import Releases


class Effects:
    """Makes head, aliases, servers and request what a rollout's state says."""

    def __init__(self, releases: Releases, clock: Clock) -> None:
        self._releases = releases
        self._store = releases.store
        self._clock = clock

    def bring_about(self, kept: KeptRollout, policy: PolicySpec) -> tuple[str, ...]:
        """Brings about all that must hold, in its order, and returns what people should know.

        What needs a condition that does not hold now waits, and so does all that comes after it.

        Raises:
            Unavailable: An outside system does not answer.
            Refused: Another transition was first.
        """
        said: list[str] = []
        for effect in wanted(kept.rollout):
            waits = ""
            match effect:
                case InProduction(version=version):
                    waits = self._in_production(kept, version, policy, said)
                case Traffic():
                    waits = self._traffic(kept, effect, policy, said)
                case KeptWarm():  # the alias `previous` names it, and servers keep what it names in memory
                    pass
                case Closed():
                    self._close(kept.rollout)
                case _:
                    assert_never(effect)
            if waits:
                return (*said, waits)
        if kept.rollout.ended:
            self._store.rollouts.settle(kept)
        return tuple(said)

    def holds(self, rollout: Rollout) -> bool:
        """Whether what must hold of head and aliases in the rollout's state does."""
        head = self._store.head(rollout.model)
        for effect in wanted(rollout):
            match effect:
                case InProduction(version=version) if head.production != version:
                    return False
                case Traffic(canary=canary, shadow=shadow):
                    if (_weight(head.canary, rollout), _weight(head.shadow, rollout)) != (canary, shadow):
                        return False
                    if (canary or shadow) and not self._shares_are_shown(rollout.model):
                        return False
        return True

    def _shares_are_shown(self, model: str) -> bool:
        """Whether the aliases show the share that was given last: servers find it there."""
        given = max((row.epoch for row in self._store.ledger(model) if row.weight), default=0)
        return self._store.projected_epoch(model) >= given

    def _in_production(self, kept: KeptRollout, version: str, policy: PolicySpec, said: list[str]) -> str:
        rollout, head = kept.rollout, self._store.head(kept.rollout.model)
        if head.production == version or self._is_overtaken(kept):  # after the head: what it shows is seen
            self._finish(rollout)
            return ""
        if version == rollout.stable:
            actor = rollout.actor or AUTOMATIC
            self._releases.rollback(
                rollout.model,
                to=version,
                actor=actor,
                reason=rollout.reason,
                request_id=rollout_move_id(rollout.rollout_id, "back"),
                expected_epoch=head.epoch,
                evidence=rollout.assessment,
                tell=said.append,
            )
            return ""
        request = self._store.get_request(rollout.rollout_id)
        waits = self._missing(head, request, policy)
        if not waits:
            row = self._commit(
                rollout, head, Move.PROMOTED, request, request_id=rollout.rollout_id, reason=request.reason
            )
            self._releases.finish(row, said.append)
        return waits

    def _traffic(self, kept: KeptRollout, effect: Traffic, policy: PolicySpec, said: list[str]) -> str:
        rollout = kept.rollout
        for move, weight in ((Move.CANARY_SET, effect.canary), (Move.SHADOW_SET, effect.shadow)):
            head = self._store.head(rollout.model)
            present = _weight(head.canary if move is Move.CANARY_SET else head.shadow, rollout)
            if present == weight or self._is_overtaken(kept):
                continue
            request = self._store.get_request(rollout.rollout_id)
            waits = self._missing(head, request, policy) if weight > 0 else ""
            if waits:
                return waits
            route = "canary" if move is Move.CANARY_SET else "shadow"
            what = f"{route}-{rollout.stage}" if weight > 0 else f"{route}-off"
            move_id = rollout_move_id(rollout.rollout_id, what)
            self._commit(rollout, head, move, request, request_id=move_id, reason=rollout.reason, weight=weight)
        self._project(rollout, said)
        return ""

    def _close(self, rollout: Rollout) -> None:
        state = RequestState.PROMOTED if rollout.state is RolloutState.COMPLETED else RequestState.REFUSED
        self._store.close_request(rollout.rollout_id, state, f"its rollout was {rollout.state}: {rollout.reason}")

    def _commit(
        self,
        rollout: Rollout,
        head: Head,
        move: Move,
        request: PromotionRequest,
        *,
        request_id: str,
        reason: str,
        weight: float | None = None,
    ) -> LedgerRow:
        registration = self._store.find_registration(rollout.model, rollout.candidate)
        forward = move.forward(weight)
        return self._store.commit_move(
            model=rollout.model,
            move=move,
            version=rollout.candidate,
            weight=weight,
            expected_epoch=head.epoch,
            actor=request.actor if forward else rollout.actor or AUTOMATIC,
            reason=reason,
            request_id=request_id,
            evidence=rollout.evidence if forward else rollout.assessment,
            digest=registration.digest if registration else "",
        )

    def _missing(self, head: Head, request: PromotionRequest, policy: PolicySpec) -> str:
        """Returns what a forward move waits for: a rollout is decided once, but goes no further in a freeze."""
        if request.version in head.beside:
            frozen = find_freeze(policy.freeze, self._clock.now())
            return frozen.said if frozen is not None else ""
        facts = replace(self._releases.facts_alone(request, policy), head=head)
        return "; ".join(missing_of(decide(facts)))

    def _is_overtaken(self, kept: KeptRollout) -> bool:
        """Whether somebody else moved Production since the rollout began: that is never undone."""
        return find_other_move(kept, self._store.ledger(kept.rollout.model)) is not None

    def _finish(self, rollout: Rollout) -> None:
        """Carries a promotion of this rollout to its end that was cut off after its commit."""
        request = self._store.get_request(rollout.rollout_id)
        row = self._releases.find_done(request)
        if row is not None and request.state is RequestState.OPEN:
            self._releases.finish(row)

    def _project(self, rollout: Rollout, said: list[str]) -> None:
        """Moves the aliases, and tells the servers: of what is taken away before, since the registry may be away.

        Of what is given they are told afterwards: a server that looks at the registry meanwhile finds it there. An
        abort does not wait for the registry: its aliases are moved when it is back (`Projection.reconcile`).
        """
        model = rollout.model
        projected = self._store.projected_epoch(model)
        if projected >= self._store.head(model).epoch:
            return
        rows = self._store.ledger(model)
        last = {row.move: row for row in rows if row.epoch > projected and row.move.weighted}
        for row in (row for row in last.values() if not row.weight):
            self._releases.deliver_beside(row, said.append)
        try:
            self._releases.projection.project(model)
        except Unavailable as away:
            if rollout.state is not RolloutState.ABORTED:
                raise
            said.append(f"{away.problem}; the registry's aliases follow when it is back")
        for row in (row for row in last.values() if row in standing(rows)):
            self._releases.deliver_beside(row, said.append)


def _weight(share: Share | None, rollout: Rollout) -> float:
    return share.weight if share is not None and share.version == rollout.candidate else 0.0


def find_other_move(kept: KeptRollout, rows: Iterable[LedgerRow]) -> LedgerRow | None:
    """Returns the last move of Production since a rollout began that is not its own, or None."""
    later = (row for row in rows if row.epoch > kept.epoch and moves_production(row))
    return max((r for r in later if request_of(r) != kept.rollout.rollout_id), key=lambda r: r.epoch, default=None)
