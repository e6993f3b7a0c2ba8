"""What goes on beside the requests: endless tasks, and blocking calls that can hold up neither loop nor end."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


async def keep_going(run: Callable[[], Awaitable[None]], *, again_s: float = 1.0) -> None:
    """Runs what never ends by itself, and again a moment after it failed: one failure ends neither it nor the others.

    Args:
        run: Runs until it is cancelled.
        again_s: Seconds between a failure and the next try.
    """
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001 - whatever it is, the server goes on answering, and this is needed
            _LOG.exception("what goes on beside the requests failed, and begins anew")
        await asyncio.sleep(again_s)


async def call_in_daemon(work: Callable[[], _T]) -> _T:
    """Returns the result of a blocking call, made on a daemon thread of its own.

    When the waiting task is cancelled the call is abandoned: a registry that hangs does not delay the shutdown, as a
    thread of a pool, which the interpreter waits for, would.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - it is raised again where it is awaited
            error = caught
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="registry", daemon=True).start()
    return await future
