"""The process of the shadows (`mirroring`) as the server sees it."""

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

from serving.mirroring import LENGTH, Mirrored
from serving.observations import Reflection

COMMAND = (sys.executable, "-m", "serving.mirroring")
_START_S = 300.0


class MirrorProcess:
    """Runs from `start` to `end`, or until it dies.

    Args:
        command: What starts it.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts it, unless it runs.

        Raises:
            TimeoutError: It is not ready in time.
            OSError: It does not start.
            EOFError: It died.
        """
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
            async with asyncio.timeout(_START_S):
                await _frame(self._process)  # it says that it is ready

    async def reflect(self, asked: Sequence[Mirrored]) -> list[Reflection]:
        """Returns what the shadows make of the first of some requests, at least of one. It must run.

        Raises:
            OSError: It died.
            EOFError: Likewise.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        frame = pickle.dumps(asked)
        process.stdin.writelines((LENGTH.pack(len(frame)), frame))
        await process.stdin.drain()
        reflections: list[Reflection] = pickle.loads(await _frame(process))  # noqa: S301 - of what was started here
        assert reflections
        return reflections

    async def end(self) -> None:
        """Ends it, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _frame(process: Process) -> bytes:
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
