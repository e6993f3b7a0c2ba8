"""Waits awake, for a moment, for a client that comes again at once.

Falling asleep and being woken takes a process about as long as a small prediction. A client that sends each request as
soon as it has the answer to the last one is back within that time: so the event loop looks at its sockets again and
again, without sleeping, for a moment after each answer to it. Nobody is waited for whose requests come further apart
than that moment; what a client that goes away has cost is one such moment. The technique is the kernel's busy polling
(`SO_BUSY_POLL`), on the side of the application.

Looking so often also tells who comes alone: a request that does need not wait for the others of its turn of the loop.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter


class BusyPoll:
    """Keeps an event loop awake. For one event loop.

    Args:
        moment_s: Seconds that it stays awake after an answer; 0: not at all.
        seconds: A clock that never goes back.

    Attributes:
        is_awake: Whether it does so now.
    """

    def __init__(self, moment_s: float, *, seconds: Callable[[], float] = perf_counter) -> None:
        self._moment_s = moment_s
        self._seconds = seconds
        self._answered = -moment_s
        self._is_soon = False
        self.is_awake = False
        self._n_came = 0  # in this turn
        self._one_came = False  # in the last turn in which any did

    def request_came(self) -> bool:
        """Looks whether a request follows an answer at once.

        Returns:
            Whether it likely comes alone: it is the first of this turn of the loop, and the last turn that had any had
            one. False while the loop is not kept awake.
        """
        self._is_soon = self._seconds() - self._answered < self._moment_s
        self._n_came += 1
        return self._one_came and self._n_came == 1 and self.is_awake

    def request_answered(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stays awake for the next request, if this one came at once."""
        self._answered = self._seconds()
        if self._is_soon and not self.is_awake:
            self.is_awake = True
            loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._n_came:
            self._one_came, self._n_came = self._n_came == 1, 0
        self.is_awake = self._seconds() - self._answered < self._moment_s
        if self.is_awake:
            loop.call_soon(self._look, loop)
