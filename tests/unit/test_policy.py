"""What a promotion asks for: each condition, alone, holds or rejects the request and says so."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.lifecycle import Head
from release_platform.domain.policy import (
    Approval,
    Facts,
    Hold,
    PromotionRequest,
    Ready,
    Registration,
    Reject,
    binding,
    decide,
)
from release_platform.domain.spec import PolicySpec

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def gate(verdict: Verdict, *, blocking: bool = True) -> GateResult:
    return GateResult(
        gate="auc",
        metric="roc_auc",
        verdict=verdict,
        reason="said so",
        value=0.9,
        limit=0.8,
        direction="at least",
        blocking=blocking,
    )


REGISTRATION = Registration(
    model="m",
    version="2",
    digest="sha256:d",
    model_digest="sha256:m",
    report_digest="sha256:r",
    fingerprint="sha256:f",
    gates=(gate(Verdict.PASSED),),
    baseline="1",
    mlflow_run_id="run",
    dagster_run_id="run",
    code_version="sha256:c",
    registered_at=NOW,
)
REQUEST = PromotionRequest(request_id="q", model="m", version="2", actor="ada", reason="why", requested_at=NOW)
FACTS = Facts(
    request=REQUEST,
    policy=PolicySpec(),
    head=Head(model="m", epoch=3, staging="2", production="1", ever=("1",)),
    registration=REGISTRATION,
    registry_digest="sha256:d",
    staged_at=NOW,
    approvals=(),
    now=NOW,
)


def approval(actor: str, bound_to: str) -> Approval:
    return Approval(request_id="q", actor=actor, binding=bound_to, reason="", approved_at=NOW)


def test_a_request_whose_conditions_all_hold_is_ready() -> None:
    assert decide(FACTS) == Ready()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(FACTS, registration=None), "not in the release store"),
        (replace(FACTS, registry_digest=None), "not in the model registry"),
        (replace(FACTS, registry_digest="sha256:x"), "was changed"),
        (replace(FACTS, head=replace(FACTS.head, production="2")), "already is in Production"),
        (replace(FACTS, staged_at=None), "never was in Staging"),
        (replace(FACTS, registration=replace(REGISTRATION, gates=())), "no blocking gate was judged"),
        (replace(FACTS, registration=replace(REGISTRATION, gates=(gate(Verdict.FAILED),))), "gate 'auc' failed"),
        (replace(FACTS, registration=replace(REGISTRATION, gates=(gate(Verdict.INCONCLUSIVE),))), "inconclusive"),
        (replace(FACTS, registration=replace(REGISTRATION, gates=(gate(Verdict.ERRORED),))), "errored"),
    ],
)
def test_what_cannot_come_true_any_more_rejects(facts: Facts, said: str) -> None:
    decision = decide(facts)
    assert isinstance(decision, Reject)
    assert said in "; ".join(decision.reasons)


def test_an_advisory_gate_never_decides() -> None:
    gates = (gate(Verdict.PASSED), gate(Verdict.FAILED, blocking=False))
    assert decide(replace(FACTS, registration=replace(REGISTRATION, gates=gates))) == Ready()


@pytest.mark.parametrize(("production", "ready"), [("1", True), ("3", False), (None, True)])
def test_gates_must_have_compared_with_what_is_in_production_now(production: str | None, ready: bool) -> None:
    decision = decide(replace(FACTS, head=replace(FACTS.head, production=production)))
    assert isinstance(decision, Ready if ready else Hold)


@pytest.mark.parametrize(("waited_s", "ready"), [(59.9, False), (60.0, True), (60.1, True)])
def test_a_version_soaks_in_staging(waited_s: float, ready: bool) -> None:
    policy = PolicySpec(minimum_soak_s=60)
    decision = decide(replace(FACTS, policy=policy, now=NOW + timedelta(seconds=waited_s)))
    assert isinstance(decision, Ready if ready else Hold)


POLICY = PolicySpec(approvals=1)
BOUND = binding(REGISTRATION, POLICY)


@pytest.mark.parametrize(
    ("approvals", "ready"),
    [
        ((), False),
        ((approval("grace", BOUND),), True),
        ((approval("ada", BOUND),), False),  # who asks does not approve
        ((approval("grace", binding(replace(REGISTRATION, digest="sha256:x"), POLICY)),), False),
        ((approval("grace", binding(replace(REGISTRATION, report_digest="sha256:x"), POLICY)),), False),
        ((approval("grace", binding(REGISTRATION, PolicySpec(approvals=2))),), False),
        ((replace(approval("grace", BOUND), request_id="other"),), False),
    ],
)
def test_an_approval_counts_only_for_exactly_what_was_seen(approvals: tuple[Approval, ...], ready: bool) -> None:
    decision = decide(replace(FACTS, policy=POLICY, approvals=approvals))
    assert isinstance(decision, Ready if ready else Hold)


def test_one_person_counts_once() -> None:
    policy = PolicySpec(approvals=2)
    bound = binding(REGISTRATION, policy)
    decision = decide(replace(FACTS, policy=policy, approvals=(approval("grace", bound), approval("grace", bound))))
    assert isinstance(decision, Hold)
    assert "1 of 2 approval(s)" in decision.reasons[0]
