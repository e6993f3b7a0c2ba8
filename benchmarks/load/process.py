"""Starts a server on its core, waits for its first right answer, weighs it, and stops it with all that it started."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.load.forms import Body

POLL_S = 0.01
STOP_S = 20.0


class NoAnswer(Exception):
    """A server ended, or gave no right answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of a process and all that it started, in bytes.

    Attributes:
        pss: Pages that processes share are counted once; None where the kernel does not tell.
        rss: They are counted for each.
    """

    pss: int | None
    rss: int


def pinned_to(cores: Sequence[int]) -> list[str]:
    """Returns the words that pin a command to cores; none for no cores."""
    return ["taskset", "--cpu-list", ",".join(str(core) for core in cores)] if cores else []


def post(port: int, path: str, body: Body, *, timeout_s: float = 60) -> tuple[int, Body]:
    """Returns status and body of the answer to a POST.

    Raises:
        OSError: There is no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body=body.data, headers=dict(body.headers))
        answer = connection.getresponse()
        return answer.status, Body(data=answer.read(), headers=dict(answer.getheaders()))
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
    finally:
        connection.close()


class Running:
    """A server process that ends with the `with` block, by force if it does not end by itself within 20 s."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self.started = perf_counter()
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for(self, is_right: Callable[[], bool], *, timeout_s: float) -> float:
        """Returns the seconds from the start of the process to the first right answer.

        Raises:
            NoAnswer: It ended or did not give one in time; with the end of its log.
        """
        while perf_counter() - self.started < timeout_s:
            code = self._process.poll()
            if code is not None:
                raise NoAnswer(f"it ended with code {code}:\n{self._tail()}")
            with suppress(OSError, ValueError, KeyError):
                if is_right():
                    return perf_counter() - self.started
            sleep(POLL_S)
        raise NoAnswer(f"it gave no right answer within {timeout_s:.0f} s:\n{self._tail()}")

    def tree(self) -> list[int]:
        """Returns the process and all that it started: its descendants, and those of its session that left it."""
        stats = {int(path.name): _stat(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        found = {self._process.pid}
        while more := {pid for pid, (parent, _) in stats.items() if parent in found} - found:
            found |= more
        return sorted(found | {pid for pid, (_, session) in stats.items() if session == self._process.pid})

    def memory(self) -> Memory:
        """Returns the memory of the whole tree."""
        weighed = [_memory(pid) for pid in self.tree()]
        pss = [one["Pss"] for one in weighed if "Pss" in one]
        whole = len(pss) == len([one for one in weighed if one])
        return Memory(pss=sum(pss) if whole else None, rss=sum(one.get("Rss", 0) for one in weighed))

    def stop(self) -> None:
        """Ends the tree."""
        tree = self.tree()
        for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
            for pid in tree if number == signal.SIGKILL else [self._process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def _stat(process: Path) -> tuple[int, int]:
    """Returns the parent and the session of a process; zeros for one that is gone."""
    with suppress(OSError):
        words = (process / "stat").read_text().rpartition(")")[2].split()
        return int(words[1]), int(words[3])
    return 0, 0


def _memory(pid: int) -> dict[str, int]:
    """Returns `Pss` and `Rss` of a process in bytes, as far as the kernel tells them; nothing for one that is gone."""
    for file in ("smaps_rollup", "status"):
        with suppress(OSError):
            lines = (Path("/proc") / str(pid) / file).read_text().splitlines()
            words = [line.replace("VmRSS:", "Rss:").split() for line in lines]
            found = {word[0][:-1]: int(word[1]) * 1024 for word in words if word[0] in {"Pss:", "Rss:"}}
            if found:
                return found
    return {}


def run(command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
    """Runs a command to its end.

    Raises:
        SystemExit: It failed; its output is shown.
    """
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
