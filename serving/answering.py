"""What is done for every request for predictions, whichever protocol it comes by.

begin: admit the caller, find the version -> the body -> at_once: door.read, engine, door.write
                                                      or later: the same on threads, or in a batch
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from secrets import token_hex
from typing import ClassVar

from starlette.types import Receive

from release_platform.domain.api_keys import Scope
from release_platform.domain.prediction import Predictions
from serving.access import Access
from serving.bodies import read_body
from serving.doors import Ask, Door, Head, Reply, check_media_type
from serving.engine import Engine
from serving.errors import Problem
from serving.limits import Limits
from serving.models import Live, LoadedModel

INLINE_BYTES = 32 * 1024
"""Largest body that is parsed on the event loop; a larger one is read, computed and written on a thread."""

_PROCESS = token_hex(8)
_NUMBERS = count(1)


def new_id() -> str:
    """Returns an id that no other request of any server has: of this process, and its number in it."""
    return f"{_PROCESS}-{next(_NUMBERS):x}"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for predictions.

    Attributes:
        door: The protocol.
        route: The template of its path, for metrics.
        path: Its path.
        model: The name of the model; empty for the one that the server has.
        version: The version that must answer; None for the one in Production.
        head: Its headers.
        request_id: The id that its client or this server gave it.
        begun: When it came, in seconds of `perf_counter`.
        served: The version that answers, once it was found.
        caller_id: Whose API key it came with; empty where none was asked for.
        problem: The kind of problem that it was told of; empty for none.
        ask: What its body asks, once that was read.
    """

    method: ClassVar[str] = "POST"
    door: Door
    route: str
    path: str
    model: str
    version: str | None
    head: Head
    request_id: str
    begun: float
    served: LoadedModel | None = None
    caller_id: str = ""
    problem: str = ""
    ask: Ask | None = None


class Answering:
    """Answers calls.

    Attributes:
        inline_bytes: Largest body that may be answered at once.

    Args:
        live: What is served.
        engine: What computes.
        access: Who may call.
        limits: What one request may hold.
        max_body_bytes: Most bytes of one body.
        body_timeout_s: Seconds within which a body must have arrived.
    """

    def __init__(
        self, *, live: Live, engine: Engine, access: Access, limits: Limits, max_body_bytes: int, body_timeout_s: float
    ) -> None:
        self._live = live
        self._engine = engine
        self._access = access
        self._limits = limits
        self._max_body_bytes = max_body_bytes
        self.inline_bytes = min(INLINE_BYTES, max_body_bytes)
        self._body_timeout_s = body_timeout_s

    async def answer(self, call: Call, receive: Receive) -> Reply:
        """Returns the answer to a call, naming the version that gave it; goes on from `at_once` where that gave none.

        Raises:
            Problem: There is no answer.
        """
        loaded = call.served or self.begin(call)
        body = await read_body(receive, call.head, max_bytes=self._max_body_bytes, within_s=self._body_timeout_s)
        reply = None if call.ask else self.at_once(call, loaded, body)
        return await self._later(call, loaded, body) if reply is None else reply

    def begin(self, call: Call) -> LoadedModel:
        """Lets a caller in and returns the version that answers.

        Raises:
            Problem: There is none, or it will not answer this.
        """
        head = call.head
        caller = self._access.admit(head.get(b"authorization"), head.get(b"x-api-key"), Scope.PREDICT)
        call.caller_id = "" if caller is None else caller.key_id
        loaded = call.served = self._live.table.get_model(call.model, call.version)
        check_media_type(head, call.door.media_types)
        return loaded

    def at_once(self, call: Call, loaded: LoadedModel, body: bytes) -> Reply | None:
        """Returns the answer to a call that has begun, or None where that would take long. Raises as `answer`."""
        ask = self._read_if_quick(call, loaded, body)
        return None if ask is None else _written(call, ask, loaded, self._engine.compute(loaded, ask.inputs))

    def soon(self, call: Call, loaded: LoadedModel, body: bytes, deliver: Callable[[Reply | Exception], None]) -> bool:
        """Delivers the answer to a call that has begun when this turn of the event loop ends, or what went wrong.

        Returns:
            Whether it does; False where it would take long. Raises as `answer`.
        """
        ask = self._read_if_quick(call, loaded, body)
        if ask is None:
            return False
        self._engine.compute_soon(loaded, ask.inputs, partial(_deliver, call, ask, loaded, deliver))
        return True

    def settle(self) -> None:
        """Delivers all that is to come soon."""
        self._engine.settle()

    def _read_if_quick(self, call: Call, loaded: LoadedModel, body: bytes) -> Ask | None:
        if len(body) > self.inline_bytes:
            return None
        ask = call.ask = call.door.read(body, call.head, loaded, self._limits)
        return ask if self._engine.is_quick(loaded, ask.inputs) else None

    async def _later(self, call: Call, loaded: LoadedModel, body: bytes) -> Reply:
        if call.ask is None:
            return await self._engine.run(partial(self._on_a_thread, call, loaded, body))
        return _written(call, call.ask, loaded, await self._engine.predict(loaded, call.ask.inputs))

    def _on_a_thread(self, call: Call, loaded: LoadedModel, body: bytes) -> Reply:
        ask = call.door.read(body, call.head, loaded, self._limits)
        return _written(call, ask, loaded, self._engine.compute(loaded, ask.inputs))


def _deliver(
    call: Call,
    ask: Ask,
    loaded: LoadedModel,
    deliver: Callable[[Reply | Exception], None],
    result: Predictions | Problem,
) -> None:
    if isinstance(result, Problem):
        deliver(result)
        return
    try:
        reply = _written(call, ask, loaded, result)
    except Exception as error:  # noqa: BLE001 - whoever delivers logs it and tells the client
        deliver(error)
    else:
        deliver(reply)


def _written(call: Call, ask: Ask, loaded: LoadedModel, predictions: Predictions) -> Reply:
    prediction_id = new_id()
    reply = call.door.write(ask, loaded, predictions, prediction_id)
    own = (*reply.headers, *loaded.headers, (b"x-prediction-id", prediction_id.encode()))
    return Reply(reply.body, reply.media_type, own)
