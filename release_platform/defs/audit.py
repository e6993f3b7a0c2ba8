"""The audit as an asset check, every hour: all systems say the same of a model, and no invariant is broken."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import sleep
from typing import Any

import dagster as dg

from release_platform.audit import observe, with_lineage, with_servers
from release_platform.defs.naming import asset_key
from release_platform.defs.promotion import Projects
from release_platform.defs.resources import Platform
from release_platform.domain.errors import IntegrityError
from release_platform.domain.invariants import UNREADABLE, Finding, violations
from release_platform.domain.observation import DagsterView, Materialized, Observation, RunView
from release_platform.project import Project
from release_platform.services import Services

SECOND_LOOK_S = 3.0
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What one look at a model in all systems said.

    Attributes:
        model: The model.
        n_versions: Versions that were not removed.
        n_moves: Rows of its ledger.
        findings: Each broken invariant.
        not_compared: A sentence for each server that did not answer.
    """

    model: str
    n_versions: int = 0
    n_moves: int = 0
    findings: tuple[Finding, ...] = ()
    not_compared: tuple[str, ...] = ()


def audit_model(
    services: Services, instance: dg.DagsterInstance, model: str, *, second_look_s: float = SECOND_LOOK_S
) -> Audit:
    """Returns what is wrong with a model at two looks: what is wrong at the first only was a move under way.

    Raises:
        Unavailable: The release store, the registry or MLflow does not answer.
    """
    first = look(services, instance, model)
    if not first.findings:
        return first
    sleep(second_look_s)
    again = look(services, instance, model)
    return replace(again, findings=tuple(finding for finding in again.findings if finding in first.findings))


def look(services: Services, instance: dg.DagsterInstance, model: str) -> Audit:
    """Returns what is wrong with a model now.

    Raises:
        Unavailable: The release store, the registry or MLflow does not answer.
    """
    try:
        seen, away = _observed(services, instance, model)
    except IntegrityError as error:  # a record or a key that cannot even be read ends the look
        unread = Finding(invariant=UNREADABLE, model=model, subject="records", problem=error.problem)
        return Audit(model=model, findings=(unread,))
    return Audit(
        model=model,
        n_versions=len(seen.store.present),
        n_moves=len(seen.store.rows),
        findings=violations(seen),
        not_compared=away,
    )


def build_audit_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that no invariant of a model's releases is broken."""
    key = audit_check(project.spec.name)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Dagster, MLflow, artefacts, release store and live servers agree; no invariant is broken.",
    )
    def invariants_hold(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
        audit = audit_model(platform.services, context.instance, project.spec.name)
        lines = [f"{finding.subject}: {finding.problem}" for finding in audit.findings]
        return dg.AssetCheckResult(
            passed=not lines,
            description="; ".join(lines) or None,
            metadata={
                "findings": len(lines),
                "found": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "nothing"),
                "not_compared": "; ".join(audit.not_compared) or "everything was compared",
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


def _observed(services: Services, instance: dg.DagsterInstance, model: str) -> tuple[Observation, tuple[str, ...]]:
    seen = observe(services.releases, model)
    seen = with_lineage(seen, services.tracking, services.snapshots)
    key = services.settings.serving_api_key.get_secret_value()
    seen, away = with_servers(seen, services.server_urls, key)
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
    """Anyone may report a materialization, so what is no number and no text is only shown."""
    named = {name: metadata.get(name) for name in ("version", "digest", "epoch", "ledger_hash")}
    return Materialized(
        **{name: value if isinstance(value, str | int | None) else str(value) for name, value in named.items()}
    )
