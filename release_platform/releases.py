"""Releases: registering, requesting, approving, promoting and rolling back. The jobs and the command line call this.

Everything is decided against the release store; the registry's aliases follow as a projection of the head.
"""

import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.model_package import load_package
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.delivery import Delivery
from release_platform.domain.api_keys import holds_key
from release_platform.domain.asked_rollout import NOTHING_ASKED, AskedRollout
from release_platform.domain.attestation import SIGNATURE_TAG, check_version_statement, version_statement
from release_platform.domain.drift_day import DriftDay, Lift
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.drill import find_unfinished
from release_platform.domain.errors import IntegrityError, NotFound, Refused, StaleEpoch, Unavailable
from release_platform.domain.ledger import ROLLBACK_ID, LedgerRow, is_of_rollout
from release_platform.domain.lifecycle import Head, Move, rollback_target
from release_platform.domain.policy import (
    NOT_PROVEN,
    Approval,
    Decision,
    Facts,
    Hold,
    PromotionRequest,
    Ready,
    Registration,
    Reject,
    RequestState,
    binding,
    decide,
    missing_of,
    same_person,
)
from release_platform.domain.policy_spec import PolicySpec, Selftest
from release_platform.domain.ports import Clock, Registry, Servers, VersionRecord
from release_platform.domain.rollout import Rollout
from release_platform.domain.strategy import Strategy
from release_platform.projection import Projection
from release_platform.proofs import Proofs

STAGING_ATTEMPTS = 10
Tell = Callable[[str], None]
"""Is given a sentence for each live server, once it was told of a move."""


def keep_quiet(_: str) -> None:
    """Tells nobody."""


class Releases:
    """The releases of all models in one release store and one registry."""

    def __init__(
        self,
        store: ReleaseStore,
        registry: Registry,
        keys: KeyFolder,
        clock: Clock | None = None,
        *,
        servers: Servers | None = None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.projection = Projection(store, registry, keys)
        self.keys = keys
        self._delivery = Delivery(store, keys, servers) if servers is not None else None
        self._clock = clock or SystemClock()
        self.proofs = Proofs(store, keys, self._clock)

    def record(self, record: VersionRecord, registration: Registration, facts: Mapping[str, Any]) -> Registration:
        """Records a registered version with its signature, and returns what is recorded.

        Args:
            record: The version in the registry.
            registration: The version, without its tags.
            facts: What its signature vouches for beside its files.

        Raises:
            Refused: The version is recorded with another digest.
        """
        statement = version_statement(record.manifest, model=record.model, version=record.version, facts=facts)
        tags = {**record.tags, SIGNATURE_TAG: self.keys.signer().sign(statement)}
        return self.store.record_registration(replace(registration, tags=tags))

    def fetch_registered(self, registration: Registration, folder: Path) -> VersionRecord:
        """Fetches the files of a version into an empty folder, and returns it as the registry shows it.

        Raises:
            IntegrityError: It shows another version than the one that was registered.
            Unavailable: The registry does not answer.
        """
        model, version = registration.model, registration.version
        record = self.registry.fetch(model, version, folder)
        if record.digest != registration.digest:
            raise IntegrityError(
                f"{model} version {version}: its manifest in MLflow is not the one that was registered",
                remedy="find out who changed the version's tags; roll back, or register the model again",
            )
        return record

    def stage(self, registration: Registration, *, actor: str, reason: str, key: str) -> Head:
        """Signs a recorded version in the registry and moves Staging to it, once for each key; returns the head.

        Args:
            registration: What was recorded of the version.
            actor: Who registers it.
            reason: Why it may stand in Staging.
            key: The identity of this registration.
        """
        self.registry.set_tag(registration.model, registration.version, SIGNATURE_TAG, registration.tags[SIGNATURE_TAG])
        for attempt in range(STAGING_ATTEMPTS):
            head = self.store.head(registration.model)
            if registration.version in head.reachable:
                break
            try:
                self._commit_staged(registration, head, actor=actor, reason=reason, key=key)
            except StaleEpoch:  # another transition of this model was first; staging depends on no particular head
                if attempt == STAGING_ATTEMPTS - 1:
                    raise
        self.projection.project(registration.model)
        return self.store.head(registration.model)

    def request(
        self,
        model: str,
        *,
        version: str | None,
        actor: str,
        reason: str,
        request_id: str | None = None,
        strategy: Strategy | None = None,
        asked: AskedRollout = NOTHING_ASKED,
    ) -> PromotionRequest:
        """Opens a promotion request; without a version it is for the one in Staging, without a strategy by the model's.

        Asking again with the same id, or for what one has an open request for, returns that request as it is now, with
        the approvals that it has.

        Raises:
            NotFound: There is no such version.
            Refused: Nothing is in Staging, or the version already is in Production, or no reason was given, or the id
                is of somebody else's request or of one for something else.
        """
        check_words("a promotion", actor, reason)
        if request_id is not None and is_of_rollout(request_id):
            raise Refused(
                f"'{request_id}' is an id of a rollout's move: it holds #rollout-", remedy="use another request id"
            )
        known = self.store.find_request(request_id) if request_id else None
        if known is not None:
            return _same(known, model, version, actor, strategy, asked)
        head = self.store.head(model)
        wanted = version or head.staging
        if wanted is None:
            raise Refused(
                f"{model}: there is no version in Staging"
                + (f" (version {head.production} is in Production already)" if head.production else ""),
                remedy=f"`release run {model}` makes one, or name a version (`release history {model}` lists them)",
            )
        if wanted == head.production:
            raise Refused(
                f"{model}: version {wanted} already is in Production",
                remedy=f"nothing is to be done; `release status {model}` shows where each version stands",
            )
        if self.store.find_registration(model, wanted) is None:
            raise NotFound(
                f"{model}: there is no version {wanted}", remedy=f"`release history {model}` lists its versions"
            )
        mine = [r for r in self.store.requests(model, RequestState.OPEN) if (r.version, r.actor) == (wanted, actor)]
        if mine and request_id is None:
            return _same(mine[0], model, wanted, actor, strategy, asked)
        opened = self.store.open_request(
            PromotionRequest(
                request_id=request_id or uuid.uuid4().hex[:12],
                model=model,
                version=wanted,
                actor=actor,
                reason=reason,
                requested_at=self._clock.now(),
                strategy=strategy,
                asked=asked,
            )
        )
        return _same(opened, model, wanted, actor, strategy, asked)  # somebody else may have had this id before

    def cancel(self, request_id: str, *, actor: str, reason: str) -> PromotionRequest:
        """Closes an open request, so that it is never carried out, and returns it; again does nothing.

        Raises:
            NotFound: There is no such request.
            Refused: It is closed already in another way, or no reason was given.
        """
        check_words("a cancellation", actor, reason)
        self.store.get_request(request_id)
        self.store.close_request(request_id, RequestState.CANCELLED, f"by {actor}: {reason}")
        request = self.store.get_request(request_id)
        if request.state is not RequestState.CANCELLED:
            raise Refused(
                f"request {request_id} is {request.state}: {request.outcome}",
                remedy=f"`release rollback {request.model}` takes back what was promoted"
                if request.state is RequestState.PROMOTED
                else "nothing is to be done",
            )
        return request

    def approve(self, request_id: str, *, actor: str, reason: str, policy: PolicySpec) -> Approval:
        """Records a person's approval of what a request asks for now.

        Raises:
            Refused: The request is closed, or the approver is the requester.
        """
        request = self.store.get_request(request_id)
        if request.state is not RequestState.OPEN:
            raise Refused(
                f"request {request_id} is closed, {request.state}: {request.outcome}", remedy="open a new request"
            )
        if not actor.strip():
            raise Refused("an approval needs the name of a person", remedy="say who approves")
        _check_no_key(reason)
        if same_person(actor, request.actor):
            raise Refused(f"{actor} asked for this promotion", remedy="another person must approve it")
        registration = self.store.find_registration(request.model, request.version)
        if registration is None:
            raise NotFound(f"{request.model}: there is no version {request.version}", remedy="open a new request")
        approval = Approval(
            request_id=request_id,
            actor=actor,
            binding=binding(registration, policy),
            reason=reason,
            approved_at=self._clock.now(),
        )
        self.store.record_approval(approval)
        return approval

    def facts(self, request: PromotionRequest, policy: PolicySpec) -> Facts:
        """Returns what is known of a request now."""
        current = self.store.rollouts.find_current(request.model)  # first: a head that is read later shows its moves
        drill = find_unfinished(self.store.ledger(request.model))
        under_way = "" if drill is None else f"a drill of the rollback to version {drill.version} is under way"
        under_way = under_way if current is None else _under_way(current.rollout, request)
        alone = self.facts_alone(request, policy)
        drift = self.store.drift.find_last(request.model, alone.head.production)
        return replace(alone, under_way=under_way, drifting="" if drift is None else drift.hold)

    def facts_alone(self, request: PromotionRequest, policy: PolicySpec) -> Facts:
        """Returns what is known of a request now, whatever rollout is under way and whatever drifts."""
        staged = [
            row
            for row in self.store.ledger(request.model)
            if row.move is Move.STAGED and row.version == request.version
        ]
        registration = self.store.find_registration(request.model, request.version)
        demanded = policy.selftest is Selftest.REQUIRED
        return Facts(
            request=request,
            policy=policy,
            head=self.store.head(request.model),
            registration=registration,
            registry_digest=self._registry_digest(request),
            staged_at=_moment(staged[-1]) if staged else None,
            approvals=self.store.approvals(request.request_id),
            now=self._clock.now(),
            replay=self.store.replays.find_last(request.model, request.version) if policy.replay else None,
            unproven=NOT_PROVEN if registration is None or not demanded else self.proofs.unproven(registration),
        )

    def missing(self, facts: Facts) -> tuple[str, ...]:
        """Returns what an open request waits for: nothing once its move is committed, though aliases still follow."""
        return missing_of(self._decision(facts))

    def decide(self, request: PromotionRequest, policy: PolicySpec) -> Decision:
        """Returns whether a request may be promoted now; closes it when it never may."""
        decision = self._decision(self.facts(request, policy))
        if isinstance(decision, Reject):
            self.store.close_request(request.request_id, RequestState.REFUSED, "; ".join(decision.reasons))
        return decision

    def _decision(self, facts: Facts) -> Decision:
        if self.find_done(facts.request) is not None:  # committed, then cut off: `promote` carries it to its end
            return Ready()
        return decide(facts)

    def promote(self, request_id: str, policy: PolicySpec, *, tell: Tell = keep_quiet) -> LedgerRow:
        """Moves Production to what a request asks for, if every condition holds now, and returns the ledger row.

        Repeating it returns the row of the first time. The live servers are told at once.

        Raises:
            Refused: A condition does not hold, or another transition was first.
            IntegrityError: The version's files are not the registered ones.
        """
        request = self.store.get_request(request_id)
        facts = self.facts(request, policy)
        done = self.find_done(request)  # after the facts: a commit that they show is seen
        if done is not None:
            return self.finish(done, tell)
        row = self.store.commit_move(
            model=request.model,
            move=Move.PROMOTED,
            version=request.version,
            expected_epoch=facts.head.epoch,
            actor=request.actor,
            reason=request.reason,
            request_id=request_id,
            evidence=self.check_ready(facts),
            digest=facts.registration.digest if facts.registration else "",
        )
        return self.finish(row, tell)

    def check_ready(self, facts: Facts) -> str:
        """Checks that what a request asks for may be done now, and returns what its approvals are bound to.

        Raises:
            Refused: A condition does not hold.
            IntegrityError: The version's files are not the registered ones.
        """
        request = facts.request
        if request.state in {RequestState.REFUSED, RequestState.CANCELLED}:
            raise Refused(
                f"request {request.request_id} is {request.state}: {request.outcome}", remedy="open a new request"
            )
        decision = decide(facts)
        if not isinstance(decision, Ready):
            raise self._not_ready(request, decision)
        assert facts.registration is not None
        self._check_loads(request)
        self.store.record_policy(facts.policy.digest, facts.policy.terms)
        return binding(facts.registration, facts.policy)

    def rollback(
        self,
        model: str,
        *,
        to: str | None,
        actor: str,
        reason: str,
        request_id: str | None = None,
        expected_epoch: int | None = None,
        evidence: str = "",
        tell: Tell = keep_quiet,
    ) -> LedgerRow:
        """Brings a former Production version back (default: the previous one) and returns the ledger row.

        It needs no approval, and no registry: when that does not answer, the move is committed, the live servers take
        it from their own copies, and the aliases follow. Repeating it with its id returns the row of the first time.
        Whoever decided it for a head gives that head's epoch, so that nothing later is undone.

        Raises:
            Refused: There is no previous version, a drill is under way, or `to` never was in Production.
        """
        check_words("a rollback", actor, reason)
        head = self.store.head(model)
        version = to or self._find_target(model, request_id) or self._target(head)
        registration = self.store.find_registration(model, version)
        row = self.store.commit_move(
            model=model,
            move=Move.ROLLED_BACK,
            version=version,
            expected_epoch=head.epoch if expected_epoch is None else expected_epoch,
            actor=actor,
            reason=reason,
            request_id=request_id or f"{ROLLBACK_ID}{uuid.uuid4().hex[:12]}",
            evidence=evidence,
            digest=registration.digest if registration else "",
        )
        self._deliver(model, tell)  # before the registry, which may take its time to not answer
        try:
            problems = self.projection.project(model)
        except Unavailable:  # committed; `reconcile` moves the aliases then
            problems = ("the registry does not answer; its aliases follow when it is back",)
        for problem in problems:
            tell(problem)
        return row

    def lift_hold(self, model: str, *, actor: str, reason: str) -> DriftDay:
        """Lets promotions go on, and the version stay, although a day drifted; returns that day; again changes nothing.

        It is of that day alone: when the next one drifts, promotions are held again. Who was first to lift it stays.

        Raises:
            Refused: No alarm stands; or no reason was given.
        """
        check_words("lifting a hold", actor, reason)
        last = self.store.drift.find_last(model, self.store.head(model).production)
        if last is None or not {OnAlarm.HOLD, OnAlarm.ROLL_BACK} & set(last.on_alarm) or not last.alarmed:
            raise Refused(
                f"{model}: no drift alarm holds its promotions, or is to take its version back",
                remedy=f"`release status {model}` shows what open requests wait for",
            )
        return self.store.drift.lift(last, Lift(actor=actor, reason=reason, at=self._clock.now().isoformat()))

    def remove(self, model: str, version: str, *, actor: str, reason: str) -> None:
        """Removes a version that nothing reaches, with its files; again carries on where it was cut off.

        Raises:
            Refused: Something reaches it, and says what; or no reason was given.
            NotFound: There is no such version.
        """
        check_words("a removal", actor, reason)
        self.store.record_removal(model, version, actor=actor, reason=reason)
        self.registry.remove(model, version)

    def distrust_key(self, identity: str, models: Sequence[str]) -> None:
        """Stops trusting a key, after what it signed and is still needed was verified and signed by the present one.

        Raises:
            IntegrityError: Something that is needed carries no valid signature; then nothing is distrusted.
        """
        for model in models:
            for version in sorted(self.store.head(model).reachable):
                record = self.registry.get_version(model, version)
                statement = self.keys.trusted().verify(record.tags.get(SIGNATURE_TAG, ""))
                check_version_statement(statement, record.manifest, model=model, version=version)
                signature = self.keys.signer().sign(statement)
                self.store.replace_tag(model, version, SIGNATURE_TAG, signature)
                self.registry.set_tag(model, version, SIGNATURE_TAG, signature)
            self.proofs.renew(model)
            self.projection.renew(model)  # before: a server refuses what only a distrusted key certified
        self.keys.distrust(identity)
        for model in models:
            self.projection.project(model)

    def _commit_staged(self, registration: Registration, head: Head, *, actor: str, reason: str, key: str) -> None:
        self.store.commit_move(
            model=registration.model,
            move=Move.STAGED,
            version=registration.version,
            expected_epoch=head.epoch,
            actor=actor,
            reason=reason,
            request_id=f"stage-{key.removeprefix('sha256:')[:16]}",
            evidence=registration.report_digest,
            digest=registration.digest,
        )

    def find_done(self, request: PromotionRequest) -> LedgerRow | None:
        """Returns the row by which a request moved Production, or None."""
        promoted = [row for row in self.store.ledger(request.model) if row.move is Move.PROMOTED]
        return next((row for row in promoted if row.request_id == request.request_id), None)

    def _find_target(self, model: str, request_id: str | None) -> str | None:
        """Returns where the rollback of this id went, if it was done: from there, the previous one is another."""
        rows = (row for row in self.store.ledger(model) if row.move is Move.ROLLED_BACK)
        return next((row.version for row in rows if row.request_id == request_id), None)

    def _target(self, head: Head) -> str:
        """Returns where a plain rollback goes; half way through a drill nobody can mean the version before that."""
        drill = find_unfinished(self.store.ledger(head.model))
        if drill is not None:
            raise Refused(
                f"{head.model}: a drill of the rollback is under way, or was cut off: version {head.production} is in "
                f"Production until it brings version {drill.before['production']} back",
                remedy=f"`release drill {head.model}` ends one that was cut off; or name a version with --to",
            )
        return rollback_target(head)

    def _deliver(self, model: str, tell: Tell) -> None:
        for sentence in self._delivery.deliver(model) if self._delivery is not None else ():
            tell(sentence)

    def deliver_beside(self, row: LedgerRow, tell: Tell = keep_quiet) -> None:
        """Tells the live servers of a share of the traffic that was given or taken; again changes nothing."""
        for sentence in self._delivery.deliver_beside(row) if self._delivery is not None else ():
            tell(sentence)

    def finish(self, row: LedgerRow, tell: Tell = keep_quiet) -> LedgerRow:
        """Carries a promotion that is committed to its end, and returns its row; again changes nothing."""
        self._deliver(row.model, tell)
        self.projection.project(row.model)
        self.store.close_request(row.request_id, RequestState.PROMOTED, f"epoch {row.epoch}")
        return row

    def _registry_digest(self, request: PromotionRequest) -> str | None:
        try:
            return self.registry.get_version(request.model, request.version).digest
        except NotFound:
            return None
        except IntegrityError as error:
            return f"unreadable: {error.problem}"

    def _check_loads(self, request: PromotionRequest) -> None:
        with tempfile.TemporaryDirectory() as folder:
            record = self.registry.fetch(request.model, request.version, Path(folder))
            statement = self.keys.trusted().verify(record.tags.get(SIGNATURE_TAG, ""))
            check_version_statement(statement, record.manifest, model=record.model, version=record.version)
            load_package(Path(folder), record.manifest)

    def _not_ready(self, request: PromotionRequest, decision: Hold | Reject) -> Refused:
        problem = f"{request.model}: version {request.version} is not promoted: {'; '.join(decision.reasons)}"
        if isinstance(decision, Reject):
            self.store.close_request(request.request_id, RequestState.REFUSED, "; ".join(decision.reasons))
            return Refused(problem, remedy="this cannot come true any more; train a new version")
        return Refused(problem, remedy=f"the request {request.request_id} stays open until it holds")


def _under_way(rollout: Rollout, request: PromotionRequest) -> str:
    if rollout.rollout_id == request.request_id:
        return f"its rollout is under way: {rollout.said}"
    return f"the rollout of version {rollout.candidate} is under way (request {rollout.rollout_id}): it ends first"


def check_words(what: str, actor: str, reason: str) -> None:
    """Checks that an act has an actor and a reason, and that neither holds an API key.

    Raises:
        Refused: It has not.
    """
    if not reason.strip() or not actor.strip():
        raise Refused(f"{what} needs an actor and a reason", remedy="say who wants it and why")
    _check_no_key(actor + reason)


def _check_no_key(text: str) -> None:
    if holds_key(text):
        raise Refused(
            "what was written holds an API key, and it would be kept for good",
            remedy="revoke the key with `release api-key revoke`, and write it again without",
        )


def _same(
    known: PromotionRequest,
    model: str,
    version: str | None,
    actor: str,
    strategy: Strategy | None,
    asked: AskedRollout,
) -> PromotionRequest:
    """Returns the request that has an id already, if it is the one that is asked for again."""
    if (known.model, known.version) != (model, version or known.version):
        raise Refused(
            f"request {known.request_id} already asks for {known.model} version {known.version}",
            remedy="use a new request id",
        )
    if not same_person(known.actor, actor):
        raise Refused(f"request {known.request_id} is one of {known.actor}", remedy="use a new request id")
    if strategy is not None and known.strategy != strategy:
        raise Refused(
            f"request {known.request_id} asks for {known.model} version {known.version} "
            + (f"by {known.strategy}" if known.strategy else "by the model's own strategy"),
            remedy=f"`release cancel {known.request_id}`, then ask for {strategy}",
        )
    if not asked.says_nothing and known.asked != asked:
        raise Refused(
            f"request {known.request_id} asks for {known.model} version {known.version} by another rollout",
            remedy=f"`release cancel {known.request_id}`, then ask for this one",
        )
    return known


def _moment(row: LedgerRow) -> datetime:
    return datetime.fromisoformat(row.at)
