"""Defects in judging a model outside of a release, and in the proof that its gates bite."""

from tests.mutants.defect import Defect

DEFECTS = (
    Defect(
        name="a version without the proof of its gates is promoted although the policy demands it",
        file="release_platform/domain/policy.py",
        old="return any(gate.metric == STOPPED and gate.passed for gate in registration.gates)",
        new="return any(gate.passed for gate in registration.gates)",
        tests=(
            "tests/unit/test_policy.py::TestSelftest::"
            "test_a_version_without_the_proof_waits_where_the_policy_demands_it",
        ),
    ),
    Defect(
        name="a version whose signed proof does not verify is promoted",
        file="release_platform/domain/policy.py",
        old="policy.selftest is Selftest.REQUIRED and (facts.unproven or not _is_proven(registration))",
        new="policy.selftest is Selftest.REQUIRED and not _is_proven(registration)",
        tests=(
            "tests/unit/test_policy.py::TestSelftest::"
            "test_a_version_whose_signed_proof_does_not_verify_waits_whatever_its_gates_say",
        ),
    ),
    Defect(
        name="the proof of other gates counts for these",
        file="release_platform/defs/selftest.py",
        old="if proof.binding != binding_of(project):",
        new="if not proof.binding:",
        tests=("tests/unit/test_selftest_proof.py::test_another_gate_or_another_model_makes_it_void",),
    ),
    Defect(
        name="gates that stop nothing are proven by a clean twin that passes",
        file="release_platform/domain/selftest.py",
        old="return both and all(result.as_it_should_be for result in self.results)",
        new="return both and all(r.as_it_should_be for r in self.results if r.twin is Twin.CLEAN)",
        tests=("tests/unit/test_selftest.py::TestOutcome::test_one_spoilt_twin_that_no_gate_stops_is_named",),
    ),
    Defect(
        name="the kept card of a version does not say that it was approved",
        file="release_platform/domain/card.py",
        old="return digest_of([moves, asked, approved])",
        new="return digest_of([moves, asked])",
        tests=(
            "tests/unit/test_card.py::TestState::"
            "test_a_request_its_end_and_a_bare_approval_change_that_of_its_version_only",
        ),
    ),
    Defect(
        name="a report that was edited in MLflow is judged",
        file="release_platform/gating/version.py",
        old="if found != registration.report_digest:",
        new="if not found:",
        tests=("tests/integration/test_gate_command.py::TestVersion::test_a_report_that_was_edited_is_refused",),
    ),
    Defect(
        name="two commits are compared in pairs though their rows are others",
        file="release_platform/gating/commits.py",
        old="same = np.array_equal(one.held_out, other.held_out) and np.array_equal(one.target, other.target)",
        new="same = np.array_equal(one.held_out, other.held_out)",
        tests=("tests/unit/test_judged.py::TestRows::test_two_commits_are_compared_in_pairs_only_on_the_same_rows",),
    ),
)
