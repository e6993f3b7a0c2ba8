"""What `/metrics` answers, where one or several workers count."""

import os

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder that the workers of one server count in; to be set before `prometheus_client` is imported."""


def exposition_of_all_workers(counted: CollectorRegistry, gauges: Collector) -> bytes:
    """Returns counters and histograms summed over all workers, and this worker's gauges, in Prometheus' text format.

    Args:
        counted: Holds this worker's counters and histograms, and nothing else.
        gauges: What this worker alone can tell.
    """
    whole = CollectorRegistry()
    if FOLDER_VARIABLE in os.environ:
        MultiProcessCollector(whole)  # type: ignore[no-untyped-call]
        whole.register(gauges)
        return generate_latest(whole)
    whole.register(gauges)
    return generate_latest(counted) + generate_latest(whole)
