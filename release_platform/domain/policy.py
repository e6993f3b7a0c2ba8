"""May this request be promoted now? The conditions, each with the sentence that an operator reads.

A condition that can still come true holds the request; one that cannot rejects it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from release_platform.domain.asked_rollout import AskedRollout
from release_platform.domain.freeze import find_freeze, moment_text
from release_platform.domain.gates import GateResult
from release_platform.domain.identity import digest_of
from release_platform.domain.lifecycle import Head
from release_platform.domain.policy_spec import PolicySpec, Selftest
from release_platform.domain.replay import Replay, unmet_replay
from release_platform.domain.selftest import STOPPED

NOT_PROVEN = "its gates were not proven to stop spoilt models when it was registered"
"""What is said of a version that was registered without the proof."""


class RequestState(StrEnum):
    """The life of a promotion request. All but `open` are final."""

    OPEN = "open"
    PROMOTED = "promoted"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRequest:
    """Who wants which version in Production, and why; what is not said of its rollout is as in the model's YAML."""

    request_id: str
    model: str
    version: str
    actor: str
    reason: str
    requested_at: datetime
    state: RequestState = RequestState.OPEN
    outcome: str = ""
    strategy: str | None = None
    asked: AskedRollout = field(default_factory=AskedRollout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's consent to one request, bound to what was seen: model, report and policy."""

    request_id: str
    actor: str
    binding: str
    reason: str
    approved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the release store recorded when a version was registered.

    Attributes:
        model: The model's name.
        version: The version's number.
        digest: `D(v)`.
        model_digest: Canonical digest of the fitted model.
        report_digest: Digest of the evaluation report that its gates judged.
        fingerprint: Fingerprint of the raw data.
        gates: The result of each gate.
        baseline: The Production version that it was compared with; None for none.
        mlflow_run_id: The training run.
        dagster_run_id: The Dagster run that registered it.
        code_version: Hash of the code and lock that made it.
        registered_at: When.
        tags: What the registry must show of it, its signature among it; empty where it was not kept.
    """

    model: str
    version: str
    digest: str
    model_digest: str
    report_digest: str
    fingerprint: str
    gates: tuple[GateResult, ...]
    baseline: str | None
    mlflow_run_id: str
    dagster_run_id: str
    code_version: str
    registered_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


def binding(registration: Registration, policy: PolicySpec) -> str:
    """Returns the digest that an approval is bound to; when it changes, the approval is void."""
    return binding_under(registration, policy.digest)


def binding_under(registration: Registration, policy_digest: str) -> str:
    """Returns the same for a policy of which only the digest is at hand."""
    return digest_of([registration.digest, registration.report_digest, policy_digest])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Every condition holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Not yet: what is missing."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Never: what cannot come true any more."""

    reasons: tuple[str, ...]


Decision = Ready | Hold | Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a request when it is decided.

    Attributes:
        request: The request.
        policy: The model's policy.
        head: Where the model's versions stand.
        registration: What was recorded of the version; None: it was never registered by the platform.
        registry_digest: The digest that the registry gives for it; None: the registry has no such version.
        staged_at: When it came to Staging; None: never.
        approvals: All approvals of the request.
        now: The present moment.
        replay: What the last replay of the version over recorded requests showed; None: there was none.
        under_way: What is said of the model's rollout, if there is one; it holds every request.
        drifting: What is said of a drift alarm that holds promotions; empty while none does.
        unproven: Why the version was not registered with a signed proof that its gates stop spoilt models; empty where
            it was.
    """

    request: PromotionRequest
    policy: PolicySpec
    head: Head
    registration: Registration | None
    registry_digest: str | None
    staged_at: datetime | None
    approvals: Sequence[Approval]
    now: datetime
    replay: Replay | None = None
    under_way: str = ""
    drifting: str = ""
    unproven: str = NOT_PROVEN


def missing_of(decision: Decision) -> tuple[str, ...]:
    """Returns what keeps a request from being promoted, as sentences; nothing when it is ready."""
    return () if isinstance(decision, Ready) else decision.reasons


def decide(facts: Facts) -> Decision:
    """Returns whether the request may be promoted now."""
    rejected = _rejections(facts)
    if rejected:
        return Reject(reasons=rejected)
    missing = _missing(facts)
    return Hold(reasons=missing) if missing else Ready()


def _rejections(facts: Facts) -> tuple[str, ...]:
    version, registration = facts.request.version, facts.registration
    if registration is None or facts.registry_digest is None:
        where = "release store" if registration is None else "model registry"
        return (f"version {version} is not in the {where}",)
    found = []
    if facts.head.production == version:
        found.append(f"version {version} already is in Production")
    if registration.digest != facts.registry_digest:
        found.append(f"the registry's digest of version {version} is not the registered one: it was changed")
    failed = [gate for gate in registration.gates if gate.blocking and not gate.passed]
    found += [f"gate '{gate.gate}' {gate.verdict}: {gate.reason}" for gate in failed]
    if not any(gate.blocking for gate in registration.gates):
        found.append("no blocking gate was judged")
    if facts.staged_at is None:
        found.append(f"version {version} never was in Staging")
    return tuple(found)


def _missing(facts: Facts) -> tuple[str, ...]:
    found = []
    policy, registration = facts.policy, facts.registration
    assert registration is not None
    assert facts.staged_at is not None
    if facts.under_way:
        found.append(facts.under_way)
    if facts.drifting:
        found.append(facts.drifting)
    if policy.current_baseline and facts.head.production not in {registration.baseline, None}:
        compared = f"version {registration.baseline}" if registration.baseline else "no Production version"
        found.append(
            f"its gates compared it with {compared}, but Production is version {facts.head.production} now: "
            f"run `release run {facts.request.model}` to judge a version against it"
        )
    if policy.selftest is Selftest.REQUIRED and (facts.unproven or not _is_proven(registration)):
        found.append(
            f"{facts.unproven or NOT_PROVEN}: run `release gate selftest {facts.request.model}`, then "
            f"`release run {facts.request.model}`"
        )
    if policy.replay is not None:
        found += unmet_replay(
            facts.replay,
            policy.replay,
            model=facts.request.model,
            version=facts.request.version,
            digest=registration.digest,
            production=facts.head.production,
        )
    freeze = find_freeze(policy.freeze, facts.now)
    if freeze is not None:
        found.append(freeze.said)
    if (facts.now - facts.staged_at).total_seconds() < policy.minimum_soak_s:
        until = (facts.staged_at + timedelta(seconds=policy.minimum_soak_s)).astimezone(UTC)
        found.append(f"it must stand in Staging for {policy.minimum_soak_s:g} s, until {moment_text(until)}")
    judged = judged_approvals(facts)
    n_valid = sum(approval.standing is Standing.VALID for approval in judged)
    if n_valid < policy.approvals:
        missing = policy.approvals - n_valid
        found.append(
            f"{missing} of {policy.approvals} approval(s) by others than {facts.request.actor} are missing: "
            f"`release approve {facts.request.request_id}`"
        )
        found += [approval.said for approval in judged if approval.standing is not Standing.VALID]
    return tuple(found)


def _is_proven(registration: Registration) -> bool:
    return any(gate.metric == STOPPED and gate.passed for gate in registration.gates)


class Standing(StrEnum):
    """Whether an approval counts, best first."""

    VALID = "valid"
    EXPIRED = "expired"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedApproval:
    """An approval, whether it counts, and the last moment at which it does; None: for good, or it is void."""

    approval: Approval
    standing: Standing
    until: datetime | None

    @property
    def said(self) -> str:
        """The sentence that an operator reads."""
        match self.standing:
            case Standing.VALID:
                return f"approved by {self.approval.actor}" + (
                    f" until {moment_text(self.until)}" if self.until else ""
                )
            case Standing.EXPIRED:
                assert self.until is not None
                return f"{self.approval.actor}'s approval expired {moment_text(self.until)}"
            case Standing.VOID:
                return f"{self.approval.actor}'s approval is void: model, report or policy changed since"


def judged_approvals(facts: Facts) -> tuple[JudgedApproval, ...]:
    """Returns the approvals of a request, of each person but the requester the one that is worth most."""
    if facts.registration is None:
        return ()
    bound_to = binding(facts.registration, facts.policy)
    best: dict[str, JudgedApproval] = {}
    for approval in sorted(facts.approvals, key=lambda a: a.approved_at, reverse=True):
        person = approval.actor.strip().casefold()
        if approval.request_id != facts.request.request_id or not person or same_person(person, facts.request.actor):
            continue
        judged = _judged(approval, bound_to, facts)
        if person not in best or _RANK[judged.standing] < _RANK[best[person].standing]:
            best[person] = judged
    return tuple(best[person] for person in sorted(best))


def approval_end(approval: Approval, policy: PolicySpec) -> datetime | None:
    """Returns the last moment at which an approval counts under a policy; None: it does not expire."""
    if policy.approvals_expire_s is None:
        return None
    return approval.approved_at.astimezone(UTC) + timedelta(seconds=policy.approvals_expire_s)


def find_approval(facts: Facts, actor: str) -> JudgedApproval | None:
    """Returns what a person's approval of a request is worth, or None without one."""
    return next((judged for judged in judged_approvals(facts) if same_person(judged.approval.actor, actor)), None)


_RANK = {standing: rank for rank, standing in enumerate(Standing)}


def _judged(approval: Approval, bound_to: str, facts: Facts) -> JudgedApproval:
    if approval.binding != bound_to:
        return JudgedApproval(approval=approval, standing=Standing.VOID, until=None)
    until = approval_end(approval, facts.policy)
    standing = Standing.VALID if until is None or facts.now <= until else Standing.EXPIRED
    return JudgedApproval(approval=approval, standing=standing, until=until)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's: case and surrounding blanks do not count."""
    return one.strip().casefold() == other.strip().casefold()
