"""recordings_sensor: what the live servers sample of their requests becomes recordings, minute by minute."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from release_platform.adapters.recordings import Recordings
from release_platform.defs.promotion import Projects
from release_platform.defs.resources import Platform
from release_platform.domain.errors import ReleaseError
from release_platform.sampled_traffic import Collected
from release_platform.services import Services

SENSOR = "recordings_sensor"
SENSOR_INTERVAL_S = 60
JOINED_AFTER = timedelta(hours=2)
"""A day is joined so long after its end: servers keep samples for an hour, so nothing of it can come any more."""
_SEEN, _DROPPED, _JOINED = "seen", "dropped", "joined"


def build_recordings_sensor(projects: Projects) -> dg.SensorDefinition:
    """Returns the sensor that keeps what servers sample of these models; it runs by default, and launches nothing."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps the samples of answered requests that servers with SERVING_SAMPLE_SHARE hand in, "
        "joins the files of finished days, and removes recorded requests that are older than the model's "
        "drift.keep_days.",
    )
    def recordings_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Any:
        services, cursor = platform.services, _remembered(context.cursor)
        try:
            found = services.sampled_traffic.collect(projects, cursor[_SEEN])
            cursor[_SEEN] = dict(found.seen)
            said = [*found.problems, *_told(found)]
            said += _drop_old(projects, services, cursor)
            said += _join_one(projects, services, cursor)
        except ReleaseError as error:
            said = [error.problem]
        for line in said:
            context.log.info(line)
        return dg.SensorResult(skip_reason="\n".join(said), cursor=json.dumps(cursor, sort_keys=True))

    return recordings_sensor


def _told(found: Collected) -> list[str]:
    rows = [f"{model}: {n:,} rows more are recorded" for model, n in found.rows.items()]
    labels = [f"{model}: {n:,} labels of recorded rows came" for model, n in found.labels.items()]
    if rows or labels:
        return rows + labels
    if found.problems:
        return []
    return ["no server has a new sample; servers keep one when SERVING_SAMPLE_SHARE is above 0"]


def _drop_old(projects: Projects, services: Services, cursor: dict[str, Any]) -> list[str]:
    """Removes what is too old, once a day; returns a sentence for each model of which something was."""
    today = datetime.now(UTC).date()
    if cursor[_DROPPED] == today.isoformat():
        return []
    said = []
    for name, project in projects.items():
        first = today - timedelta(days=project.spec.drift.keep_days)
        each = (services.recordings, services.labels, services.calls)
        n = sum(kept.drop_before(name, first) for kept in each)
        said += [f"{name}: recorded requests were too old: {n:,} file(s) are removed"] if n else []
    cursor[_DROPPED] = today.isoformat()
    return said


def _join_one(projects: Projects, services: Services, cursor: dict[str, Any]) -> list[str]:
    """Joins the files of one finished day, until no day is left today; returns a sentence for one that was."""
    before = (datetime.now(UTC) - JOINED_AFTER).date()
    if cursor[_JOINED] == before.isoformat():
        return []
    for name in projects:
        for kept, what in _kinds(services):
            for version, day in kept.loose_days(name, before=before):
                n = kept.join_day(name, version, day)
                return [f"{name}: {n:,} file(s) of {what} of version {version} on {day} are one now"]
    cursor[_JOINED] = before.isoformat()
    return []


def _kinds(services: Services) -> tuple[tuple[Recordings, str], ...]:
    return (
        (services.recordings, "recorded requests"),
        (services.labels, "labels"),
        (services.calls, "counted calls"),
    )


def _remembered(cursor: str | None) -> dict[str, Any]:
    try:
        found = json.loads(cursor or "{}")
        seen = {str(url): int(minute) for url, minute in found[_SEEN].items()}
        return {_SEEN: seen, _DROPPED: found[_DROPPED], _JOINED: found.get(_JOINED, "")}
    except (ValueError, TypeError, KeyError, AttributeError):  # none yet, or somebody wrote it in Dagster's interface
        return {_SEEN: {}, _DROPPED: "", _JOINED: ""}
