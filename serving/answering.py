"""What is done for every request for predictions, whichever protocol it comes by.

admit the caller -> find the version -> read the body -> door.read -> engine -> door.write
"""

from dataclasses import dataclass
from functools import partial
from itertools import count
from secrets import token_hex

from starlette.types import Receive

from release_platform.domain.api_keys import Scope
from serving.access import Access, Caller
from serving.bodies import read_body
from serving.doors import Door, Head, Reply, check_media_type
from serving.engine import Engine
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
        model: The name of the model; empty for the one that the server has.
        version: The version that must answer; None for the one in Production.
        head: Its headers.
        receive: Gives its body.
        request_id: The id that its client or this server gave it.
        served: The version that answers, once it was found.
        caller: Whose API key it came with.
        problem: The kind of problem that it was told of; empty for none.
    """

    door: Door
    route: str
    model: str
    version: str | None
    head: Head
    receive: Receive
    request_id: str
    served: LoadedModel | None = None
    caller: Caller | None = None
    problem: str = ""


class Answering:
    """Answers calls.

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
        self._body_timeout_s = body_timeout_s

    async def answer(self, call: Call) -> Reply:
        """Returns the answer to a call, naming the version that gave it.

        Raises:
            Problem: There is no answer.
        """
        head = call.head
        call.caller = self._access.admit(head.get(b"authorization"), head.get(b"x-api-key"), Scope.PREDICT)
        loaded = call.served = self._live.table.get_model(call.model, call.version)
        check_media_type(head, call.door.media_types)
        body = await read_body(call.receive, call.head, max_bytes=self._max_body_bytes, within_s=self._body_timeout_s)
        prediction_id = new_id()
        if len(body) > INLINE_BYTES:
            return await self._engine.run(partial(self._answer_at_once, call, loaded, body, prediction_id))
        ask = call.door.read(body, head, loaded, self._limits)
        predictions = await self._engine.predict(loaded, ask.inputs)
        return _named(call.door.write(ask, loaded, predictions, prediction_id), loaded, prediction_id)

    def _answer_at_once(self, call: Call, loaded: LoadedModel, body: bytes, prediction_id: str) -> Reply:
        ask = call.door.read(body, call.head, loaded, self._limits)
        predictions = self._engine.compute(loaded, ask.inputs)
        return _named(call.door.write(ask, loaded, predictions, prediction_id), loaded, prediction_id)


def _named(reply: Reply, loaded: LoadedModel, prediction_id: str) -> Reply:
    own = (*reply.headers, *loaded.headers, (b"x-prediction-id", prediction_id.encode()))
    return Reply(reply.body, reply.media_type, own)
