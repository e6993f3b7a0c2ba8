"""One evaluation of all sensors by Dagster's own daemon code, which kills its process where Dagster's flag says.

`python -m tests.chaos.sensor FLAG`, with the platform of the environment. Dagster tests its daemon by these flags.
"""

import logging
import signal
import sys

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from release_platform.settings import Settings, shipped

FLAGS = ("TICK_CREATED", "TICK_HELD", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")


def main(flag: str) -> None:
    """Evaluates once."""
    Settings().prepare()
    target = WorkspaceFileTarget([str(shipped("workspace.yaml"))])
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as workspace:
        for _ in execute_sensor_iteration(
            workspace,
            logging.getLogger("chaos"),
            threadpool_executor=None,
            submit_threadpool_executor=None,
            debug_crash_flags={"promotion_sensor": {flag: signal.SIGKILL}},
        ):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
