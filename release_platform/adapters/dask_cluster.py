"""A Dask cluster that is there already, as a client of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from release_platform.domain.errors import Unavailable

WAIT_S = 30.0


@contextmanager
def connected(scheduler: str, *, wait_s: float = WAIT_S) -> Iterator[Any]:
    """Yields the client of a cluster that has a worker at least.

    Args:
        scheduler: Its address, e.g. `tcp://host:8786`.
        wait_s: Seconds to wait for the scheduler, and then for its first worker.

    Raises:
        Unavailable: Dask is not installed, the scheduler does not answer, or it has no worker.
    """
    try:
        import distributed
    except ImportError:
        raise Unavailable(
            "this needs the package distributed, which is not installed",
            remedy=f"`{sys.executable} -m pip install distributed` (the extra `dask`)",
        ) from None
    connect: Any = distributed.Client
    try:
        client = connect(scheduler, timeout=wait_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise _away(scheduler, f"does not answer: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=wait_s)
        except TimeoutError:
            raise _away(scheduler, "has no worker") from None
        yield client


def _away(scheduler: str, problem: str) -> Unavailable:
    return Unavailable(
        f"the Dask scheduler {scheduler} {problem}",
        remedy="start `dask scheduler` and `dask worker`, with the same packages as here, or leave the scheduler out",
    )
