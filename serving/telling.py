"""Finds who knows the predictions that outcomes are of: this process, a worker beside it, a file, or another server."""

import asyncio
import logging
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import anyio

from serving.held import MOST_LETTERS, Held
from serving.metrics import Fate, Metrics
from serving.observations import Observations
from serving.outcomes import Told
from serving.prediction_files import PredictionFiles
from serving.samples import Samples
from serving.siblings import Siblings

OUTCOMES = "outcomes"
_ID = re.compile(r"([0-9a-f]{16})-[0-9a-f]{1,16}")
_LOOKS, _BETWEEN_S = 3, 0.02  # at a file that another worker may read for a moment
_LOG = logging.getLogger(__name__)

_Outcomes = list[dict[str, Any]]


class Desk:
    """Finds who knows the predictions that outcomes are of.

    Args:
        observations: Counts those of this process.
        samples: Keeps labels of sampled requests.
        siblings: The other workers behind this port.
        files: The predictions of processes that have ended.
        held: Keeps what another server may know.
        metrics: Is told what became of outcomes.
    """

    def __init__(
        self,
        *,
        observations: Observations,
        samples: Samples,
        siblings: Siblings,
        files: PredictionFiles,
        held: Held,
        metrics: Metrics,
    ) -> None:
        self._observations = observations
        self._samples = samples
        self._siblings = siblings
        self._files = files
        self._held = held
        self._metrics = metrics

    async def tell(self, outcomes: _Outcomes, *, carried: bool) -> Told:
        """Counts outcomes, or says why not.

        Args:
            outcomes: The outcomes.
            carried: Whether another server was told first, so that what is not known here is that server's.
        """
        by_origin: dict[str, _Outcomes] = defaultdict(list)
        for outcome in outcomes:
            named = _ID.fullmatch(outcome["prediction_id"])
            by_origin["" if named is None else named[1]].append(outcome)
        told = Told()
        for origin, several in by_origin.items():
            told = told.and_(await self._told(origin, several, carried=carried))
        self._count(outcomes, told, carried=carried)
        return told

    async def offer(self, most: int) -> dict[str, Any]:
        """Returns outcomes that are held, as a JSON value."""
        try:
            held, n_held = await anyio.to_thread.run_sync(self._held.offer, most)
        except sqlite3.Error as error:
            _LOG.error("what is held of outcomes cannot be read: %s", error)
            held, n_held = [], 0
        return {"held": held, "n_held": n_held}

    async def settle(self, carried: list[tuple[str, str]], unknown: list[tuple[str, str]]) -> dict[str, int]:
        """Holds some outcomes no longer, and returns how many of each kind were held."""
        counts = {Fate.CARRIED: 0, Fate.UNKNOWN: 0}
        try:
            for fate, some in ((Fate.CARRIED, carried), (Fate.UNKNOWN, unknown)):
                counts[fate] = await anyio.to_thread.run_sync(self._held.settle, some)
                self._metrics.outcomes_became(fate, counts[fate])
        except sqlite3.Error as error:  # they are offered again
            _LOG.error("what is held of outcomes cannot be changed: %s", error)
        return {fate.value: n for fate, n in counts.items()}

    async def _told(self, origin: str, several: _Outcomes, *, carried: bool) -> Told:
        """Returns what becomes of the outcomes of one origin's predictions."""
        if origin == self._observations.origin:
            return self._observations.take(several, labelled=self._samples.label)
        ids = _ids(several)
        if not origin:
            return Told(unknown=ids)
        if self._siblings.has(origin):
            try:
                answer = await self._siblings.ask(origin, {"what": OUTCOMES, "outcomes": several})
            except TimeoutError:
                return Told(unanswered=ids)
            if answer is not None:
                return Told.from_json(answer)
        told = await self._told_by_file(origin, several)
        if told is not None:
            return told
        return Told(unknown=ids) if carried else await self._hold(several)

    async def _told_by_file(self, origin: str, several: _Outcomes) -> Told | None:
        """Returns what the file of a process says that has ended; None where there is none, or another server's."""
        for look in range(_LOOKS):
            try:
                kept = self._files.borrow(origin)
            except BlockingIOError:
                await asyncio.sleep(_BETWEEN_S if look < _LOOKS - 1 else 0)
                continue
            if kept is None:
                return None
            try:
                return self._observations.take(several, labelled=self._samples.label, of=kept.memory)
            finally:
                kept.close()
        return None

    async def _hold(self, several: _Outcomes) -> Told:
        wanted = [one for one in several if _may_be_held(one)]
        unknown = _ids([one for one in several if not _may_be_held(one)])
        try:
            n_held, n_new = await anyio.to_thread.run_sync(self._held.hold, wanted)
        except sqlite3.Error as error:
            _LOG.error("outcomes for another server cannot be held: %s", error)
            n_held, n_new = 0, 0
        self._metrics.outcomes_became(Fate.HELD, n_new)
        self._metrics.outcomes_became(Fate.FULL, len(wanted) - n_held)
        return Told(unknown=unknown, held=_ids(wanted[:n_held]), unanswered=_ids(wanted[n_held:]))

    def _count(self, outcomes: _Outcomes, told: Told, *, carried: bool) -> None:
        self._metrics.outcomes_became(Fate.COUNTED, told.counted)
        self._metrics.outcomes_became(Fate.REPEATED, len(told.repeated))
        self._metrics.outcomes_became(Fate.REFUSED, len(told.refused))
        if told.unknown and not carried:  # else it is counted where it was told
            unknown = frozenset(told.unknown)
            self._metrics.outcomes_became(Fate.UNKNOWN, sum(one["prediction_id"] in unknown for one in outcomes))


def _ids(several: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(outcome["prediction_id"] for outcome in several))


def _may_be_held(outcome: dict[str, Any]) -> bool:
    return not (isinstance(outcome["value"], str) and len(outcome["value"]) > MOST_LETTERS)
