"""Quick requests of one turn of the event loop, computed together when it ends.

All that can be read from the sockets now is read first; nothing waits for what is not here yet, and who comes alone is
computed alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from serving.errors import Problem

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Deliver = Callable[[_Result | Problem], None]


class Turn(Generic[_Item, _Result]):
    """Gathers items until the event loop comes round. To be used on one event loop.

    Args:
        compute: Returns, for some items of one key, a result or a `Problem` for each, in their order.
        max_rows: Most rows of one call.
    """

    def __init__(self, compute: Callable[[Sequence[_Item]], Sequence[_Result | Problem]], *, max_rows: int) -> None:
        self._compute = compute
        self._max_rows = max_rows
        self._asked: dict[int, list[tuple[_Item, Deliver[_Result]]]] = {}
        self._n_rows = 0

    def ask(self, key: object, item: _Item, n_rows: int, deliver: Deliver[_Result]) -> None:
        """Has an item computed within this turn, with others of the same key.

        Args:
            key: What items must have in common to be computed together.
            item: What is computed.
            n_rows: How many rows that is.
            deliver: Is called once, with the result; it must not raise.
        """
        if self._n_rows + n_rows > self._max_rows:
            self.end()
        if not self._asked:
            asyncio.get_running_loop().call_soon(self.end)
        self._asked.setdefault(id(key), []).append((item, deliver))
        self._n_rows += n_rows

    def end(self) -> None:
        """Computes and delivers all that was asked; nothing is left open when this returns."""
        asked, self._asked, self._n_rows = self._asked, {}, 0
        for together in asked.values():
            results = self._compute([item for item, _ in together])
            for (_, deliver), result in zip(together, results, strict=True):
                deliver(result)
