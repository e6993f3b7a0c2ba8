"""The MLflow server that ours reads from."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.measuring import Cores
from benchmarks.load.models import ROOT
from benchmarks.load.process import Running, pinned_to
from release_platform.cli.dev import MLFLOW_ENV, mlflow_command
from release_platform.cli.processes import free_port


@contextmanager
def registry(home: Path, log: Path, cores: Cores) -> Iterator[str]:
    """Yields the address of an MLflow server over the models of a home; it runs on the core of the load generator."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*pinned_to(cores.load), *mlflow_command(home, port)]
    with Running(command, MLFLOW_ENV, log, ROOT) as running:
        running.wait_for(lambda: urllib.request.urlopen(f"{address}/health").status == 200, timeout_s=120)  # noqa: S310
        yield address
