"""The check that a model's gates bite: spoilt twins of it are stopped by a gate, and a clean one passes."""

from typing import Any

import dagster as dg

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.domain.selftest import SELFTEST, Selftest
from release_platform.gating.selftest import binding_of, run_selftest
from release_platform.project import Project
from release_platform.proofs import Proofs

_RECORD = "selftest"


def build_selftest_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check; it trains many models, so no job runs it by itself."""
    key = selftest_key(project)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Models that are spoilt on purpose are stopped by a gate, and a clean one passes.",
    )
    def selftest(platform: Platform) -> dg.AssetCheckResult:
        found = run_selftest(project)
        platform.services.releases.proofs.keep(found)
        return dg.AssetCheckResult(passed=found.passed, description=found.said, metadata=_metadata(found))

    return selftest


def selftest_key(project: Project) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(project.spec.name, "registered_version"), SELFTEST)


def selftest_evaluation(project: Project, found: Selftest) -> dg.AssetCheckEvaluation:
    """Returns a selftest as an evaluation of the check, for one that was run by hand; shown, it proves nothing."""
    key = selftest_key(project)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=found.passed,
        description=found.said,
        metadata=_metadata(found),
    )


def proof_of(proofs: Proofs, project: Project) -> tuple[Selftest | None, str]:
    """Returns the newest selftest that was signed and kept, and what is wrong with it; None and why without one.

    A selftest of other gates, or of another model than the spec describes now, proves nothing; nor does what Dagster
    shows of one.

    Raises:
        IntegrityError: No trusted key signed it, or it was changed since.
    """
    remedy = f"run `release gate selftest {project.spec.name}`"
    proof = proofs.find_newest(project.spec.name)
    if proof is None:
        return None, f"the gates were never proven to stop spoilt models; {remedy}"
    if proof.binding != binding_of(project):
        return (
            None,
            f"the gates were proven before the defs.yaml, the code of the source or the platform was changed; {remedy}",
        )
    return proof, "" if proof.passed else f"{proof.said}; correct the gates, then {remedy}"


def _metadata(found: Selftest) -> dict[str, Any]:
    rows = ["| twin | stopped by | what was done |", "|---|---|---|"]
    for result in found.results:
        stopped = ", ".join(result.stopped_by) or (f"skipped: {result.skipped}" if result.skipped else "nothing")
        rows.append(f"| {result.twin} | {stopped} | {result.detail} |")
    return {
        "stopped": found.n_stopped,
        "spoilt": found.n_spoilt,
        "rows": found.n_rows,
        "twins": dg.MetadataValue.md("\n".join(rows)),
        _RECORD: dg.MetadataValue.json(found.to_json()),
    }
