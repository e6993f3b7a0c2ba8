"""A real Dask scheduler with two worker processes, on loopback."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes.server import until
from tests.integration.homes import BIN, free_port

READY_S = 90


@contextmanager
def running_cluster(folder: Path, environment: Mapping[str, str], *, n_workers: int = 2) -> Iterator[str]:
    """Yields the address of a scheduler whose workers are there; all of it is stopped at the end.

    Args:
        folder: For logs and what the workers spill.
        environment: What the workers have in their environment.
        n_workers: How many worker processes, each with one thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
    worker += ["--local-directory", str(folder / "spill")]
    with ExitStack() as processes:

        def start(name: str, command: list[str], says: str) -> None:
            log = folder / f"{name}.log"
            process = processes.enter_context(_running(log, command, environment, folder))

            def is_ready() -> bool:
                assert process.poll() is None, log.read_text()
                return says in log.read_text()

            until(is_ready, within_s=READY_S)

        start("scheduler", scheduler, "Scheduler at:")
        for number in range(n_workers):
            start(f"worker-{number}", worker, "Registered to:")
        yield address


@contextmanager
def _running(
    log: Path, command: list[str], environment: Mapping[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / "dask"), *command], env=os.environ | dict(environment), cwd=folder, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
