"""Brings about what must hold of a rollout: each effect may be done again; what is done already is left as it is."""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from release_platform.adapters.rollout_store import KeptRollout
from release_platform.domain.freeze import find_freeze
from release_platform.domain.ledger import LedgerRow, moves_production, request_of, rollout_move_id, standing
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.policy import PromotionRequest, RequestState, decide, missing_of
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import Clock
from release_platform.domain.rollout import (
    AUTOMATIC,
    Ended,
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
            match effect:
                case InProduction(version=version):
                    waits = self._in_production(kept, version, policy, said)
                case Traffic():
                    waits = self._traffic(kept, effect, policy, said)
                case KeptWarm():  # the alias `previous` names it, and servers keep what it names in memory
                    waits = ""
                case Ended():
                    waits = self._ended(kept)
                case _:
                    assert_never(effect)
            if waits:
                return (*said, waits)
        return tuple(said)

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
            share = head.canary if move is Move.CANARY_SET else head.shadow
            present = share.weight if share is not None and share.version == rollout.candidate else 0.0
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
        self._project(rollout.model, said)
        return ""

    def _ended(self, kept: KeptRollout) -> str:
        rollout = kept.rollout
        state = RequestState.PROMOTED if rollout.state is RolloutState.COMPLETED else RequestState.REFUSED
        self._store.close_request(rollout.rollout_id, state, f"its rollout was {rollout.state}: {rollout.reason}")
        self._store.rollouts.settle(kept)
        return ""

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

    def _project(self, model: str, said: list[str]) -> None:
        """Moves the aliases, and tells the servers: of what is taken away before, since the registry may be away.

        Of what is given they are told afterwards: a server that looks at the registry meanwhile finds it there.
        """
        projected = self._store.projected_epoch(model)
        if projected >= self._store.head(model).epoch:
            return
        rows = self._store.ledger(model)
        last = {row.move: row for row in rows if row.epoch > projected and row.move.weighted}
        for row in (row for row in last.values() if not row.weight):
            self._releases.deliver_beside(row, said.append)
        self._releases.projection.project(model)
        for row in (row for row in last.values() if row in standing(rows)):
            self._releases.deliver_beside(row, said.append)


def find_other_move(kept: KeptRollout, rows: Iterable[LedgerRow]) -> LedgerRow | None:
    """Returns the last move of Production since a rollout began that is not its own, or None."""
    later = (row for row in rows if row.epoch > kept.epoch and moves_production(row))
    return max((r for r in later if request_of(r) != kept.rollout.rollout_id), key=lambda r: r.epoch, default=None)
