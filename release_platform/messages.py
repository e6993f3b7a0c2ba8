"""Delivers what is in the outbox: at least once to each receiver, whatever becomes of the others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from time import monotonic

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.outbox_store import OutboxStore, Posted
from release_platform.adapters.receivers import TIMEOUT_S, Receiver
from release_platform.domain.messages import Delivery, State, attempted, sentence
from release_platform.domain.ports import Clock

ROUND_S = 20.0
"""Seconds that one round may take; what is left is sent in the next."""
SHOWN = timedelta(days=30)
"""How long a closed message stays in the outbox."""


class Messages:
    """The messages of one release store, and those who receive them."""

    def __init__(self, outbox: OutboxStore, receivers: Sequence[Receiver], clock: Clock | None = None) -> None:
        self._outbox = outbox
        self._receivers = tuple(receivers)
        self._clock = clock or SystemClock()

    def deliver(self) -> tuple[str, ...]:
        """Sends once what is due, and returns a sentence for each attempt and for what was given up.

        Without a receiver all messages are closed as not wanted.

        Raises:
            Unavailable: The release store does not answer.
        """
        self._outbox.prune(self._clock.now() - SHOWN)
        waiting = self._outbox.find(State.WAITING)
        said: list[str] = self._send_all(waiting) if waiting and self._receivers else []
        for posted in waiting:
            self._outbox.settle(posted.message.id, [receiver.key for receiver in self._receivers])
        return (*said, *self._given_up())

    def _send_all(self, waiting: Sequence[Posted]) -> list[str]:
        """Sends to all receivers at the same time, so that none holds up another."""
        pool = ThreadPoolExecutor(len(self._receivers), thread_name_prefix="messages")
        futures = {pool.submit(self._send, receiver, waiting): receiver for receiver in self._receivers}
        done, late = wait(futures, timeout=ROUND_S + 2 * TIMEOUT_S)
        pool.shutdown(wait=False, cancel_futures=True)
        said = [sentence for future in done for sentence in future.result()]
        return said + [f"{futures[future].name} still answers; its messages are sent again" for future in late]

    def _send(self, receiver: Receiver, waiting: Sequence[Posted]) -> list[str]:
        """Sends what is due for one receiver, until it fails once: then all others wait for the next round."""
        said: list[str] = []
        until = monotonic() + ROUND_S
        for posted in waiting:
            delivery = posted.deliveries.get(receiver.key, Delivery())
            if not delivery.due(self._clock.now()):
                continue
            after = self._attempt(receiver, posted, delivery)
            said.append(_said(receiver, posted, after))
            if after.problem or monotonic() > until:
                break
        return said

    def _attempt(self, receiver: Receiver, posted: Posted, delivery: Delivery) -> Delivery:
        problem = receiver.send(posted.message, int(self._clock.now().timestamp()))
        committed = datetime.fromisoformat(posted.message.at)
        after = attempted(delivery, problem, committed=committed, now=self._clock.now())
        self._outbox.record(posted.message.id, receiver.key, after)  # when this is cut off, it is sent again
        return after

    def _given_up(self) -> list[str]:
        found = self._outbox.find(State.GIVEN_UP)
        return [f"given up, never delivered: {sentence(posted.message)}" for posted in found]


def _said(receiver: Receiver, posted: Posted, after: Delivery) -> str:
    name = f"message {posted.message.id} to {receiver.name}"
    match after.state:
        case State.DELIVERED:
            return f"{name}: delivered"
        case State.GIVEN_UP:
            return f"{name}: given up after {after.n_attempts} attempts: {after.problem}"
        case _:
            at = "" if after.next_at is None else f", again at {after.next_at.isoformat(timespec='seconds')}"
            return f"{name}: {after.problem} (attempt {after.n_attempts}{at})"
