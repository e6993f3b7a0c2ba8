"""Keeps what is served equal to what the registry names in Production."""

import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from time import perf_counter

import anyio

from release_platform.domain.errors import ReleaseError
from serving.background import call_in_daemon, keep_going
from serving.beside import BesideSource
from serving.metrics import Metrics
from serving.models import Event, Live, Lost, Reached, Refused, StoodBeside, Went
from serving.registry import ModelSource

AGAIN_S = 30.0
"""Seconds after which a copy that could not be served is tried again: what was in its way may have passed."""
_LOG = logging.getLogger(__name__)


class Watcher:
    """Looks at the registry again and again, and makes verified versions live.

    Args:
        refresh_s: Seconds between two looks; each wait is drawn from 0.8 to 1.2 times this, so that replicas spread.
        patience_s: Seconds that the registry is given at the start before the copies on disk are served.
        follow_s: Seconds between two looks at what the servers beside this one note; None where there are none.
    """

    def __init__(
        self,
        *,
        source: ModelSource,
        live: Live,
        metrics: Metrics,
        refresh_s: float,
        patience_s: float,
        follow_s: float | None = None,
    ) -> None:
        self._source = source
        self.beside = BesideSource(source)
        self._live = live
        self._metrics = metrics
        self._refresh_s = refresh_s
        self._patience_s = patience_s
        self._follow_s = follow_s
        self._tried: dict[str, datetime] = {}
        self._unanswered: set[str] = set()  # models that the registry did not answer about when it was asked last
        self._looking = anyio.Lock()

    async def run(self) -> None:
        """Watches until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._restore_after, self._patience_s)
            if self._follow_s is not None:
                tasks.start_soon(keep_going, partial(self._follow, self._follow_s))
            while True:
                await self._guarded(self.refresh)
                await anyio.sleep(self._refresh_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret

    async def refresh(self, *, at_once: bool = False) -> None:
        """Looks at the registry once. Each model goes live as soon as it is ready, whatever becomes of the others.

        Args:
            at_once: Whether a version that was refused is tried again though its time has not come.
        """
        async with self._looking:
            await self._refresh(at_once=at_once)

    async def _refresh(self, *, at_once: bool) -> None:
        try:
            models = await call_in_daemon(self._source.models)
        except Exception as error:  # noqa: BLE001 - whatever it is, the registry is of no use now
            self._apply(Lost(problem=error.problem if isinstance(error, ReleaseError) else repr(error)))
            await self.restore(self._source.remembered())
            return
        self._apply(Reached(models=models, at=self._source.now()))
        for model in sorted(models, key=self._unanswered.__contains__):  # the trouble may be with that one alone
            table = self._live.table
            before = (table.loaded.get(model), table.refusals.get(model))
            look = partial(self._source.look, model, *before, at_once=at_once)
            begun = perf_counter()
            event = await call_in_daemon(look)
            if event is not None:
                await self.settle(event)
            if isinstance(event, Went):
                self._metrics.version_live(model, perf_counter() - begun)
            if isinstance(event, Refused):
                await self.restore((model,))
            if isinstance(event, Lost):
                self._unanswered.add(model)
                await self.restore(self._source.remembered())
                return
            self._unanswered.discard(model)
            await self._look_behind(model)
            await self._look_beside(model)

    async def _look_behind(self, model: str) -> None:
        table = self._live.table
        look = partial(self._source.look_behind, model, table.loaded.get(model), table.standby.get(model))
        event = await call_in_daemon(look)
        if event is not None:
            self._apply(event)

    async def _look_beside(self, model: str) -> None:
        began = self._live.table
        for event in await call_in_daemon(partial(self.beside.look, model, began)):
            if not isinstance(event, StoodBeside):
                self._apply(event)
            elif not self.beside.is_overtaken(event, began, self._live.table):
                self.stand_beside(event)

    def stand_beside(self, event: StoodBeside) -> None:
        """Takes into the table who stands beside Production."""
        before = self._live.table
        self._apply(event)
        if self._live.table is not before:
            self._tell_beside(event)

    def _tell_beside(self, event: StoodBeside) -> None:
        if event.refusal is not None:
            self._metrics.version_refused(event.model, event.refusal.kind)
            return
        beside = self._live.table.beside(event.route).get(event.model)
        if beside is None:
            _LOG.info("%s: no version is on the route %s any more", event.model, event.route)
        else:
            named = (event.model, beside.loaded.version, event.route, beside.weight)
            _LOG.info("%s version %s is on the route %s with weight %g", *named)

    async def _follow(self, every_s: float) -> None:
        """Takes what is pushed to a server beside this one: only one of several workers is told of a move."""
        seen = self._source.noted_at()
        while True:
            await anyio.sleep(every_s)
            now = self._source.noted_at()
            for model in (model for model, moment in now.items() if moment != seen.get(model)):
                await self._guarded(partial(self._take_noted, model))
            seen = now

    async def _take_noted(self, model: str) -> None:
        event = await call_in_daemon(partial(self._source.follow, model, self._live.table.loaded.get(model)))
        if event is not None:
            await self.settle(event)

    async def restore(self, models: tuple[str, ...]) -> None:
        """Serves, of these models, each that nothing is loaded of and that a verified copy is on disk of.

        What did not come up is not tried again at once: mostly a copy that was bad stays so.
        """
        for model in models:
            now, tried = self._source.now(), self._tried.get(model)
            is_due = tried is None or (now - tried).total_seconds() >= AGAIN_S
            if model not in self._live.table.loaded and is_due:
                self._tried[model] = now
                event = await call_in_daemon(partial(self._source.restore, model))
                if event is not None:
                    await self.settle(event)

    async def _guarded(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except Exception:  # noqa: BLE001 - what is loaded must go on answering, and the next look may succeed
            _LOG.exception("looking at the registry failed in an unforeseen way")

    async def _restore_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        if self._live.table.contact.reachable is None:
            await self._guarded(lambda: self.restore(self._source.remembered()))

    async def settle(self, event: Event) -> None:
        """Takes an event into the table; what goes live by it is noted on disk before this returns."""
        before = self._live.table
        self._apply(event)
        if isinstance(event, Refused):
            self._metrics.version_refused(event.refusal.model, event.refusal.kind)
        if isinstance(event, Went) and self._live.table is not before:
            loaded = event.loaded
            named = (loaded.model, loaded.version, loaded.digest, loaded.origin)
            _LOG.info("%s version %s (%s) is live, named by the %s", *named)
            await call_in_daemon(partial(self._source.confirm, loaded))

    def _apply(self, event: Event) -> None:
        was = self._live.table.contact.reachable
        self._live.apply(event)
        if isinstance(event, Lost) and was is not False:
            _LOG.warning("the registry does not answer; what is loaded goes on: %s", event.problem)
        if isinstance(event, Reached) and was is False:
            _LOG.info("the registry answers again")
