"""rollout: a version on its way into Production. The sensor carries each rollout on; the asset shows each step of it.

`promote` begins a rollout where the strategy is not all at once. `rollout_sensor` collects the windows of live traffic
from the servers, lets the judge look, and brings about what must hold then. A materialization of `rollout` is made when
it begins, at each change of its stage or state, and every ten minutes between; a move of Production that no job made,
of a rollout, of the rollback policy or of the operators' API, materializes `production_version`, as the jobs do.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from release_platform.adapters.rollout_store import KeptRollout
from release_platform.adapters.window_store import KEPT_DAYS
from release_platform.defs.attribution import actor_of
from release_platform.defs.naming import MODEL_TAG, asset_key, numbers, shared
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
from release_platform.domain.errors import ReleaseError, Unavailable
from release_platform.domain.judge import Assessment, Evidence
from release_platform.domain.ledger import ROLLBACK_ID, LedgerRow, moves_production, request_of, standing
from release_platform.domain.rollback import POLICY
from release_platform.domain.rollout import Rollout, order_named
from release_platform.pipeline.rollout_plot import as_markdown, draw_arms
from release_platform.project import Project
from release_platform.rollouts import Step
from release_platform.services import Services

ASSET = "rollout"
SENSOR_INTERVAL_S = 5
SHOWN_EVERY_MINUTES = 10
RECENT = 20
TURN = "round's turn"
_Result = TypeVar("_Result")


def build_rollout_asset(project: Project) -> dg.AssetSpec:
    """Returns the asset that shows a model's rollouts; it cannot be materialized by hand."""
    of = shared(project, ASSET, kinds={"release"}, description="How a version comes into Production, step by step.")
    registered = asset_key(project.spec.name, "registered_version")
    return dg.AssetSpec(asset_key(project.spec.name, ASSET), deps=[registered], **of)


class OrderForm(dg.Config):
    """Who orders what of a model's rollout, and why."""

    model: str = Field(description="Name of the model.")
    order: str = Field(description="pause, resume, abort or promote; promote takes all traffic, or ends the bake time.")
    actor: str = Field(default="", description=f"Who orders it; {ACTOR}")
    reason: str = Field(description="Why; it is kept in the ledger for good.")


def build_rollout_job(projects: Projects) -> dg.JobDefinition:
    """Returns the job by which a person steps into a rollout."""

    @dg.op(description="Does what a person orders of a rollout.")
    def carry_out_order(context: dg.OpExecutionContext, config: OrderForm, platform: Platform) -> None:
        services, said = platform.services, list[str]()
        with NamedFailures():
            project = get_project(projects, config.model)
            rollout = services.rollouts.order(
                config.model,
                order_named(config.order),
                actor=actor_of(context, config.actor, services.settings),
                reason=config.reason,
                policy=project.spec.policy,
                tell=said.append,
            )
            context.instance.add_run_tags(context.run_id, {REQUEST_TAG: rollout.rollout_id, MODEL_TAG: config.model})
            for sentence in (*said, f"{config.model} version {rollout.candidate}: {rollout.said}"):
                context.log.info(sentence)
            row = _find_shown_move(services, config.model, rollout, context.instance)
            if row is not None and not _is_shown(config.model, row.epoch, context.instance):
                context.log_event(production_materialization(row, services, context.run_id, said, project))

    @dg.job(
        name="order_rollout",
        description="Pause, resume, abort or promote a model's rollout.",
        tags=RUN_TAGS,
        executor_def=dg.in_process_executor,
    )
    def order_rollout() -> None:
        carry_out_order()

    return order_rollout


def build_rollout_sensor(projects: Projects) -> dg.SensorDefinition:
    """Returns the sensor that carries every rollout of these models on; it runs by default."""

    @dg.sensor(
        name="rollout_sensor",
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges rollouts on live traffic and carries them on; says what each of them waits for.",
    )
    def rollout_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Any:
        services, shown = platform.services, _remembered(context.cursor)
        said: list[str] = []
        events: list[dg.AssetMaterialization] = []
        heard = services.rollouts.ask()
        for name, project in in_turn(projects, shown):
            step = _tried(partial(services.rollouts.step, name, project.spec, heard), name, said)
            if step is not None:
                said += [*(f"{name}: {sentence}" for sentence in step.said), _sentence(step)]
            watched = _tried(partial(services.watch.look, name, project.spec, heard), name, said)
            said += [f"{name}: {sentence}" for sentence in (watched.said if watched is not None else ())]
            _tried(partial(events.extend, _events(project, services, context.instance, shown, step)), name, said)
        said += services.held_outcomes.carry()  # last: no rollout waits for it
        _drop_old_windows(services, shown)
        for line in said:
            context.log.info(line)
        return dg.SensorResult(
            skip_reason="\n".join(said) or "no rollout is under way",
            asset_events=events,
            cursor=json.dumps(shown, sort_keys=True),
        )

    return rollout_sensor


def _tried(act: Callable[[], _Result], name: str, said: list[str]) -> _Result | None:
    """Returns what an act returns; None, and a sentence of a model, where it fails: so nothing else fails with it."""
    try:
        return act()
    except ReleaseError as error:
        said.append(f"{name}: {error.problem}")
        return None


def in_turn(projects: Projects, shown: dict[str, Any]) -> list[tuple[str, Project]]:
    """Returns the models, beginning with another one each time: none always waits for the same others."""
    turn = shown.get(TURN)
    begin = turn % len(projects) if isinstance(turn, int) and projects else 0
    shown[TURN] = begin + 1
    named = list(projects.items())
    return named[begin:] + named[:begin]


def _events(
    project: Project, services: Services, instance: dg.DagsterInstance, shown: dict[str, Any], step: Step | None
) -> Iterator[dg.AssetMaterialization]:
    """Yields what Dagster does not show yet of the rollout that began last; remembers it in the cursor."""
    model, told = project.spec.name, step.said if step is not None else ()
    kept = services.store.rollouts.find_last(model)
    if kept is not None and shown.get(model) != _state(kept):
        yield rollout_materialization(kept, services, step.judged if step is not None else None)
        shown[model] = _state(kept)
    row = _find_shown_move(services, model, kept.rollout if kept is not None else None, instance)
    if row is None or shown.get(f"{model} production") == row.epoch:
        return
    if not _is_shown(model, row.epoch, instance):
        yield production_materialization(row, services, None, told, project)
    shown[f"{model} production"] = row.epoch


def _find_shown_move(
    services: Services, model: str, rollout: Rollout | None, instance: dg.DagsterInstance
) -> LedgerRow | None:
    """Returns the row by which Production is what it is, if no job shows it: it is of this rollout, or a rollback."""
    row = next((row for row in standing(services.store.ledger(model)) if moves_production(row)), None)
    if row is None:
        return None
    mine = rollout is not None and request_of(row) == rollout.rollout_id
    return row if mine or row.actor == POLICY or _is_rollback_without_run(row, instance) else None


def _is_rollback_without_run(row: LedgerRow, instance: dg.DagsterInstance) -> bool:
    """Whether a row is of a rollback through the operators' API; the job `rollback` names its run and shows its own."""
    asked, run_id = row.request_id.startswith(ROLLBACK_ID), row.request_id.removeprefix(ROLLBACK_ID)
    return asked and instance.get_run_by_id(run_id) is None


def _is_shown(model: str, epoch: int, instance: dg.DagsterInstance) -> bool:
    moves = dg.AssetRecordsFilter(asset_key=asset_key(model, "production_version"))
    found = instance.fetch_materializations(moves, limit=RECENT).records
    made = [record.asset_materialization.metadata for record in found if record.asset_materialization]
    return any("epoch" in metadata and metadata["epoch"].value == epoch for metadata in made)


def _state(kept: KeptRollout) -> list[Any]:
    """Returns what a materialization shows as new: where the rollout stands, and every some minutes how it goes."""
    rollout = kept.rollout
    return [
        rollout.rollout_id,
        rollout.stage,
        rollout.state.value,
        rollout.reason,
        rollout.judged // SHOWN_EVERY_MINUTES,
    ]


def rollout_materialization(kept: KeptRollout, services: Services, judged: Evidence | None) -> dg.AssetMaterialization:
    """Returns what the asset shows of a rollout as it stands.

    Args:
        kept: The rollout.
        services: Where the evidence is kept.
        judged: What the judge looked at last, shown where there is nothing of the present stage yet; None for nothing.
    """
    rollout = kept.rollout
    evidence = services.rollouts.evidence(rollout) or judged
    looked = evidence.found if evidence is not None else ()
    head = services.store.head(rollout.model)
    weights = {
        "canary_weight": head.canary.weight if head.canary else 0.0,
        "shadow_weight": head.shadow.weight if head.shadow else 0.0,
    }
    return dg.AssetMaterialization(
        asset_key=asset_key(rollout.model, ASSET),
        description=f"version {rollout.candidate}: {rollout.said}",
        metadata={
            "version": rollout.candidate,
            "stable_version": str(rollout.stable),
            "state": rollout.state.value,
            "stage": rollout.stage + 1,
            "stages": len(rollout.plan.stages),
            "strategy": rollout.plan.strategy.value,
            "reason": rollout.reason,
            "actor": rollout.actor,
            "request": rollout.rollout_id,
            **numbers({**weights, **_figures(looked)}),
            **({"judged_stage": evidence.planned.stage + 1} if evidence is not None else {}),
            **_gates(looked),
            **_plot(evidence),
        },
        tags={"dagster/data_version": _data_version(kept), "dagster/data_version_is_user_provided": "true"},
    )


def _figures(looked: Sequence[Assessment]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for one in looked:
        name = one.result.gate
        found |= {f"{name}_difference": one.result.value, f"{name}_margin": one.result.limit}
        found |= {f"{name}_evidence_fine": one.fine, f"{name}_evidence_worse": one.worse}
    return found


def _gates(looked: Sequence[Assessment]) -> dict[str, dg.MetadataValue]:
    if not looked:
        return {}
    columns = ("gate", "verdict", "blocking", "reason")
    results = [one.result for one in looked]
    rows = [(r.gate, r.verdict.value, "yes" if r.blocking else "no", r.reason) for r in results]
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return {"gates": dg.MetadataValue.table(records, schema=schema)}


def _plot(evidence: Evidence | None) -> dict[str, dg.MetadataValue]:
    image = draw_arms(evidence.planned, evidence.windows, until=evidence.until) if evidence is not None else None
    return {"plot": dg.MetadataValue.md(as_markdown(image))} if image is not None else {}


def _data_version(kept: KeptRollout) -> str:
    return f"{kept.rollout.rollout_id}-{kept.revision}"


def _sentence(step: Step) -> str:
    rollout = step.after
    waiting = [f"{one.result.gate}: {one.result.reason}" for one in step.looked if not one.result.passed]
    said = f"{rollout.model} version {rollout.candidate}: {rollout.said}"
    return "; ".join([said, *waiting])


def _drop_old_windows(services: Services, shown: dict[str, Any]) -> None:
    """Drops windows and verifications that nothing needs any more, once a day."""
    today = datetime.now(UTC)
    if shown.get("windows dropped") == today.date().isoformat():
        return
    try:
        oldest = today - timedelta(days=KEPT_DAYS)
        services.store.windows.drop_before(int(oldest.timestamp() // 60))
        services.store.verifications.drop_before(oldest.isoformat())
    except Unavailable:
        return
    shown["windows dropped"] = today.date().isoformat()


def _remembered(cursor: str | None) -> dict[str, Any]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:  # somebody wrote it in Dagster's interface
        return {}
    return found if isinstance(found, dict) else {}
