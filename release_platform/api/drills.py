"""Drills that were asked for here, each on a thread: one may outlast the patience of any client.

What a drill showed is in the release store and its moves are in the ledger. Only what stopped the last drill of each
model, or what came of it instead, is in the memory of this process. A process that is stopped waits for the drills that
it makes, `LONGEST_S` at most; of one that is killed Production is brought back by `drill_sensor`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Lock

from release_platform.api.problems import told
from release_platform.api.schemas import DrillAnswer, DrillState
from release_platform.domain.drill import Drilled, find_unfinished_id
from release_platform.domain.errors import NotFound, Refused, ReleaseError
from release_platform.domain.policy_spec import PolicySpec
from release_platform.drills import BEFORE_S, HOLD_S, WITHIN_S, Order, drills_of
from release_platform.releases import check_words
from release_platform.services import Services

AT_ONCE = 4
"""Drills of different models at the same time; more wait."""
LONGEST_S = BEFORE_S + 2 * (WITHIN_S + HOLD_S)
"""How long the servers may take in one drill; what the registry and the release store take for its moves is more."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    order: Order
    end: "Future[Drilled]"


class AskedDrills:
    """The drills that this process makes, one of each model at a time.

    Args:
        services: The platform's services.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="drill")
        self._last: dict[str, _Asked] = {}
        self._lock = Lock()

    @asynccontextmanager
    async def waited_for(self, _: object) -> AsyncIterator[None]:
        """Waits at its end for the drills that have begun. What has not begun yet moved nothing, and is left out.

        uvicorn ends its process by the signal that stopped it, so threads are not waited for after this.
        """
        yield
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def begin(self, order: Order, policy: PolicySpec) -> None:
        """Begins a drill, unless the same one was begun before.

        Raises:
            Refused: Another drill of the model is under way here, or the words are none that may be kept.
            Unavailable: The release store does not answer.
        """
        check_words("a drill", order.actor, order.reason)
        with self._lock:
            last = self._last.get(order.model)
            if last is not None and last.order.drill_id == order.drill_id:
                return
            if self._is_known(order.model, order.drill_id):
                return
            if last is not None and not last.end.done():
                raise Refused(
                    f"{order.model}: the drill {last.order.drill_id} of {last.order.actor} is under way",
                    remedy="wait for its end, a minute at most as a rule",
                )
            self._last[order.model] = _Asked(order=order, end=self._pool.submit(self._carry_out, order, policy))

    def answer(self, model: str, drill_id: str) -> DrillAnswer:
        """Returns where a drill stands.

        Raises:
            NotFound: There is no such drill, it was lost before it moved anything, or another process knows of it.
            Unavailable: The release store does not answer.
        """
        last = self._last.get(model)
        if last is not None and last.order.drill_id == drill_id:
            return _ended(last) if last.end.done() else _answer(model, drill_id, DrillState.UNDER_WAY)
        found = self._services.store.drills.find(drill_id)
        if found is not None and found.model == model:
            return _answer(model, drill_id, DrillState.ENDED, drill=found)
        if self._is_between(model, drill_id):
            return _answer(model, drill_id, DrillState.UNDER_WAY)
        raise NotFound(
            f"{model}: there is no drill {drill_id}, it was lost before it moved anything, "
            "or only another process of the operators' API knows of it",
            remedy=f"look at `release status {model}`, then drill again",
        )

    def _is_known(self, model: str, drill_id: str) -> bool:
        """Whether another process made this drill, or is making it, so that sent again it must not begin here."""
        return self._services.store.drills.find(drill_id) is not None or self._is_between(model, drill_id)

    def _is_between(self, model: str, drill_id: str) -> bool:
        """Whether a drill is between its moves: in another process, or it was cut off."""
        return find_unfinished_id(self._services.store.ledger(model)) == drill_id

    def _carry_out(self, order: Order, policy: PolicySpec) -> Drilled:
        try:
            return drills_of(self._services).run(order, policy)
        except ReleaseError:
            raise
        except Exception as error:
            _LOG.exception("the drill %s of %s", order.drill_id, order.model)
            raise ReleaseError(
                f"{order.model}: the drill ended by an unexpected {type(error).__name__}",
                remedy=f"see `release status {order.model}` and the log of `release api`",
            ) from error


def _ended(asked: _Asked) -> DrillAnswer:
    model, drill_id = asked.order.model, asked.order.drill_id
    try:
        return _answer(model, drill_id, DrillState.ENDED, drill=asked.end.result())
    except ReleaseError as error:
        return _answer(model, drill_id, DrillState.STOPPED, problem=told(error))


def _answer(
    model: str,
    drill_id: str,
    state: DrillState,
    *,
    drill: Drilled | None = None,
    problem: dict[str, str] | None = None,
) -> DrillAnswer:
    shown = None if drill is None else drill.to_json()
    return DrillAnswer(model=model, drill_id=drill_id, state=state, drill=shown, problem=problem)
