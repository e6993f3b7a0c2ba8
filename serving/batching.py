"""Adaptive micro-batches: what waits while a prediction is computed is computed together next, in order.

A request that finds a thread free is computed at once, alone; nothing ever waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from serving.errors import DeadlinePassed, Overloaded, Problem

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Waiting(Generic[_Item, _Result]):
    item: _Item
    n_rows: int
    done: "asyncio.Future[_Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[_Item, _Result]):
    """Computes items on threads, several in one call. To be used on one event loop.

    Args:
        compute: Returns, for some items, a result or a `Problem` for each, in their order. Called on a thread.
        pool: The threads.
        n_at_once: How many calls run at the same time.
        max_rows: Most rows of one call; an item of more is computed alone.
        max_waiting: Most items that wait; one more is refused at once.
        within_s: Seconds that an item may wait before it is given up.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[_Item]], Sequence[_Result | Problem]],
        *,
        pool: Executor,
        n_at_once: int,
        max_rows: int,
        max_waiting: int,
        within_s: float,
    ) -> None:
        self._compute = compute
        self._pool = pool
        self._n_at_once = n_at_once
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._within_s = within_s
        self._queue: deque[_Waiting[_Item, _Result]] = deque()
        self._n_running = 0

    @property
    def n_waiting(self) -> int:
        """How many items wait."""
        return len(self._queue)

    async def run(self, item: _Item, n_rows: int) -> _Result:
        """Returns the result of one item.

        Raises:
            Overloaded: Too many wait already.
            DeadlinePassed: It waited too long.
            Problem: The one that was computed for it.
        """
        if self._is_full:  # who went away holds no place
            self._queue = deque(waiting for waiting in self._queue if not waiting.done.cancelled())
        if self._is_full:
            raise Overloaded(f"{self._max_waiting} requests are waiting already; come again")
        waiting: _Waiting[_Item, _Result] = _Waiting(item, n_rows)
        self._queue.append(waiting)
        self._start()
        try:
            async with asyncio.timeout(self._within_s):
                return await waiting.done  # cancelled with its caller, and then left out of its batch
        except TimeoutError:
            raise DeadlinePassed(f"the request was not computed within {self._within_s:g} s") from None

    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= self._max_waiting and self._n_running >= self._n_at_once

    def _start(self) -> None:
        while self._n_running < self._n_at_once and (batch := self._next()):
            self._n_running += 1
            call = partial(self._compute, [waiting.item for waiting in batch])
            running = asyncio.get_running_loop().run_in_executor(self._pool, call)
            running.add_done_callback(partial(self._finish, batch))

    def _next(self) -> list[_Waiting[_Item, _Result]]:
        batch: list[_Waiting[_Item, _Result]] = []
        n_rows = 0
        while self._queue:
            first = self._queue[0]
            if first.done.cancelled():
                self._queue.popleft()
                continue
            if batch and n_rows + first.n_rows > self._max_rows:
                break
            n_rows += first.n_rows
            batch.append(self._queue.popleft())
        return batch

    def _finish(
        self,
        batch: list[_Waiting[_Item, _Result]],
        running: "asyncio.Future[Sequence[_Result | Problem]]",
    ) -> None:
        self._n_running -= 1
        error = running.exception()
        results = [error] * len(batch) if error is not None else running.result()
        for waiting, result in zip(batch, results, strict=True):
            if waiting.done.done():
                continue
            if isinstance(result, BaseException):
                waiting.done.set_exception(result)
            else:
                waiting.done.set_result(result)
        self._start()
