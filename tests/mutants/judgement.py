"""Defects in gates, policy, approvals and freezes: what decides whether a version may go to Production."""

from tests.mutants.defect import Defect

_GATES = "release_platform/domain/gates.py"
_EVIDENCE = "release_platform/domain/evidence.py"
_POLICY = "release_platform/domain/policy.py"
_REGISTRATION = "release_platform/defs/registration.py"
_RELEASES = "release_platform/releases.py"
_OF_GATES = "tests/unit/test_gates.py::"
_OF_POLICY = "tests/unit/test_policy.py::"
_OF_RELEASES = "tests/integration/test_releases.py::"
_REJECTS = f"{_OF_POLICY}test_what_cannot_come_true_any_more_rejects"

DEFECTS = (
    Defect(
        name="no data passes",
        file=_GATES,
        old='return _result(gate, Verdict.INCONCLUSIVE, f"{of} was not measured, so it cannot pass", None, limit)',
        new='return _result(gate, Verdict.PASSED, f"{of} was not measured", None, limit)',
        tests=(f"{_OF_GATES}TestLimit::test_a_metric_that_the_report_does_not_have_is_inconclusive",),
    ),
    Defect(
        name="no slice with enough rows passes",
        file=_GATES,
        old="return _result(gate, Verdict.INCONCLUSIVE, reason, None)\n    order",
        new="return _result(gate, Verdict.PASSED, reason, None)\n    order",
        tests=(f"{_OF_GATES}TestSlices::test_without_a_value_that_has_enough_rows_it_is_inconclusive",),
    ),
    Defect(
        name="NaN is a measurement",
        file=_EVIDENCE,
        old='if number is not None and not isfinite(number):\n                raise ValueError("a measurement',
        new='if number is not None and number in ():\n                raise ValueError("a measurement',
        tests=(f"{_OF_GATES}TestLimit::test_a_number_that_is_not_finite_cannot_be_in_a_report",),
    ),
    Defect(
        name="a value at its minimum fails",
        file=_GATES,
        old="value < gate.minimum:",
        new="value <= gate.minimum:",
        tests=(f"{_OF_GATES}TestLimit::test_a_minimum_is_included",),
    ),
    Defect(
        name="a maximum is held as a minimum",
        file=_GATES,
        old="value > gate.maximum:",
        new="value < gate.maximum:",
        tests=(f"{_OF_GATES}TestLimit::test_a_maximum_is_included",),
    ),
    Defect(
        name="the best slice decides",
        file=_GATES,
        old="worst = max(judged,",
        new="worst = min(judged,",
        tests=(f"{_OF_GATES}TestSlices::test_the_worst_value_decides_and_is_named",),
    ),
    Defect(
        name="a gate against Production judges the point estimate, not its bound",
        file=_GATES,
        old="if lower >= -gate.margin:",
        new="if comparison.improvement >= -gate.margin:",
        tests=(f"{_OF_GATES}TestAgainstProduction::test_it_is_a_test_of_non_inferiority",),
    ),
    Defect(
        name="inconclusive counts as passed",
        file=_POLICY,
        old="if gate.blocking and not gate.passed]",
        new='if gate.blocking and gate.verdict == "failed"]',
        tests=(_REJECTS,),
    ),
    Defect(
        name="a version without a blocking gate is promoted",
        file=_POLICY,
        old="if not any(gate.blocking for gate in registration.gates):",
        new="if registration.gates is None:",
        tests=(_REJECTS,),
    ),
    Defect(
        name="the registry's digest is not compared",
        file=_POLICY,
        old="if registration.digest != facts.registry_digest:",
        new="if not registration.digest:",
        tests=(_REJECTS,),
    ),
    Defect(
        name="gates that compared with a former Production version count",
        file=_POLICY,
        old="if policy.current_baseline and facts.head.production not in {registration.baseline, None}:",
        new="if policy.current_baseline and registration.baseline is None:",
        tests=(f"{_OF_POLICY}test_gates_must_have_compared_with_what_is_in_production_now",),
    ),
    Defect(
        name="registration takes checks of another evaluation",
        file=_REGISTRATION,
        old="if target is None or target.storage_id != storage_id:",
        new="if target is None:",
        tests=(
            "tests/integration/test_release_job.py::test_a_check_of_an_older_evaluation_does_not_count_for_a_newer_one",
        ),
    ),
    Defect(
        name="a version is promoted that never was in Staging",
        file=_RELEASES,
        old="staged_at=_moment(staged[-1]) if staged else None,",
        new="staged_at=_moment(staged[-1]) if staged else self._clock.now(),",
        tests=(f"{_OF_RELEASES}test_a_version_that_never_was_in_staging_is_not_promoted",),
    ),
    Defect(
        name="promoting does not ask again whether the conditions hold",
        file=_RELEASES,
        old="if not isinstance(decision, Ready):",
        new="if isinstance(decision, Reject):",
        tests=(f"{_OF_RELEASES}test_promoting_past_what_is_missing_is_refused",),
    ),
    Defect(
        name="requester = approver is recorded, in other letters",
        file=_RELEASES,
        old="if same_person(actor, request.actor):",
        new="if actor == request.actor:",
        tests=(f"{_OF_RELEASES}test_nobody_and_the_requester_in_other_letters_do_not_approve",),
    ),
    Defect(
        name="requester = approver counts",
        file=_POLICY,
        old=" or not person or same_person(person, facts.request.actor):",
        new=" or not person:",
        tests=(
            f"{_OF_POLICY}test_an_approval_counts_only_for_exactly_what_was_seen",
            f"{_OF_POLICY}test_the_requester_has_no_approval_whatever_was_recorded",
        ),
    ),
    Defect(
        name="an approval of another request counts",
        file=_POLICY,
        old="if approval.request_id != facts.request.request_id or not person",
        new="if not person",
        tests=(f"{_OF_POLICY}test_an_approval_counts_only_for_exactly_what_was_seen",),
    ),
    Defect(
        name="an approval of another model, report or policy counts",
        file=_POLICY,
        old="if approval.binding != bound_to:",
        new="if not approval.binding:",
        tests=(
            f"{_OF_POLICY}test_an_approval_counts_only_for_exactly_what_was_seen",
            f"{_OF_POLICY}test_a_void_approval_is_named",
        ),
    ),
    Defect(
        name="an approval is not bound to the policy",
        file=_POLICY,
        old="return digest_of([registration.digest, registration.report_digest, policy_digest])",
        new="return digest_of([registration.digest, registration.report_digest])",
        tests=(f"{_OF_POLICY}test_an_approval_counts_only_for_exactly_what_was_seen",),
    ),
    Defect(
        name="an approval never expires",
        file=_POLICY,
        old="standing = Standing.VALID if until is None or facts.now <= until else Standing.EXPIRED",
        new="standing = Standing.VALID",
        tests=(f"{_OF_POLICY}test_an_approval_counts_up_to_exactly_its_age",),
    ),
    Defect(
        name="a freeze holds nothing",
        file=_POLICY,
        old="if freeze is not None:",
        new="if freeze is not None and freeze.until is None:",
        tests=(f"{_OF_POLICY}test_a_freeze_holds_from_its_beginning_until_just_before_its_end",),
    ),
    Defect(
        name="the time in Staging is not awaited",
        file=_POLICY,
        old="if (facts.now - facts.staged_at).total_seconds() < policy.minimum_soak_s:",
        new="if (facts.now - facts.staged_at).total_seconds() < 0:",
        tests=(f"{_OF_POLICY}test_a_version_soaks_in_staging",),
    ),
)
