"""Asks a shadow version what it would have answered, after the client has its answer.

```
answered by Production's version --a share--> queue, bounded --one at a time--> a process of its own (`mirroring`)
```
Nobody waits for it and nobody gets its answer. What does not fit into the queue is dropped and counted: a slow shadow
is asked less, Production's version is not. What takes too long is dropped as well, and no error of the version: its
process stands back behind all others. It starts with the first request, and again when it died; it is gone
when no model has a shadow.
"""

import asyncio
import logging
import pickle
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import anyio

from release_platform.domain.prediction import Predictions
from serving.cache import PackageCache
from serving.doors import Door, Head
from serving.limits import Limits
from serving.metrics import Metrics
from serving.mirroring import LENGTH, Mirrored
from serving.models import Beside, Live
from serving.observations import Observations, Reflection

MOST_WAITING = 256
MOST_BYTES = 16 * 1024**2
WITHIN_S = 60.0
"""Seconds that the shadow has for one request."""
_START_S = 300.0
_IDLE_S = 10.0
_AGAIN_S = 5.0
_READ = (b"content-type", b"accept", b"inference-header-content-length")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offered:
    """A request that was answered by the version in Production, or that it failed.

    Attributes:
        predictions: The answer; None where it failed.
        number: The number of the prediction.
        door: The protocol.
        head: The request's headers.
        body: Its body.
    """

    predictions: Predictions | None
    number: int
    door: Door
    head: Head
    body: bytes


class Shadows:
    """Asks the shadows of all models. For one event loop.

    Args:
        live: What is served.
        cache: Where the verified copies are.
        limits: What one request may hold.
        observations: What is told of what came of it.
        metrics: What is told of what was dropped.
        most_waiting: Most requests that wait.
    """

    def __init__(
        self,
        *,
        live: Live,
        cache: PackageCache,
        limits: Limits,
        observations: Observations,
        metrics: Metrics,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._live = live
        self._cache = cache
        self._limits = limits
        self._observations = observations
        self._metrics = metrics
        self._most_waiting = most_waiting
        self._queue: deque[tuple[Beside, Offered]] = deque()
        self._n_bytes = 0
        self._wake = asyncio.Event()
        self._process: Process | None = None

    def offer(self, shadow: Beside, offered: Offered) -> None:
        """Takes a request that was answered; with the probability of the shadow's weight it is put to it."""
        if random.random() >= shadow.weight:  # noqa: S311 - a lot, no secret
            return
        if len(self._queue) >= self._most_waiting or self._n_bytes + len(offered.body) > MOST_BYTES:
            self._metrics.shadow_dropped(shadow.loaded, "queue_full")
            return
        self._queue.append((shadow, offered))
        self._n_bytes += len(offered.body)
        self._wake.set()

    async def run(self) -> None:
        """Asks until it is cancelled."""
        try:
            while True:
                await self._next()
                while self._queue:
                    shadow, offered = self._queue.popleft()
                    self._n_bytes -= len(offered.body)
                    try:
                        await self._ask(shadow, offered)
                    except Exception:  # noqa: BLE001 - no shadow may take the server down
                        _LOG.exception("a shadow could not be asked")
                        await self._end()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end()

    async def _next(self) -> None:
        """Waits for a request; the process ends when none can come any more."""
        self._wake.clear()
        while not self._wake.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _IDLE_S)
            if not self._live.table.shadow and not self._queue:
                await self._end()

    async def _ask(self, shadow: Beside, offered: Offered) -> None:
        loaded = shadow.loaded
        standing = self._live.table.shadow.get(loaded.model)
        if standing is None or standing.loaded.version != loaded.version:
            self._metrics.shadow_dropped(loaded, "ended")
            return
        folder = self._cache.find(loaded.digest)
        if folder is None:
            self._metrics.shadow_dropped(loaded, "no_copy")
            return
        asked = Mirrored(
            model=loaded.model,
            version=loaded.version,
            folder=folder,
            manifest=loaded.package.manifest,
            door=offered.door,
            head={name: offered.head[name] for name in _READ if name in offered.head},
            body=offered.body,
            limits=self._limits,
        )
        reflection = await self._reflect(asked)
        if reflection is None:
            self._metrics.shadow_dropped(loaded, "too_slow")
        else:
            self._observations.reflected(loaded, reflection, beside=offered.predictions, number=offered.number)

    async def _reflect(self, asked: Mirrored) -> Reflection | None:
        """Returns what came of a request, also when the process did not survive it; None when it took too long."""
        begun = asyncio.get_running_loop().time()
        try:
            process = await self._started()
            async with asyncio.timeout(WITHIN_S):
                return await _exchange(process, asked)
        except TimeoutError:
            await self._end()
            return None
        except (OSError, EOFError) as failure:
            _LOG.warning("the shadow %s version %s took its process down: %r", asked.model, asked.version, failure)
            await self._end()
            await asyncio.sleep(_AGAIN_S)
            return Reflection(ms=(asyncio.get_running_loop().time() - begun) * 1000, error="process_died")

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            command = (sys.executable, "-m", "serving.mirroring")
            self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            async with asyncio.timeout(_START_S):
                await _frame(self._process)  # it says that it is ready
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: Process, asked: Mirrored) -> Reflection:
    assert process.stdin is not None
    frame = pickle.dumps(asked)
    process.stdin.write(LENGTH.pack(len(frame)) + frame)
    await process.stdin.drain()
    reflection = pickle.loads(await _frame(process))  # noqa: S301 - from the process that was started here
    assert isinstance(reflection, Reflection)
    return reflection


async def _frame(process: Process) -> bytes:
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
