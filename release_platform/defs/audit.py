"""The audit as an asset check, every hour: all systems say the same of a model, and no invariant is broken."""

from collections.abc import Iterator
from dataclasses import replace
from time import sleep
from typing import Any

import dagster as dg

from release_platform.audit import observe, with_lineage, with_servers
from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import Projects
from release_platform.defs.resources import Platform
from release_platform.domain.invariants import Finding, violations
from release_platform.domain.observation import DagsterView, Materialized, Observation, RunView
from release_platform.project import Project
from release_platform.services import Services

SECOND_LOOK_S = 3.0
_PAGE = 200


def audit_model(
    services: Services, instance: dg.DagsterInstance, model: str
) -> tuple[Observation, list[Finding], list[str]]:
    """Returns what was seen of a model, each broken invariant, and what could not be compared.

    What is wrong at the first look only was a move under way, so it is no finding.

    Raises:
        Unavailable: The release store, the registry or MLflow does not answer.
    """
    seen, away = _look(services, instance, model)
    found = violations(seen)
    if found:
        sleep(SECOND_LOOK_S)
        seen, away = _look(services, instance, model)
        found = tuple(finding for finding in violations(seen) if finding in found)
    return seen, list(found), list(away)


def build_audit_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that no invariant of a model's releases is broken."""
    key = audit_check(project.spec.name)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Dagster, MLflow, artefacts, release store and live servers agree; no invariant is broken.",
    )
    def invariants_hold(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
        _, found, away = audit_model(platform.services, context.instance, project.spec.name)
        lines = [f"{finding.subject}: {finding.problem}" for finding in found]
        return dg.AssetCheckResult(
            passed=not found,
            description="; ".join(lines) or None,
            metadata={
                "findings": len(found),
                "found": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "nothing"),
                "not_compared": "; ".join(away) or "everything was compared",
            },
        )

    return invariants_hold


def audit_check(model: str) -> dg.AssetCheckKey:
    """Returns the key of a model's audit."""
    return dg.AssetCheckKey(asset_key(model, "production_version"), "invariants_hold")


def build_audit(projects: Projects) -> dg.Definitions:
    """Returns the job that audits all models, and the schedule that launches it every hour."""
    checks: Any = dg.AssetSelection.checks(*(audit_check(name) for name in projects))
    job = dg.define_asset_job("audit", selection=checks, description="Audit every model.")
    schedule = dg.ScheduleDefinition(
        name="hourly_audit", job=job, cron_schedule="17 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])


def _look(services: Services, instance: dg.DagsterInstance, model: str) -> tuple[Observation, tuple[str, ...]]:
    seen = observe(services.releases, model)
    seen = with_lineage(seen, services.tracking, services.snapshots)
    seen, away = with_servers(seen, services.settings.serving_urls)
    return replace(seen, dagster=_dagster(instance, seen)), away


def _dagster(instance: dg.DagsterInstance, seen: Observation) -> DagsterView:
    run_ids = {registration.dagster_run_id for registration in seen.store.present}
    return DagsterView(
        runs={run_id: _run(instance, run_id) for run_id in run_ids},
        registered=tuple(_materialized(instance, asset_key(seen.model, "registered_version"))),
        moved=tuple(_materialized(instance, asset_key(seen.model, "production_version"))),
    )


def _run(instance: dg.DagsterInstance, run_id: str) -> RunView:
    run = instance.get_run_by_id(run_id)
    return RunView(run_id=run_id, problem="is gone" if run is None else "", tags={} if run is None else dict(run.tags))


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[Materialized]:
    cursor = None
    while True:
        page = instance.fetch_materializations(key, limit=_PAGE, cursor=cursor)
        for record in page.records:
            if record.asset_materialization is not None:
                yield _read({name: found.value for name, found in record.asset_materialization.metadata.items()})
        if not page.has_more:
            return
        cursor = page.cursor


def _read(metadata: dict[str, Any]) -> Materialized:
    return Materialized(
        version=str(metadata.get("version")),
        digest=str(metadata.get("digest")),
        epoch=metadata.get("epoch"),
        ledger_hash=metadata.get("ledger_hash"),
    )
