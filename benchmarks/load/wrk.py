"""Drives a server with `wrk`, one thread of it."""

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a server did under load.

    Attributes:
        per_second: Requests answered in a second.
        p50_ms: Median latency.
        p99_ms: The latency that 99 % of the requests did not exceed.
        n_errors: Requests that failed: status 400 or above, a broken connection, no answer within a minute.
        generator_share: The share of a core that `wrk` itself used.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    n_errors: int
    generator_share: float = 0.0


def require_wrk() -> None:
    """Ends the benchmark where there is no `wrk`.

    Raises:
        SystemExit: There is none; says how to get it.
    """
    if shutil.which("wrk") is None:
        sys.exit("The load generator `wrk` is not installed. On Debian and Ubuntu: apt-get install wrk")


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Writes requests as the script reads them."""
    path.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))


def drive(
    port: int, requests: Path, *, connections: int, seconds: int, pinned: Sequence[str], pause_ms: int = 0
) -> Load:
    """Returns what a server did under load.

    Args:
        port: Where it listens.
        requests: A file of `write_requests`.
        connections: How many requests are under way at the same time.
        seconds: How long, at least 1.
        pinned: The words before the command that pin it to a core.
        pause_ms: How long each connection rests between an answer and the next request, on average; 0: not at all.

    Raises:
        SystemExit: `wrk` failed; its output is shown.
    """
    words = ["-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s", "-s", str(SCRIPT)]
    command = [*pinned, "wrk", *words, f"http://127.0.0.1:{port}", "--", str(requests), str(pause_ms)]
    before_s = _children_s()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT_S, check=False)
    if done.returncode != 0:
        sys.exit(f"wrk failed:\n{done.stdout}\n{done.stderr}")
    return dataclasses.replace(read_summary(done.stdout), generator_share=(_children_s() - before_s) / seconds)


def _children_s() -> float:
    """Returns the processor time of all that this process started and that has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_summary(output: str) -> Load:
    """Returns what the script of `wrk` printed at its end.

    Raises:
        ValueError: It did not.
    """
    lines = [line for line in output.splitlines() if line.startswith("summary ")]
    if len(lines) != 1:
        raise ValueError(f"wrk printed no summary:\n{output}")
    said = json.loads(lines[0].removeprefix("summary "))
    return Load(
        per_second=said["requests"] / (said["duration_us"] / 1e6),
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        n_errors=said["n_errors"],
    )
