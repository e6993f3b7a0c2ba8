"""The check that a model's gates bite: spoilt twins of it are stopped by a gate, and a clean one passes."""

from typing import Any

import dagster as dg

from release_platform.defs.naming import asset_key
from release_platform.domain.gates import GateResult
from release_platform.domain.selftest import SELFTEST, Selftest
from release_platform.gating.selftest import binding_of, run_selftest
from release_platform.project import Project

_RECORD = "selftest"


def build_selftest_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check; it trains many models, so no job runs it by itself."""
    key = selftest_key(project)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Models that are spoilt on purpose are stopped by a gate, and a clean one passes.",
    )
    def selftest() -> dg.AssetCheckResult:
        found = run_selftest(project)
        return dg.AssetCheckResult(passed=found.passed, description=found.said, metadata=_metadata(found))

    return selftest


def selftest_key(project: Project) -> dg.AssetCheckKey:
    """Returns the key of a model's check."""
    return dg.AssetCheckKey(asset_key(project.spec.name, "registered_version"), SELFTEST)


def selftest_evaluation(project: Project, found: Selftest) -> dg.AssetCheckEvaluation:
    """Returns a selftest as an evaluation of the check, for one that was run by hand."""
    key = selftest_key(project)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=found.passed,
        description=found.said,
        metadata=_metadata(found),
    )


def proof_of(instance: dg.DagsterInstance, project: Project) -> tuple[GateResult | None, str]:
    """Returns the newest recorded selftest as a gate's result, and what is wrong with it; None and why without one.

    A selftest of other gates, or of another model than the spec describes now, proves nothing.
    """
    remedy = f"run `release gate selftest {project.spec.name}`"
    record = instance.get_latest_asset_check_evaluation_record(selftest_key(project))
    event = record.event.dagster_event if record and record.event else None
    found = event.event_specific_data if event else None
    if not isinstance(found, dg.AssetCheckEvaluation) or _RECORD not in found.metadata:
        return None, f"the gates were never proven to stop spoilt models; {remedy}"
    value: Any = found.metadata[_RECORD].value
    proof = Selftest.from_json(value)
    if proof.binding != binding_of(project):
        return (
            None,
            f"the gates were proven before the defs.yaml, the code of the source or the platform was changed; {remedy}",
        )
    return proof.gate, "" if proof.passed else f"{proof.said}; correct the gates, then {remedy}"


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
