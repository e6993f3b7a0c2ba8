"""Takes connections from a socket that several workers share, so that each gets as many as the others.

Of those that wait at a shared socket whoever looks first could take all, and for as long as its clients keep them. So
each worker takes one at a time, and one that is ahead of another leaves the next to that one, for a moment:

```
TAKING --one waits, and this worker is ahead--> LEAVING
   ^                                               |
   +--no longer ahead, or 4 ms are over------------+
```
One that hangs, or is busy for longer, takes none: whoever left 16 in vain takes all that it can for a second.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from serving.shares import Shares

_LOOK_S = 0.001  # the event loop knows no shorter time
_N_LOOKS = 4
_MOST_IN_VAIN = 16
_LOG = logging.getLogger(__name__)


class Taker:
    """One worker's way to the connections.

    Args:
        listener: The shared socket.
        shares: How many the others have.
        place: Where this worker says how many it has.
        create: Returns the protocol of a new connection.
        rest_s: Seconds for which none is left to others that took none, and none taken when no more files may be open.
    """

    def __init__(
        self,
        listener: socket.socket,
        shares: Shares,
        place: int,
        create: Callable[[], asyncio.Protocol],
        *,
        rest_s: float = 1.0,
    ) -> None:
        self._listener = listener
        self._shares = shares
        self._place = place
        self._create = create
        self._rest_s = rest_s
        self._n_open = self._n_in_vain = 0
        self._patient_from = 0.0
        self._is_open = self._is_leaving = False
        self._admitting: set[asyncio.Task[None]] = set()
        self._pausing: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begins to take connections, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._is_open = True
        self._shares.tell(self._place, self._n_open)
        self._go_on()

    def forget_one(self) -> None:
        """Counts a connection that is gone."""
        self._n_open -= 1
        if self._is_open:
            self._shares.tell(self._place, self._n_open)
            if self._is_leaving and not self._shares.is_ahead(self._place):
                self._go_on()

    def close(self) -> socket.socket:
        """Takes no more, and returns the shared socket, which stays open."""
        self._pause()
        self._is_open = False
        self._shares.leave(self._place)
        return self._listener

    def _go_on(self) -> None:
        self._pause()
        self._loop.add_reader(self._listener, self._one_waits)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._pausing is not None:
            self._pausing.cancel()
        self._is_leaving = False

    def _one_waits(self) -> None:
        if self._loop.time() >= self._patient_from and self._shares.is_ahead(self._place):
            self._pause()
            self._is_leaving = True
            self._leave_it(0)
        else:
            self._take()

    def _leave_it(self, n_looks: int) -> None:
        if not self._shares.is_ahead(self._place):
            self._n_in_vain = 0
            self._go_on()
        elif n_looks < _N_LOOKS:
            self._pausing = self._loop.call_later(_LOOK_S, self._leave_it, n_looks + 1)
        else:
            self._go_on()
            self._n_in_vain = self._n_in_vain + 1 if self._take() else 0
            if self._n_in_vain == _MOST_IN_VAIN:
                self._n_in_vain, self._patient_from = 0, self._loop.time() + self._rest_s

    def _take(self) -> bool:
        """Takes one connection; returns whether one was there."""
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was faster, or the client has left
            return False
        except OSError as error:  # e.g. no more files may be open: what waits is left to the others, and for later
            _LOG.error("no connection is taken for %g s: %s", self._rest_s, error)
            self._pause()
            self._pausing = self._loop.call_later(self._rest_s, self._go_on)
            return False
        self._n_open += 1
        self._shares.tell(self._place, self._n_open)
        admitting = self._loop.create_task(self._admit(taken))
        self._admitting.add(admitting)
        admitting.add_done_callback(self._admitting.discard)
        return True

    async def _admit(self, taken: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._create, taken)
        except OSError:
            _LOG.exception("a connection could not be served")
            taken.close()
            self.forget_one()
