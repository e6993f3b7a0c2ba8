"""Ends runs whose process was killed: nobody else would, and they would hold up every later run of their model.

Dagster's run monitoring asks the run launcher how the process of a run is; its default launcher does not know. The code
server ends a run whose process died, but not if it died itself, as with its container. So a sensor looks: it is
evaluated in the code server, where the processes of runs are. A run without a launcher, as of `release run`, is looked
at by nobody on its machine; it says by a tag that it goes on.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

LOOK_S = 15
ALIVE_TAG = "release/alive"
"""When the process of a run without a launcher last said that it goes on: seconds since 1970."""
BEAT_S = 20.0
SILENT_S = 300.0
"""Seconds without such a word after which the process is taken to be gone."""
_PROCESSES = Path("/proc")
_STARTED_BY_PYTHON = b"multiprocessing"


def build_lost_runs() -> dg.SensorDefinition:
    """Returns the sensor that fails the runs of its code location whose process is gone; it runs by default.

    Dagster then retries them, as `run_retries` in `dagster.yaml` says: their failure is none of a step.
    """

    @dg.sensor(
        name="lost_runs",
        minimum_interval_seconds=LOOK_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Fails runs whose process was killed, also together with its code server.",
    )
    def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        origin = context.code_location_origin
        lost = find_lost(context.instance, location=None if origin is None else origin.location_name)
        for run, why in lost.items():
            found = context.instance.get_run_by_id(run)
            if (
                found is not None and found.status is dg.DagsterRunStatus.STARTED
            ):  # it ended, perhaps, just before it went
                context.instance.report_run_failed(found, why)
        return dg.SkipReason("\n".join(f"{run}: {why}" for run, why in lost.items()) or "no run is lost")

    return lost_runs


def find_lost(instance: dg.DagsterInstance, *, location: str | None) -> dict[str, str]:
    """Returns why each started run is taken to be lost, by its id.

    Args:
        instance: Where the runs are.
        location: The code location whose launched runs have their processes on this machine.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    silent = {
        run.run_id: f"Its process has not said for {SILENT_S:.0f} seconds that it goes on."
        for run in runs
        if ALIVE_TAG in run.tags and time.time() - float(run.tags[ALIVE_TAG]) > SILENT_S
    }
    launched = {run.run_id: _process_of(instance, run.run_id) for run in runs if _is_launched_here(run, location)}
    newest = {pid: run_id for run_id, (_, pid) in sorted(launched.items(), key=lambda item: item[1])}
    gone = {
        run_id: f"Its process {pid} is gone: it was killed, or its code server."
        for run_id, (_, pid) in launched.items()
        if newest[pid] != run_id or not _is_there(pid)
    }
    return silent | gone


def _is_launched_here(run: dg.DagsterRun, location: str | None) -> bool:
    origin = run.remote_job_origin
    if origin is None or GRPC_INFO_TAG not in run.tags:  # other launchers look after their runs themselves
        return False
    return origin.repository_origin.code_location_origin.location_name == location


def _process_of(instance: dg.DagsterInstance, run_id: str) -> tuple[float, int]:
    """Returns when a run's process said its number, and the number; the same one may have been of an earlier run."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        metadata = entry.get_dagster_event().engine_event_data.metadata
        if "pid" in metadata:
            return entry.timestamp, int(str(metadata["pid"].value))
    return 0.0, 0


def _is_there(pid: int) -> bool:
    """Returns whether a process exists and is one as runs have; where the system tells of none, it may be."""
    try:
        return _STARTED_BY_PYTHON in (_PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return not (_PROCESSES / "self").exists()


@contextmanager
def beating(instance: dg.DagsterInstance, run_id: str, *, every_s: float = BEAT_S) -> Iterator[dict[str, str]]:
    """Says again and again that a run of this process goes on, until the block ends; yields the run's first tags."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(every_s):
            with suppress(Exception):  # the run is not there yet, or its storage is away: the next word will do
                instance.add_run_tags(run_id, _alive())

    thread = Thread(target=beat, name="beating", daemon=True)
    thread.start()
    try:
        yield _alive() | {"dagster/max_retries": "0"}  # without a launcher there is nobody to retry it
    finally:
        ended.set()
        thread.join()


def _alive() -> dict[str, str]:
    return {ALIVE_TAG: f"{time.time():.0f}"}
