"""Where a benchmark of servers works, and how it begins."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.measuring import Cores
from benchmarks.load.wrk import require_wrk


@contextmanager
def begun(options: argparse.Namespace) -> Iterator[tuple[Path, Path, Cores]]:
    """Yields a folder that is removed at the end, the home of the models, and which cores are for what.

    Args:
        options: With `no_pin`, and `home`: the folder that keeps the models; None for none.

    Raises:
        SystemExit: There is no `wrk`.
    """
    require_wrk()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped then, too
    cores = Cores.here(pin=not options.no_pin)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {cores}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        place = Path(folder)
        home = (options.home or place / "kept").resolve() / "home"
        home.parent.mkdir(parents=True, exist_ok=True)
        yield place, home, cores
