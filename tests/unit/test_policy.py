"""What a promotion asks for: each condition, alone, holds or rejects the request and says so."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.domain.freeze import FreezeWindow, Weekday, find_freeze
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
    Standing,
    binding,
    decide,
    judged_approvals,
)
from release_platform.domain.policy_spec import PolicySpec, Selftest, Tampering
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.domain.selftest import STOPPED

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


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


EXPIRING = PolicySpec(approvals=1, approvals_expire_s=60)
GRACE = approval("grace", binding(REGISTRATION, EXPIRING))


@pytest.mark.parametrize(("age_s", "ready"), [(59.999999, True), (60.0, True), (60.000001, False)])
def test_an_approval_counts_up_to_exactly_its_age(age_s: float, ready: bool) -> None:
    decision = decide(replace(FACTS, policy=EXPIRING, approvals=(GRACE,), now=NOW + seconds(age_s)))
    assert isinstance(decision, Ready if ready else Hold)


def test_an_expired_approval_is_named_and_a_new_one_of_the_same_person_counts() -> None:
    late = replace(FACTS, policy=EXPIRING, approvals=(GRACE,), now=NOW + seconds(90))
    decision = decide(late)
    assert isinstance(decision, Hold)
    assert decision.reasons[1] == "grace's approval expired 2026-01-02 00:01:00+00:00"
    renewed = replace(GRACE, actor="Grace ", approved_at=NOW + seconds(80))
    assert decide(replace(late, approvals=(GRACE, renewed))) == Ready()
    (judged,) = judged_approvals(replace(late, approvals=(renewed, GRACE)))
    assert (judged.standing, judged.until) == (Standing.VALID, NOW + seconds(140))


@pytest.mark.parametrize(
    "changed",
    [{"digest": "sha256:x"}, {"report_digest": "sha256:x"}],
)
def test_a_void_approval_is_named(changed: dict[str, str]) -> None:
    void = approval("grace", binding(replace(REGISTRATION, **changed), POLICY))
    decision = decide(replace(FACTS, policy=POLICY, approvals=(void,)))
    assert isinstance(decision, Hold)
    assert decision.reasons[1] == "grace's approval is void: model, report or policy changed since"


def test_a_valid_approval_is_what_a_person_is_worth_although_a_newer_one_is_void() -> None:
    void = replace(approval("grace", "sha256:other"), approved_at=NOW + seconds(1))
    assert decide(replace(FACTS, policy=POLICY, approvals=(approval("grace", BOUND), void))) == Ready()


def test_approvals_that_are_not_needed_hold_nothing_when_they_are_void_or_expired() -> None:
    policy = PolicySpec(approvals=1, approvals_expire_s=60)
    given = (approval("grace", binding(REGISTRATION, policy)), approval("linus", "sha256:void"))
    assert decide(replace(FACTS, policy=policy, approvals=given)) == Ready()


def test_the_requester_has_no_approval_whatever_was_recorded() -> None:
    assert judged_approvals(replace(FACTS, policy=POLICY, approvals=(approval(" ADA ", BOUND),))) == ()


HOLIDAYS = FreezeWindow(from_="2026-01-02T00:01:00Z", until="2026-01-02T00:02:00Z", reason="holidays")


@pytest.mark.parametrize(("after_s", "ready"), [(59.999, True), (60, False), (119.999, False), (120, True)])
def test_a_freeze_holds_from_its_beginning_until_just_before_its_end(after_s: float, ready: bool) -> None:
    decision = decide(replace(FACTS, policy=PolicySpec(freeze=(HOLIDAYS,)), now=NOW + seconds(after_s)))
    said = ("promotions are frozen until 2026-01-02 00:02:00+00:00: holidays",)
    assert decision == (Ready() if ready else Hold(reasons=said))


def test_what_is_missing_reads_the_same_as_long_as_nothing_changes() -> None:
    policy = PolicySpec(approvals=2, approvals_expire_s=1, minimum_soak_s=3600, freeze=(HOLIDAYS,))
    facts = replace(FACTS, policy=policy, approvals=(approval("grace", binding(REGISTRATION, policy)),))
    decisions = {decide(replace(facts, now=NOW + seconds(after))) for after in (60, 75.5, 119)}
    assert len(decisions) == 1
    assert "it must stand in Staging for 3600 s, until 2026-01-02 01:00:00+00:00" in decisions.pop().reasons


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"approvals": 2}, False),
        ({"approvals_expire_s": 61}, False),
        ({"minimum_soak_s": 1}, False),
        ({"current_baseline": False}, False),
        ({"freeze": (HOLIDAYS,)}, False),
        ({"selftest": Selftest.REQUIRED}, False),
        ({"replay": ReplaySpec()}, False),
        ({"tampering": Tampering.REPORT}, True),
        ({"keep_versions": 1}, True),
        ({"keep_days": 1.0}, True),
    ],
)
def test_a_change_of_what_approvals_are_about_and_of_nothing_else_voids_them(change: dict, same: bool) -> None:
    assert (replace(EXPIRING, **change).digest == EXPIRING.digest) is same


def test_every_field_of_the_policy_is_either_approved_or_not() -> None:
    told = {"approvals", "approvals_expire_s", "minimum_soak_s", "current_baseline", "freeze", "selftest", "replay"}
    assert {field.name for field in fields(PolicySpec)} == told | {"tampering", "keep_versions", "keep_days"}


def test_one_person_counts_once() -> None:
    policy = PolicySpec(approvals=2)
    bound = binding(REGISTRATION, policy)
    decision = decide(replace(FACTS, policy=policy, approvals=(approval("grace", bound), approval("grace", bound))))
    assert isinstance(decision, Hold)
    assert "1 of 2 approval(s)" in decision.reasons[0]


def test_a_policy_of_its_terms_has_the_same_digest() -> None:
    weekly = FreezeWindow(days=(Weekday.FRI,), from_="16:00", until="08:00", timezone="Europe/Berlin", reason="weekend")
    policy = PolicySpec(
        approvals=2, approvals_expire_s=60.0, minimum_soak_s=5.0, freeze=(weekly,), replay=ReplaySpec(minimum_rows=7)
    )
    again = PolicySpec.from_terms(json.loads(json.dumps(policy.terms)))
    assert again.digest == policy.digest
    assert again.replay == policy.replay
    friday = datetime(2026, 11, 20, 20, tzinfo=UTC)
    assert find_freeze(again.freeze, friday) == find_freeze(policy.freeze, friday) is not None


def test_a_demanded_replay_holds_the_request_until_there_is_one() -> None:
    found = decide(replace(FACTS, policy=PolicySpec(replay=ReplaySpec())))
    assert found == Hold(reasons=("it was not replayed over recorded requests: run `release replay m --version 2`",))


class TestSelftest:
    DEMANDED = replace(FACTS, policy=PolicySpec(selftest=Selftest.REQUIRED))

    def with_proof(self, verdict: Verdict, *, metric: str = STOPPED) -> Facts:
        proof = replace(gate(verdict), gate="selftest", metric=metric)
        registration = replace(REGISTRATION, gates=(*REGISTRATION.gates, proof))
        return replace(self.DEMANDED, registration=registration, unproven="")

    def test_a_version_without_the_proof_waits_where_the_policy_demands_it(self) -> None:
        found = decide(self.DEMANDED)
        assert isinstance(found, Hold)
        assert found.reasons == (
            "its gates were not proven to stop spoilt models when it was registered: run `release gate selftest m`, "
            "then `release run m`",
        )
        assert isinstance(decide(FACTS), Ready)

    def test_the_recorded_proof_is_enough(self) -> None:
        assert isinstance(decide(self.with_proof(Verdict.PASSED)), Ready)

    def test_a_version_whose_signed_proof_does_not_verify_waits_whatever_its_gates_say(self) -> None:
        found = decide(replace(self.with_proof(Verdict.PASSED), unproven="it does not verify"))
        assert found == Hold(reasons=("it does not verify: run `release gate selftest m`, then `release run m`",))

    def test_a_gate_of_the_model_that_is_only_named_like_it_is_no_proof(self) -> None:
        assert isinstance(decide(self.with_proof(Verdict.PASSED, metric="roc_auc")), Hold)

    def test_a_proof_that_failed_rejects(self) -> None:
        assert isinstance(decide(self.with_proof(Verdict.FAILED)), Reject)
