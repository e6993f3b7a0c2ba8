"""Asks a shadow version what it would have answered, after the client has its answer.

```
answered by Production's version --a share--> queue, bounded --several at a time--> a process of its own (`mirroring`)
```
Nobody waits for it and nobody gets its answer. To hand over many at once takes the event loop hardly longer than one,
so they are gathered for a moment. What does not fit into the queue is dropped and counted: a slow shadow is asked less,
Production's version is not. What takes too long is dropped as well, and no error of the version: its process stands
back behind all others. It starts with the first request, and again when it died; it is gone when no model has a shadow.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from release_platform.domain.prediction import Predictions
from serving.cache import PackageCache
from serving.doors import Door, Head
from serving.limits import Limits
from serving.metrics import Metrics
from serving.mirror_process import COMMAND, MirrorProcess
from serving.mirroring import Copy, Mirrored
from serving.models import Beside, Live, LoadedModel
from serving.observations import Observations, Reflection
from serving.tallies import said

MOST_WAITING = 256
MOST_BYTES = 16 * 1024**2
WITHIN_S = 60.0
"""Seconds that the shadow has for one request."""
MOST_TOGETHER = 64
"""Most requests that are handed over at once."""
_MOST_BYTES_TOGETHER = 128 * 1024
_GATHER_S = 0.2
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
        most_waiting: Most requests that wait, those that the process has included.
        command: What starts the process.
        within_s: Seconds that it has for one request.
        again_s: Seconds after which another is started when it died.
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
        command: Sequence[str] = COMMAND,
        within_s: float = WITHIN_S,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._live = live
        self._cache = cache
        self._limits = limits
        self._observations = observations
        self._metrics = metrics
        self._most_waiting = most_waiting
        self._within_s = within_s
        self._again_s = again_s
        self._queue: deque[tuple[LoadedModel, Offered]] = deque()
        self._n_bytes = 0
        self._n_alone = 0  # so many of the next requests are asked one by one: the process died of one, or hung
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._process = MirrorProcess(command)

    def offer(self, shadow: Beside, offered: Offered) -> None:
        """Takes a request that was answered; with the probability of the shadow's weight it is put to it."""
        if random.random() >= shadow.weight:  # noqa: S311 - a lot, no secret
            return
        if len(self._queue) >= self._most_waiting or self._n_bytes + len(offered.body) > MOST_BYTES:
            self._metrics.shadow_dropped(shadow.loaded, "queue_full")
            return
        self._queue.append((shadow.loaded, offered))
        self._n_bytes += len(offered.body)
        if len(self._queue) == 1:
            self._some.set()
        elif len(self._queue) == MOST_TOGETHER:
            self._many.set()

    async def run(self) -> None:
        """Asks until it is cancelled."""
        try:
            while True:
                await self._gathered()
                batch = []
                try:
                    batch = self._next()
                    await asyncio.sleep(0)  # here and below: requests that came meanwhile are answered first
                    n_done = await self._ask(batch) if batch else 0
                except Exception:  # noqa: BLE001 - no shadow may take the server down
                    _LOG.exception("a shadow could not be asked")
                    await self._process.end()
                    n_done = len(batch) or len(self._queue)  # whichever of them is at fault
                self._done_with(n_done)
        finally:
            with anyio.CancelScope(shield=True):
                await self._process.end()

    async def _gathered(self) -> None:
        """Waits for a request, and a moment for others; the process ends when none can come any more."""
        while not self._queue:
            self._some.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._some.wait(), _IDLE_S)
            if not self._live.table.shadow and not self._queue:
                await self._process.end()
        self._many.clear()
        if len(self._queue) < MOST_TOGETHER:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), _GATHER_S)

    def _next(self) -> list[tuple[LoadedModel, Mirrored]]:
        """Returns the requests that are asked next; they stay in the queue until they are done with.

        Those before them that cannot be asked are dropped.
        """
        copies = {key: self._copy_of(loaded) for key, loaded in {id(one[0]): one[0] for one in self._queue}.items()}
        batch: list[tuple[LoadedModel, Mirrored]] = []
        n_bytes = 0
        for loaded, offered in tuple(self._queue):
            copy = copies[id(loaded)]
            if isinstance(copy, str):
                if batch:
                    break
                self._metrics.shadow_dropped(loaded, copy)
                self._done_with(1)
                continue
            n_bytes += len(offered.body)
            if batch and (len(batch) == MOST_TOGETHER or n_bytes > _MOST_BYTES_TOGETHER or self._n_alone):
                break
            batch.append((loaded, self._mirrored(loaded, copy, offered)))
        return batch

    def _done_with(self, n: int) -> None:
        for _ in range(n):
            _, offered = self._queue.popleft()
            self._n_bytes -= len(offered.body)
        self._n_alone = max(0, self._n_alone - n)

    def _copy_of(self, loaded: LoadedModel) -> Copy | str:
        """Returns a shadow as its process is told of it, or why it is not asked."""
        standing = self._live.table.shadow.get(loaded.model)
        if standing is None or standing.loaded.version != loaded.version:
            return "ended"
        folder = self._cache.find(loaded.digest)
        if folder is None:
            return "no_copy"
        return Copy(model=loaded.model, version=loaded.version, folder=folder, manifest=loaded.package.manifest)

    def _mirrored(self, loaded: LoadedModel, copy: Copy, offered: Offered) -> Mirrored:
        predictions = offered.predictions
        return Mirrored(
            copy=copy,
            door=offered.door,
            head={name: offered.head[name] for name in _READ if name in offered.head},
            body=offered.body,
            limits=self._limits,
            number=offered.number,
            beside=None if predictions is None else said(loaded.package.task, predictions),
        )

    async def _ask(self, batch: Sequence[tuple[LoadedModel, Mirrored]]) -> int:
        """Asks the shadows and counts what came of it; returns with how many of the first requests it is done."""
        begun = asyncio.get_running_loop().time()
        try:
            await self._process.start()
            async with asyncio.timeout(self._within_s):
                reflections = await self._process.reflect([asked for _, asked in batch])
        except (OSError, EOFError) as failure:
            await self._process.end()
            is_slow = isinstance(failure, TimeoutError)
            if not is_slow:
                _LOG.warning("the process of the shadows died of one of %d requests: %r", len(batch), failure)
                await asyncio.sleep(self._again_s)
            if len(batch) > 1:
                self._n_alone = len(batch)
                return 0
            ((shadow, asked),) = batch
            if is_slow:
                self._metrics.shadow_dropped(shadow, "too_slow")
                return 1
            ms = (asyncio.get_running_loop().time() - begun) * 1000
            reflections = [Reflection(number=asked.number, ms=ms, error="process_died")]
        await asyncio.sleep(0)
        self._observations.count()
        await asyncio.sleep(0)
        self._count(batch, reflections)
        return len(reflections)

    def _count(self, batch: Sequence[tuple[LoadedModel, Mirrored]], reflections: Sequence[Reflection]) -> None:
        by_shadow: dict[int, tuple[LoadedModel, list[Reflection]]] = {}
        for (loaded, _), reflection in zip(batch, reflections, strict=False):
            by_shadow.setdefault(id(loaded), (loaded, []))[1].append(reflection)
        for loaded, several in by_shadow.values():
            self._observations.reflected(loaded, several)
