"""production_version: an operator's request, the sensor that decides it, and the jobs that move Production.

`request_promotion` records who wants what and why. `promotion_sensor` looks at every open request, launches `promote`
once for those whose conditions hold, and says of the others which condition is missing. `promote` asks the database
again and moves Production. `rollback` brings a former version back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from release_platform.defs.attribution import actor_of
from release_platform.defs.naming import MODEL_TAG, asset_key, link, shared
from release_platform.defs.readiness import Decided, ready_evaluation
from release_platform.defs.resources import Platform
from release_platform.defs.sensor_cursor import changed_evaluations
from release_platform.domain.asked_rollout import asked_in_words
from release_platform.domain.errors import NotFound, Refused, ReleaseError, Unavailable
from release_platform.domain.freeze import moment_text
from release_platform.domain.ledger import ROLLBACK_ID, LedgerRow
from release_platform.domain.policy import Hold, PromotionRequest, Ready, Reject, RequestState, approval_end
from release_platform.domain.policy_spec import Tampering
from release_platform.domain.rollout import Rollout
from release_platform.domain.strategy import Strategy, strategy_named
from release_platform.model_card import follow_cards, kept_card
from release_platform.project import Project
from release_platform.services import Services

REQUEST_TAG = "release/request"
MAXIMUM_ATTEMPTS = 3
SENSOR_INTERVAL_S = 5
SERVERS = "servers"
"""Names, in the metadata of a move, what each live server said to it, a sentence a line."""
Projects = Mapping[str, Project]
RUN_TAGS = {"dagster/max_retries": "0"}
ACTOR = "where API keys are required it is whoever signed in, whatever is written here."


class PromotionForm(dg.Config):
    """Who wants which version in Production, and why."""

    model: str = Field(description="Name of the model, e.g. flight_delay.")
    actor: str = Field(default="", description=f"Who asks for it; {ACTOR}")
    reason: str = Field(description="Why; it is kept in the ledger for good.")
    version: str | None = Field(default=None, description="The version; empty for the one in Staging.")
    strategy: str | None = Field(
        default=None, description="all_at_once, canary, shadow or shadow_then_canary; empty for the model's own."
    )
    steps: list[str] = Field(
        default=[],
        description="Steps of a canary, WEIGHT:REQUESTS:TIME, e.g. 5%:2000:10m; empty for the model's own.",
    )
    shadow: str | None = Field(
        default=None, description="The shadow stage, SHARE:PAIRS:TIME, e.g. 50%:1000:10m; empty for the model's own."
    )
    bake: str | None = Field(default=None, description="The bake time, e.g. 2h; empty for the model's own.")
    gates: list[str] = Field(
        default=[], description="Gates beside the model's own, or stricter ones, METRIC:MARGIN, e.g. errors:0.5%."
    )
    request_id: str | None = Field(
        default=None, description="An id of your own, so that a repeated launch does nothing."
    )


class ApprovalForm(dg.Config):
    """Who approves which request."""

    request_id: str = Field(description="Id of the promotion request.")
    actor: str = Field(default="", description=f"Who approves, not the one who asked; {ACTOR}")
    reason: str = Field(default="", description="What was looked at.")


class PromoteForm(dg.Config):
    """Which request is carried out. The sensor fills it in."""

    request_id: str = Field(description="Id of an open promotion request whose conditions hold.")


class RollbackForm(dg.Config):
    """Who brings which former version back, and why."""

    model: str = Field(description="Name of the model.")
    actor: str = Field(default="", description=f"Who rolls back; {ACTOR}")
    reason: str = Field(description="Why; it is kept in the ledger for good.")
    to: str | None = Field(default=None, description="A former Production version; empty for the previous one.")


def get_project(projects: Projects, model: str) -> Project:
    """Returns a model's project.

    Raises:
        NotFound: This code location has no such model.
    """
    if model not in projects:
        raise NotFound(
            f"there is no model '{model}' here", remedy=f"known are: {', '.join(sorted(projects)) or 'none'}"
        )
    return projects[model]


def build_production_version(project: Project) -> dg.AssetSpec:
    """Returns the asset that promotions and rollbacks materialize; it cannot be materialized by hand."""
    of = shared(
        project,
        "production_version",
        kinds={"mlflow"},
        description="What is in Production. Launch request_promotion to move it.",
    )
    return dg.AssetSpec(
        asset_key(project.spec.name, "production_version"),
        deps=[asset_key(project.spec.name, "registered_version")],
        **of,
    )


def build_registry_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that the registry shows what ledger and release store say."""
    key = registry_check(project.spec.name)

    @dg.asset_check(
        asset=key.asset_key,
        name=key.name,
        description="Aliases, versions, tags and certificates in the registry are what ledger and release store say.",
    )
    def registry_shows_ledger(platform: Platform) -> dg.AssetCheckResult:
        found = [one.sentence for one in platform.services.releases.projection.deviations(project.spec.name)]
        head = platform.services.store.head(project.spec.name)
        return dg.AssetCheckResult(
            passed=not found,
            description="; ".join(found) or None,
            metadata={"faults": len(found), "head": dg.MetadataValue.json(head.to_json())},
        )

    return registry_shows_ledger


def registry_evaluation(model: str, faults: Sequence[str]) -> dg.AssetCheckEvaluation:
    """Returns the evaluation of that check by the sensor, which saw these changes behind the platform's back."""
    key = registry_check(model)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key, check_name=key.name, passed=not faults, description="; ".join(faults) or None
    )


def registry_check(model: str) -> dg.AssetCheckKey:
    """Returns the key of the check that the registry shows what ledger and release store say."""
    return dg.AssetCheckKey(asset_key(model, "production_version"), "registry_shows_ledger")


def build_jobs(projects: Projects) -> tuple[dg.JobDefinition, ...]:
    """Returns the operator's jobs over these models: request_promotion, approve, promote, rollback."""

    @dg.op(description="Records a promotion request.")
    def open_request(context: dg.OpExecutionContext, config: PromotionForm, platform: Platform) -> None:
        with NamedFailures():
            request = platform.services.rollouts.request(
                get_project(projects, config.model).spec,
                version=config.version,
                actor=actor_of(context, config.actor, platform.services.settings),
                reason=config.reason,
                request_id=config.request_id,
                strategy=find_strategy(config.strategy),
                asked=asked_in_words(config.steps, config.shadow, config.bake, config.gates),
            )
            context.instance.add_run_tags(context.run_id, {REQUEST_TAG: request.request_id, MODEL_TAG: config.model})
            context.log.info(f"request {request.request_id}: {config.model} version {request.version}")

    @dg.op(description="Records an approval of what a request asks for now.")
    def record_approval(context: dg.OpExecutionContext, config: ApprovalForm, platform: Platform) -> None:
        with NamedFailures():
            request = platform.services.store.get_request(config.request_id)
            policy = get_project(projects, request.model).spec.policy
            approval = platform.services.releases.approve(
                config.request_id,
                actor=actor_of(context, config.actor, platform.services.settings),
                reason=config.reason,
                policy=policy,
            )
            until = approval_end(approval, policy)
            valid = f"until {moment_text(until)}" if until else "until model, report or policy change"
            context.instance.add_run_tags(context.run_id, {REQUEST_TAG: config.request_id, MODEL_TAG: request.model})
            context.log.info(f"request {config.request_id}: approved by {approval.actor}, {valid}")
            follow_cards(platform.services, projects[request.model], first=request.version)

    @dg.op(description="Moves Production to what a request asks for, or begins its rollout, if every condition holds.")
    def move_production(context: dg.OpExecutionContext, config: PromoteForm, platform: Platform) -> None:
        said: list[str] = []
        with NamedFailures():
            request = platform.services.store.get_request(config.request_id)
            project = get_project(projects, request.model)
            done = platform.services.rollouts.carry_out(config.request_id, project.spec, tell=said.append)
            for sentence in said:
                context.log.info(sentence)
            if isinstance(done, Rollout):  # the rollout sensor shows it and carries it on
                context.log.info(f"{done.model}: the rollout of version {done.candidate} is {done.said}")
            elif platform.services.store.head(done.model).production == done.version:  # not repeated after a rollback
                context.log_event(production_materialization(done, platform.services, context.run_id, said, project))

    @dg.op(description="Brings a former Production version back.")
    def bring_back(context: dg.OpExecutionContext, config: RollbackForm, platform: Platform) -> None:
        said: list[str] = []
        with NamedFailures():
            project = get_project(projects, config.model)
            row = platform.services.releases.rollback(
                config.model,
                to=config.to,
                actor=actor_of(context, config.actor, platform.services.settings),
                reason=config.reason,
                request_id=f"{ROLLBACK_ID}{context.run_id}",
                tell=said.append,
            )
            for sentence in said:
                context.log.info(sentence)
            context.instance.add_run_tags(context.run_id, {REQUEST_TAG: row.request_id, MODEL_TAG: row.model})
            context.log_event(production_materialization(row, platform.services, context.run_id, said, project))

    def job(name: str, description: str, op: dg.OpDefinition) -> dg.JobDefinition:
        @dg.job(name=name, description=description, tags=RUN_TAGS, executor_def=dg.in_process_executor)
        def made() -> None:
            op()

        return made

    return (
        job("request_promotion", "Ask for a version to go to Production. The promotion sensor decides.", open_request),
        job("approve", "Approve a promotion request.", record_approval),
        job("promote", "Carry out a request; launched by the promotion sensor.", move_production),
        job("rollback", "Bring a former Production version back.", bring_back),
    )


def find_strategy(name: str | None) -> Strategy | None:
    """Returns the strategy that a request names, or None when it names none.

    Raises:
        Refused: There is no such strategy; names the nearest one.
    """
    try:
        return strategy_named(name) if name else None
    except ValueError as error:
        raise Refused(str(error), remedy="name one, or leave it out for the model's own") from None


class NamedFailures:
    """Turns the platform's errors into Dagster failures that are not retried."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ReleaseError):
            raise dg.Failure(str(error), metadata={"remedy": error.remedy}, allow_retries=False) from error


def production_materialization(
    row: LedgerRow, services: Services, run_id: str | None, said: Sequence[str], project: Project | None = None
) -> dg.AssetMaterialization:
    """Returns what production_version shows of a move of Production; a move of a rollout has no run.

    With a project, the model cards that are due are written, and that of the version is shown.
    """
    return dg.AssetMaterialization(
        asset_key=asset_key(row.model, "production_version"),
        description=f"{row.move}: version {row.version}, by {row.actor}: {row.reason}",
        metadata={
            "version": row.version,
            "move": row.move.value,
            "actor": row.actor,
            "reason": row.reason,
            "request": row.request_id,
            "digest": row.digest,
            "epoch": row.epoch,
            "previous_version": str(row.before["production"]),
            "ledger_hash": row.hash,
            SERVERS: dg.MetadataValue.text("\n".join(said)),
            "model_version": link(f"{services.settings.mlflow_url}/#/models/{row.model}/versions/{row.version}"),
            **({"model_card": dg.MetadataValue.md(kept_card(services, project, row.version))} if project else {}),
            **({"run": dg.MetadataValue.dagster_run(run_id)} if run_id is not None else {}),
        },
        tags={"dagster/data_version": row.digest, "dagster/data_version_is_user_provided": "true"},
    )


def decide_requests(
    projects: Projects, services: Services, instance: dg.DagsterInstance
) -> tuple[list[dg.RunRequest], list[str]]:
    """Returns a run request for each open request whose conditions hold, and a sentence for each that waits.

    The sensor and the command line both decide by this.
    """
    return _launches(_decided(projects, services), services, instance)


def _decided(projects: Projects, services: Services) -> list[Decided]:
    return [
        (request, services.releases.decide(request, project.spec.policy))
        for name, project in projects.items()
        for request in services.store.requests(name, RequestState.OPEN)
    ]


def _launches(
    decided: Sequence[Decided], services: Services, instance: dg.DagsterInstance
) -> tuple[list[dg.RunRequest], list[str]]:
    ready: list[dg.RunRequest] = []
    waiting: list[str] = []
    for request, decision in decided:
        match decision:
            case Ready():
                _launch(request, services, instance, ready, waiting)
            case Hold(reasons=reasons):
                waiting.append(f"{_said(request)} waits: {'; '.join(reasons)}")
            case Reject(reasons=reasons):
                waiting.append(f"{_said(request)} is refused: {'; '.join(reasons)}")
    return ready, waiting


def _evaluations(faults: Mapping[str, Sequence[str]], decided: Sequence[Decided]) -> list[dg.AssetCheckEvaluation]:
    """Returns what each check that the sensor keeps up to date would say now, of every model."""
    still_open = [(request, decision) for request, decision in decided if not isinstance(decision, Reject)]
    return [
        *(ready_evaluation(name, [d for d in still_open if d[0].model == name]) for name in faults),
        *(registry_evaluation(name, found) for name, found in faults.items()),
    ]


def _reconciled(project: Project, services: Services) -> tuple[str, ...]:
    found = services.releases.projection.reconcile(
        project.spec.name, undo=project.spec.policy.tampering is Tampering.UNDO
    )
    follow_cards(services, project)  # whoever moved, shared out, asked or approved anything, through whichever door
    return found


def _said(request: PromotionRequest) -> str:
    return f"{request.model} version {request.version} (request {request.request_id})"


def _launch(
    request: PromotionRequest,
    services: Services,
    instance: dg.DagsterInstance,
    ready: list[dg.RunRequest],
    waiting: list[str],
) -> None:
    runs = [
        run
        for run in instance.get_runs(filters=dg.RunsFilter(tags={REQUEST_TAG: request.request_id}))
        if run.job_name == "promote"
    ]
    if any(not run.is_finished for run in runs):
        waiting.append(f"{request.model} version {request.version}: promotion run {runs[0].run_id} is under way")
    elif len(runs) >= MAXIMUM_ATTEMPTS:
        said = f"{len(runs)} promotion runs failed, the last one was {runs[0].run_id}"
        services.store.close_request(request.request_id, RequestState.REFUSED, said)
        waiting.append(f"{_said(request)} is refused: {said}; read it, then ask again")
    else:
        ready.append(promotion_run(request, attempt=len(runs)))


def promotion_run(request: PromotionRequest, *, attempt: int) -> dg.RunRequest:
    """Returns the run that carries out a request; its key is the identity of the decision."""
    return dg.RunRequest(
        run_key=f"{request.request_id}:{attempt}",
        job_name="promote",
        run_config={"ops": {"move_production": {"config": {"request_id": request.request_id}}}},
        tags={REQUEST_TAG: request.request_id, MODEL_TAG: request.model},
    )


def build_sensor(projects: Projects, promote: dg.JobDefinition) -> dg.SensorDefinition:
    """Returns the sensor that decides open requests and keeps the aliases where the ledger says; it runs by default."""

    @dg.sensor(
        name="promotion_sensor",
        job=promote,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches promote for each open request whose conditions hold; says what the others wait for.",
    )
    def promotion_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Any:
        services = platform.services
        try:
            faults = {name: _reconciled(project, services) for name, project in projects.items()}
            decided = _decided(projects, services)
            ready, waiting = _launches(decided, services, context.instance)
        except Unavailable as error:
            return dg.SkipReason(f"waits for an outside system: {error.problem}")
        for line in (line for found in faults.values() for line in found):
            context.log.warning(line)
        for line in waiting:
            context.log.info(line)
        events, cursor = changed_evaluations(context.cursor, _evaluations(faults, decided))
        return dg.SensorResult(
            run_requests=ready,
            skip_reason=None if ready else "\n".join(waiting) or "no open promotion request",
            asset_events=events,
            cursor=cursor,
        )

    return promotion_sensor


def build_run_closers() -> tuple[dg.SensorDefinition, ...]:
    """Returns the sensors that end MLflow runs with the status of their Dagster run."""
    ends = {
        dg.DagsterRunStatus.SUCCESS: "FINISHED",
        dg.DagsterRunStatus.FAILURE: "FAILED",
        dg.DagsterRunStatus.CANCELED: "KILLED",
    }
    return tuple(_build_run_closer(status, mlflow_status) for status, mlflow_status in ends.items())


def _build_run_closer(status: dg.DagsterRunStatus, mlflow_status: str) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"close_mlflow_run_{mlflow_status.lower()}",
        run_status=status,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        description=f"Ends the MLflow runs of a Dagster run that ended as {status.value}.",
    )
    def closer(context: dg.RunStatusSensorContext, platform: Platform) -> None:
        platform.services.tracking.close_runs(context.dagster_run.run_id, mlflow_status)

    return closer
