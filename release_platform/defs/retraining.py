"""retrain_<model>: a sensor by which drift and new data start the release pipeline, within the bounds of the YAML.

It reads no data. Where new data is to start a run, it launches `ingest_<model>` from time to time, which keeps
a snapshot of the source as a release does; when that is of other data than the newest features, data is new. Of a
model with partitions, each month that is over and was never read is looked at by a run of its own: the source may hold
nothing of it yet, which must not hide what changed in the others. At a bound it launches nothing, not even that, and
says which bound it is, and until when. What a run was started for is its tag and its run key, so a tick that is
repeated starts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from release_platform.defs.naming import MODEL_TAG, asset_key
from release_platform.defs.resources import Platform, latest_record, partition_tags
from release_platform.domain.drift_spec import OnAlarm
from release_platform.domain.errors import Refused, ReleaseError
from release_platform.domain.records import FeatureTable, RawData
from release_platform.domain.retraining import (
    PastRun,
    Start,
    Wait,
    Wanted,
    decide_retraining,
    find_wanted_by_drift,
)
from release_platform.domain.rollback import find_taken_back
from release_platform.project import Project
from release_platform.services import Services

RETRAIN_TAG = "release/retrained_for"
"""Names what a run of the release pipeline was started for; a run of a person has none."""
WHY_TAG = "release/retrained_because"
SENSOR_INTERVAL_S = 60
RECENT = 100
MOST_UNREAD = 12
"""Months that one look reads for the first time, at most: the oldest."""
_RETRY_TAG, _PARENT_TAG = "dagster/retry_number", "dagster/parent_run_id"


def build_retraining(project: Project, release: Any) -> dg.Definitions:
    """Returns what starts a model's release pipeline by itself; nothing where its YAML does not ask for it.

    Args:
        project: The model.
        release: Its release job.
    """
    if not retrains(project):
        return dg.Definitions()
    ingest = [_build_ingest_job(project)] if project.spec.retrain.new_data else []
    return dg.Definitions(jobs=ingest, sensors=[_build_sensor(project, [release, *ingest])])


def _build_ingest_job(project: Project) -> Any:
    name = project.spec.name
    return dg.define_asset_job(
        f"ingest_{name}",
        selection=dg.AssetSelection.assets(asset_key(name, "raw_data")),
        description=f"Read the source of {name}, so that new data is seen.",
        tags={MODEL_TAG: name},
    )


def _build_sensor(project: Project, jobs: list[Any]) -> dg.SensorDefinition:
    name = project.spec.name

    @dg.sensor(
        name=f"retrain_{name}",
        jobs=jobs,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts release_{name}, up to Staging, for drift and new data; says what it waits for.",
    )
    def retrain(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
        try:
            found = look(project, platform.services, context.instance, now=datetime.now(UTC))
        except Refused as error:
            return dg.SensorResult(skip_reason=error.problem)
        except ReleaseError as error:
            return dg.SensorResult(skip_reason=f"waits for an outside system: {error.problem}")
        if isinstance(found, list):
            return dg.SensorResult(skip_reason="\n".join(found))
        for run in found:
            context.log.info(f"{run.job_name}: {run.tags.get(WHY_TAG, 'looks at the source')}")
        return dg.SensorResult(run_requests=list(found))

    return retrain


def retrains(project: Project) -> bool:
    """Whether a model's YAML lets anything start its release pipeline."""
    return project.spec.retrain.new_data or OnAlarm.RETRAIN in project.spec.drift.on_alarm


def look(
    project: Project, services: Services, instance: dg.DagsterInstance, *, now: datetime
) -> tuple[dg.RunRequest, ...] | list[str]:
    """Returns the runs that are to be launched for a model now, or a sentence for each thing that waits.

    Raises:
        Refused: No month of its partitions is over yet.
        Unavailable: The release store does not answer.
    """
    name, spec, months = project.spec.name, project.spec.retrain, _find_months(project, instance, now)
    by_drift = _find_drift(name, services)
    by_data = _find_new_data(project, instance, months) if spec.new_data else None
    wanted = [one for one in (by_drift, by_data) if isinstance(one, Wanted)]
    waits = [one.reason for one in (by_drift, by_data) if isinstance(one, Wait)]
    runs = past_runs(instance, name)
    found = decide_retraining(spec, wanted, runs, now)
    if isinstance(found, Start):
        return (_release_run(project, found.wanted, months),)
    looks = spec.new_data and not isinstance(by_data, Wait) and not found.bounded
    if looks and _is_due(project, instance, runs, now):
        return _ingest_runs(project, now, months)
    unread = [f"{', '.join(months.unread)} is over and was never read"] if months and months.unread else []
    return [*waits, found.reason, *(unread if spec.new_data else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Months:
    """The months of a model's partitions that are over, in order.

    Attributes:
        read: Those up to the newest that was ever read; all where none was.
        unread: Those after it.
    """

    read: tuple[str, ...]
    unread: tuple[str, ...]


def _find_months(project: Project, instance: dg.DagsterInstance, now: datetime) -> _Months | None:
    months = project.months(None, now)
    if months is None:
        return None
    made = instance.get_materialized_partitions(asset_key(project.spec.name, "raw_data"))
    n_read = 1 + max((at for at, month in enumerate(months) if month in made), default=len(months) - 1)
    return _Months(read=months[:n_read], unread=months[n_read:])


def _find_drift(name: str, services: Services) -> Wanted | Wait | None:
    """Returns what an alarm of the version in Production asks for, or else one of the version that was taken back."""
    head, taken_back = services.store.head(name), find_taken_back(services.store.ledger(name))
    asked = [
        find_wanted_by_drift(services.store.drift.find_last(name, version), head, taken_back)
        for version in (head.production, taken_back)
        if version is not None
    ]
    return next((one for one in asked if one is not None), None)


def past_runs(instance: dg.DagsterInstance, model: str) -> list[PastRun]:
    """Returns the last runs of a model's release pipeline, the newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=f"release_{model}"), limit=RECENT)
    return [
        PastRun(
            at=record.create_timestamp.astimezone(UTC),
            ended=record.dagster_run.is_finished,
            succeeded=record.dagster_run.is_success,
            key="" if _is_by_hand(record.dagster_run) else record.dagster_run.tags[RETRAIN_TAG],
        )
        for record in records
    ]


def _is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether a person started a run: whoever re-executes one in Dagster's interface copies its tags."""
    copied = _PARENT_TAG in run.tags and _RETRY_TAG not in run.tags
    return copied or RETRAIN_TAG not in run.tags


def started_by(run: dg.DagsterRun, model: str) -> str:
    """Returns what a ledger row says of a run that no person started; nothing of a person's."""
    return "" if _is_by_hand(run) else f"; started by retrain_{model}: {run.tags.get(WHY_TAG, run.tags[RETRAIN_TAG])}"


def _find_new_data(project: Project, instance: dg.DagsterInstance, months: _Months | None) -> Wanted | Wait | None:
    """Returns that the source holds other data than the newest features are of, or why nothing can be said."""
    name = project.spec.name
    try:
        features: FeatureTable = latest_record(instance, asset_key(name, "features"))[0]
    except Refused:
        return Wait(reason=f"it was never released: the first release is a person's, `release run {name}`")
    if any(not record.dagster_run.is_finished for record in _looks(instance, name)):
        return Wait(reason="the source is being read")
    raw = _raw_data(project, instance, months)
    if raw is None or raw.fingerprint == features.raw_fingerprint:
        return None
    before, now = (text.rpartition(":")[2][:16] for text in (features.raw_fingerprint, raw.fingerprint))
    return Wanted(key=f"data-{before}-{now}", why=f"the source holds other data ({raw.n_rows:,} rows)")


def _raw_data(project: Project, instance: dg.DagsterInstance, months: _Months | None) -> RawData | None:
    """Returns the newest snapshots of a model's source, of all partitions that were read; None while one is missing."""
    key = asset_key(project.spec.name, "raw_data")
    wanted = (None,) if months is None else months.read
    try:
        found: list[RawData] = [latest_record(instance, key, partition=month)[0] for month in wanted]
    except Refused:
        return None
    return RawData(snapshots={part: snapshot for raw in found for part, snapshot in raw.snapshots.items()})


def _is_due(project: Project, instance: dg.DagsterInstance, runs: list[PastRun], now: datetime) -> bool:
    """Whether the source is to be looked at: not while anything of the model runs, and not before its time."""
    looks = _looks(instance, project.spec.name)
    if any(not record.dagster_run.is_finished for record in looks) or any(not run.ended for run in runs):
        return False
    last = [record.create_timestamp.astimezone(UTC) for record in looks] + [run.at for run in runs[:1]]
    return not last or (now - max(last)).total_seconds() >= project.spec.retrain.look_every_s


def _looks(instance: dg.DagsterInstance, model: str) -> Sequence[dg.RunRecord]:
    """Returns the last runs that looked at a model's source, the newest first."""
    return instance.get_run_records(dg.RunsFilter(job_name=f"ingest_{model}"), limit=RECENT)


def _ingest_runs(project: Project, now: datetime, months: _Months | None) -> tuple[dg.RunRequest, ...]:
    """Returns the runs of one look: one of what was read before, one of each month that never was."""
    name, every_s = project.spec.name, project.spec.retrain.look_every_s
    slot = f"ingest-{name}-{every_s:g}-{int(now.timestamp() // every_s)}"
    wanted = {slot: None if months is None else months.read}
    wanted |= {f"{slot}-{month}": (month,) for month in (months.unread if months else ())[:MOST_UNREAD]}
    return tuple(
        dg.RunRequest(run_key=key, job_name=f"ingest_{name}", tags={MODEL_TAG: name, **partition_tags(of)})
        for key, of in wanted.items()
    )


def _release_run(project: Project, wanted: Wanted, months: _Months | None) -> dg.RunRequest:
    """Returns the run of a release: of the months that were read, so that it waits for none that is not there yet."""
    name = project.spec.name
    pinned = partition_tags(None if months is None else months.read)
    return dg.RunRequest(
        run_key=f"retrain-{name}-{wanted.key}",
        job_name=f"release_{name}",
        tags={MODEL_TAG: name, RETRAIN_TAG: wanted.key, WHY_TAG: wanted.why, **pinned},
    )
