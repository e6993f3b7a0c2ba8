"""Drills in Dagster: the job, its schedule, the sensor that brings back what was cut off, and the check rollback_ready.

Executing the check moves nothing: it says what the last drill showed. Only the job moves Production.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import Field

from release_platform.defs.attribution import actor_of
from release_platform.defs.naming import MODEL_TAG, asset_key, numbers
from release_platform.defs.promotion import (
    ACTOR,
    REQUEST_TAG,
    RUN_TAGS,
    NamedFailures,
    Projects,
    get_project,
    production_materialization,
)
from release_platform.defs.resources import Platform
from release_platform.domain.drill import Drilled, Outcome, readiness
from release_platform.domain.errors import Refused, ReleaseError, SpecError
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.stamps import OPERATOR_TAG
from release_platform.drills import AUTOMATIC, Order, drills_of, failure_of
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import Settings

CHECK = "rollback_ready"
SCHEDULE = "drills"
DAILY = "41 4 * * *"
SENSOR_INTERVAL_S = 30


class DrillForm(dg.Config):
    """Whose rollback is drilled, by whom and why."""

    model: str | None = Field(default=None, description="Name of the model; empty for all that can be drilled now.")
    actor: str = Field(default="", description=f"Who orders it; empty on the schedule; {ACTOR}")
    reason: str = Field(default="does a rollback work?", description="Why; it is kept in the ledger for good.")


def build_drill_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that a rollback from the version in Production was shown to work."""
    name = project.spec.name

    @dg.asset_check(
        asset=asset_key(name, "production_version"),
        name=CHECK,
        description="The last drill went to the previous version and back under load, and every answer was right. "
        "The job drill makes one; this check only looks at what it showed.",
    )
    def rollback_ready(platform: Platform) -> dg.AssetCheckResult:
        found = evaluation_of(name, platform.services)
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, description=found.description, metadata=dict(found.metadata)
        )

    return rollback_ready


def evaluation_of(model: str, services: Services) -> dg.AssetCheckEvaluation:
    """Returns what the check says now: what was never drilled as it stands warns, and so does what is no evidence."""
    last, head = services.store.drills.find_last(model), services.store.head(model)
    shown = readiness(last, head, datetime.now(UTC))
    bad = shown is not None and shown["ready"] is False and last is not None and last.outcome is Outcome.NOT_READY
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(model, "production_version"),
        check_name=CHECK,
        passed=shown is None or shown["ready"] is True,
        severity=dg.AssetCheckSeverity.ERROR if bad else dg.AssetCheckSeverity.WARN,
        description="there is no previous version, so no rollback to drill" if shown is None else shown["said"],
        metadata={} if last is None else _metadata(last),
    )


def build_drill(projects: Projects, cron: str) -> dg.Definitions:
    """Returns the job, the schedule, and the sensor that brings Production back where a drill was cut off.

    Args:
        projects: The models.
        cron: When the schedule launches the job; empty: it is off, and daily once it is switched on in Dagster.

    Raises:
        SpecError: That is no cron expression.
    """
    if cron and not is_valid_cron_schedule(cron):
        raise SpecError(
            f"RELEASE_DRILL_CRON is '{cron}', no cron expression", remedy=f"write it like '{DAILY}': daily at 04:41 UTC"
        )

    @dg.op(description="Swaps Production to the previous version and back under load, and keeps what that showed.")
    def swap_and_return(context: dg.OpExecutionContext, config: DrillForm, platform: Platform) -> None:
        services = platform.services
        with NamedFailures():
            actor = _actor(context, config.actor, services.settings)
            if config.model is not None:
                _drill(context, services, get_project(projects, config.model), actor, config.reason)
                return
        wrong: list[str] = []
        for name, project in projects.items():
            try:
                _drill(context, services, project, actor, config.reason)
            except Refused as error:
                context.log.info(f"{name} is left out: {error.problem}")
            except ReleaseError as error:
                wrong.append(str(error))
        if wrong:
            raise dg.Failure("\n".join(wrong), allow_retries=False)

    @dg.job(
        description="Drill a rollback: to the previous version and back under load.",
        tags=RUN_TAGS,
        executor_def=dg.in_process_executor,
    )
    def drill() -> None:
        swap_and_return()

    schedule = dg.ScheduleDefinition(
        name=SCHEDULE,
        job=drill,
        cron_schedule=cron or DAILY,
        default_status=dg.DefaultScheduleStatus.RUNNING if cron else dg.DefaultScheduleStatus.STOPPED,
    )
    return dg.Definitions(jobs=[drill], schedules=[schedule], sensors=[_build_sensor(projects)])


def _actor(context: dg.OpExecutionContext, claimed: str, settings: Settings) -> str:
    """Returns who drills: whoever signed in, also if the run's tags say that the schedule launched it."""
    tags = context.run.tags
    scheduled = tags.get("dagster/schedule_name") == SCHEDULE and OPERATOR_TAG not in tags
    return AUTOMATIC if scheduled else actor_of(context, claimed, settings)


def drill_id_of(run_id: str, model: str) -> str:
    """Returns the id of the drill of a model in a run."""
    return f"{run_id}-{model}"[:100]


def _drill(context: dg.OpExecutionContext, services: Services, project: Project, actor: str, reason: str) -> None:
    name = project.spec.name

    def moved(row: LedgerRow, said: Sequence[str]) -> None:
        for sentence in said:
            context.log.info(sentence)
        context.log_event(production_materialization(row, services, context.run_id, said))

    order = Order(model=name, drill_id=drill_id_of(context.run_id, name), actor=actor, reason=reason)
    context.instance.add_run_tags(context.run_id, {REQUEST_TAG: order.drill_id, MODEL_TAG: name})
    drilled = drills_of(services).run(order, project.spec.policy, moved=moved)
    context.log_event(evaluation_of(name, services))  # type: ignore[arg-type] # Dagster takes it, see verify
    failure = failure_of(drilled)
    if failure is not None:
        raise failure


def _build_sensor(projects: Projects) -> dg.SensorDefinition:
    @dg.sensor(
        name="drill_sensor",
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Brings Production back where a drill was cut off between its two moves.",
    )
    def drill_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Any:
        services, said = platform.services, list[str]()
        events: list[Any] = []

        def moved(row: LedgerRow, sentences: Sequence[str]) -> None:
            events.append(production_materialization(row, services, None, sentences))

        for name in projects:
            try:
                found = drills_of(services).recover(name, moved=moved)
            except ReleaseError as error:
                said.append(f"{name}: {error.problem}")
                continue
            if found is not None:
                said.append(f"{name}: {'; '.join(found.problems)}")
                events.append(evaluation_of(name, services))
        for line in said:
            context.log.warning(line)
        return dg.SensorResult(skip_reason="\n".join(said) or "no drill was cut off", asset_events=events)

    return drill_sensor


def _metadata(drilled: Drilled) -> dict[str, Any]:
    return {
        "version": drilled.home,
        "previous_version": drilled.away,
        "outcome": drilled.outcome.value,
        "requests": drilled.n_requests,
        "failures": drilled.n_failures,
        "servers": len(drilled.servers),
        "actor": drilled.actor,
        "at": drilled.at,
        **numbers({"there_ms": drilled.there_ms, "back_ms": drilled.back_ms}),
        "problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in drilled.problems) or "none"),
    }
