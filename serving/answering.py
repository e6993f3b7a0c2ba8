"""What is done for every request for predictions, whichever protocol it comes by.

begin: admit the caller, find the version -> the body -> at_once: door.read, engine, door.write
                                                      or later: the same on threads, or in a batch
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import nan
from secrets import token_hex
from time import perf_counter
from typing import ClassVar

from starlette.types import Receive

from release_platform.domain.api_keys import Scope
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import Route
from serving.access import Access
from serving.bodies import read_body
from serving.doors import Ask, Door, Head, Sent, check_media_type
from serving.engine import Engine
from serving.errors import Problem, RequestProblem
from serving.limits import Limits
from serving.models import ROUTE_HEADER, Beside, Live, LoadedModel
from serving.observations import INPUT_REFUSED, Observations
from serving.refusals import REFUSALS
from serving.routing import KEY_HEADER, takes
from serving.samples import Samples
from serving.shadow import Offered, Shadows
from serving.tallies import first_answer

INLINE_BYTES = 32 * 1024
"""Largest body that is parsed on the event loop; a larger one is read, computed and written on a thread."""

_LOG = logging.getLogger(__name__)
_STABLE, _CANARY = Route.STABLE, Route.CANARY  # a look-up in an enumeration is slow
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
        arm: The route that it was put on; None while that is open, and for a request that chose its version itself.
        canary: What it may be put on, once its body is here; None when that is decided.
        caller_id: Whose API key it came with; empty where none was asked for.
        problem: The kind of problem that it was told of; empty for none.
        error: The kind of error that this is of the version that was asked; empty where it is none of it.
        refused_by: The canary that did not take it, though Production's version does.
        predictions: What was answered.
        number: The number of the prediction.
        body: Its body, where a shadow may be asked it too.
        ask: What its body asks, once that was read.
        refusal: What is wrong with what it asks.
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
    arm: Route | None = None
    canary: Beside | None = None
    caller_id: str = ""
    problem: str = ""
    error: str = ""
    refused_by: LoadedModel | None = None
    predictions: Predictions | None = None
    number: int = 0
    body: bytes | None = None
    ask: Ask | None = None
    refusal: RequestProblem | None = None

    @property
    def names(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that name the version and the route, as far as they are known."""
        if self.served is None or self.canary is not None:
            return ()
        if self.arm is None:
            return self.served.pinned_headers
        return self.served.stable_headers if self.arm is _STABLE else self.served.canary_headers


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
        observations: What is told of each call that was routed.
        shadows: What puts calls to shadow versions.
        samples: What keeps a sample of calls.
    """

    def __init__(
        self,
        *,
        live: Live,
        engine: Engine,
        access: Access,
        limits: Limits,
        max_body_bytes: int,
        body_timeout_s: float,
        observations: Observations,
        shadows: Shadows,
        samples: Samples,
    ) -> None:
        self._live = live
        self._engine = engine
        self._access = access
        self._limits = limits
        self._max_body_bytes = max_body_bytes
        self.inline_bytes = min(INLINE_BYTES, max_body_bytes)
        self._body_timeout_s = body_timeout_s
        self._put_down = observations.put_down
        self._origin = observations.origin
        self._shadows = shadows
        self._samples = samples
        self._numbers = count(1)

    def number_from(self, origin: str, first: int) -> None:
        """Gives ids that begin with an origin, and numbers from one on; to be called before there is a prediction."""
        self._origin, self._numbers = origin, count(first)

    async def answer(self, call: Call, receive: Receive) -> Sent:
        """Returns the answer to a call, naming the version that gave it; goes on from `at_once` where that gave none.

        Raises:
            Problem: There is no answer.
        """
        if call.served is None:
            self.begin(call)
        body = await read_body(receive, call.head, max_bytes=self._max_body_bytes, within_s=self._body_timeout_s)
        sent = None if call.ask else self.at_once(call, body)
        return await self._later(call, body) if sent is None else sent

    def begin(self, call: Call) -> None:
        """Lets a caller in, and finds the version that answers, or the two of which one will.

        Raises:
            Problem: There is none, or it will not answer this.
        """
        head = call.head
        caller = self._access.admit(head.get(b"authorization"), head.get(b"x-api-key"), Scope.PREDICT)
        call.caller_id = "" if caller is None else caller.key_id
        table = self._live.table
        loaded = call.served = table.get_model(call.model, call.version)
        if call.version is None and (ROUTE_HEADER not in head or head[ROUTE_HEADER] != b"stable"):
            if table.canary:
                call.canary = table.canary.get(loaded.model)
            if call.canary is None:
                call.arm = _STABLE
        check_media_type(head, call.door.media_types)

    def at_once(self, call: Call, body: bytes) -> Sent | None:
        """Returns the answer to a call that has begun, or None where that would take long. Raises as `answer`."""
        ask = self._read_if_quick(call, body)
        if ask is None:
            return None
        loaded = _served(call)
        return self._written(call, ask, loaded, self._engine.compute(loaded, ask.inputs))

    def soon(self, call: Call, body: bytes, deliver: Callable[[Sent | Exception], None]) -> bool:
        """Delivers the answer to a call that has begun when this turn of the event loop ends, or what went wrong.

        Returns:
            Whether it does; False where it would take long. Raises as `answer`.
        """
        ask = self._read_if_quick(call, body)
        if ask is None:
            return False
        loaded = _served(call)
        self._engine.compute_soon(loaded, ask.inputs, partial(self._deliver, call, ask, loaded, deliver))
        return True

    def finished(self, call: Call) -> None:
        """Puts down what a call came to, once that is known; to be called once. Whatever goes wrong, it is answered."""
        try:
            self._finish(call)
        except Exception:  # noqa: BLE001 - the client has its answer
            _LOG.exception("what a request came to could not be counted")

    def _finish(self, call: Call) -> None:
        arm = call.arm
        if arm is None:
            return
        loaded = _served(call)
        if call.refusal is not None and self._samples.is_on:
            self._samples.calls.refused(loaded, call.refusal)
        if call.problem and not call.error:
            return
        if call.refused_by is not None:
            now = perf_counter()
            self._put_down((call.refused_by, _CANARY, call.begun, now, INPUT_REFUSED, nan, nan, 0))
            return
        answer, counted = (nan, nan) if call.predictions is None else first_answer(call.predictions)
        self._put_down((loaded, arm, call.begun, perf_counter(), call.error, answer, counted, call.number))
        if self._samples.is_on and call.ask is not None and call.predictions is not None:
            self._samples.offer(loaded, arm, call.ask.inputs, call.predictions, call.number)
        if call.body is not None and arm is _STABLE:
            self._mirror(call, loaded.model, call.body)

    def settle(self) -> None:
        """Delivers all that is to come soon."""
        self._engine.settle()

    def _read_if_quick(self, call: Call, body: bytes) -> Ask | None:
        if len(body) > self.inline_bytes or not call.door.is_ready(call.head):
            return None
        ask = self._read(call, body)
        return ask if self._engine.is_quick(_served(call), ask.inputs) else None

    def _read(self, call: Call, body: bytes) -> Ask:
        """Returns what is asked; here the route is decided, once for all, and with it which version is served."""
        try:
            if call.canary is None:
                ask = call.door.read(body, call.head, _served(call), self._limits)
            else:
                ask = self._read_routed(call, call.canary, body)
        except REFUSALS as refused:
            call.refusal = refused
            if self._was_taken(call, body):
                call.error = INPUT_REFUSED
            raise
        call.ask = ask
        if self._live.table.shadow:
            call.body = body
        return ask

    def _read_routed(self, call: Call, canary: Beside, body: bytes) -> Ask:
        stable, call.canary = _served(call), None
        if takes(canary, call.head.get(KEY_HEADER) or call.door.key_in(body, call.head, self._limits)):
            call.served, call.arm = canary.loaded, _CANARY
            with suppress(RequestProblem):
                return call.door.read(body, call.head, canary.loaded, self._limits)
        refused = call.arm is _CANARY
        call.served, call.arm = stable, _STABLE
        ask = call.door.read(body, call.head, stable, self._limits)
        if refused:  # what Production takes is no fault of the client
            call.refused_by = canary.loaded
        return ask

    def _was_taken(self, call: Call, body: bytes) -> bool:
        """Returns whether the version before takes what Production's refused, while none is judged beside that."""
        loaded, table = _served(call), self._live.table
        before = table.standby.get(loaded.model)
        if call.arm is not _STABLE or before is None or loaded.model in table.canary or loaded.model in table.shadow:
            return False
        if before.package.plan.inputs == loaded.package.plan.inputs:
            return False
        with suppress(RequestProblem):
            call.door.read(body, call.head, before, self._limits)
            return True
        return False

    async def _later(self, call: Call, body: bytes) -> Sent:
        if call.ask is None:
            return await self._engine.run(partial(self._on_a_thread, call, body))
        loaded = _served(call)
        return self._written(call, call.ask, loaded, await self._engine.predict(loaded, call.ask.inputs))

    def _on_a_thread(self, call: Call, body: bytes) -> Sent:
        ask = self._read(call, body)
        loaded = _served(call)
        return self._written(call, ask, loaded, self._engine.compute(loaded, ask.inputs))

    def _mirror(self, call: Call, model: str, body: bytes) -> None:
        shadow = self._live.table.shadow.get(model)
        if shadow is not None:
            self._shadows.offer(shadow, Offered(call.predictions, call.number, call.door, call.head, body))

    def _deliver(
        self,
        call: Call,
        ask: Ask,
        loaded: LoadedModel,
        deliver: Callable[[Sent | Exception], None],
        result: Predictions | Problem,
    ) -> None:
        if isinstance(result, Problem):
            deliver(result)
            return
        try:
            sent = self._written(call, ask, loaded, result)
        except Exception as error:  # noqa: BLE001 - whoever delivers logs it and tells the client
            deliver(error)
        else:
            deliver(sent)

    def _written(self, call: Call, ask: Ask, loaded: LoadedModel, predictions: Predictions) -> Sent:
        number = next(self._numbers)
        prediction_id = f"{self._origin}-{number:x}"
        reply = call.door.write(ask, loaded, predictions, prediction_id)
        call.predictions, call.number = predictions, number
        names = loaded.stable_headers if call.arm is _STABLE else call.names
        headers = [
            (b"content-type", reply.media_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
            *names,
            (b"x-prediction-id", prediction_id.encode()),
        ]
        return Sent(200, headers, reply.body)


def _served(call: Call) -> LoadedModel:
    return call.served  # type: ignore[return-value]  # `begin` found it
