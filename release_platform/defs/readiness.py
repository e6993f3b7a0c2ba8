"""The check promotion_ready on production_version: what each open promotion request still waits for.

It looks when it is executed; between, the promotion sensor evaluates it anew whenever what is missing changes.
"""

from collections.abc import Sequence

import dagster as dg

from release_platform.defs.naming import asset_key
from release_platform.defs.resources import Platform
from release_platform.domain.policy import Decision, PromotionRequest, RequestState, decide, missing_of
from release_platform.project import Project

CHECK = "promotion_ready"
Decided = tuple[PromotionRequest, Decision]
_COLUMNS = ("request", "version", "actor", "missing")
_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in _COLUMNS])


def build_ready_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that nothing is missing of any open request; it warns, and stops nothing."""

    @dg.asset_check(
        asset=asset_key(project.spec.name, "production_version"),
        name=CHECK,
        description="No promotion request is open, or every one is ready; otherwise it lists what is missing.",
    )
    def promotion_ready(platform: Platform) -> dg.AssetCheckResult:
        services, policy = platform.services, project.spec.policy
        asked = services.store.requests(project.spec.name, RequestState.OPEN)
        decided = [(request, decide(services.releases.facts(request, policy))) for request in asked]
        found = ready_evaluation(project.spec.name, decided)
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, description=found.description, metadata=dict(found.metadata)
        )

    return promotion_ready


def ready_evaluation(model: str, decided: Sequence[Decided]) -> dg.AssetCheckEvaluation:
    """Returns the evaluation of a model's check, from its open requests and what was decided of each."""
    waiting = [(request, missing_of(decision)) for request, decision in decided]
    rows = [
        dg.TableRecord(dict(zip(_COLUMNS, (request.request_id, request.version, request.actor, reason), strict=True)))
        for request, missing in waiting
        for reason in missing
    ]
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(model, "production_version"),
        check_name=CHECK,
        passed=not rows,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(_said(request, missing) for request, missing in waiting)
        or "no promotion request is open",
        metadata={"open_requests": len(waiting), "missing": dg.MetadataValue.table(rows, schema=_SCHEMA)},
    )


def _said(request: PromotionRequest, missing: tuple[str, ...]) -> str:
    asked = f"version {request.version} (request {request.request_id} by {request.actor})"
    return f"{asked} waits: {'; '.join(missing)}" if missing else f"{asked} is ready"
