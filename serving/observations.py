"""What each version does on its route, minute by minute, in windows that a collector fetches.

```
answer --> put down --each second--> counted into its minute --minute over--> closed, kept for an hour
```
A request costs one entry in a list; all counting is done for many at once. Only requests that were routed count, not
those that chose their version. A minute is closed once: what is counted later goes into the next one. Each minute in
which this process served a route has a window, also without a request. A minute that it slept through has none.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from time import perf_counter
from typing import Any

import numpy as np

from release_platform.domain.ports import Clock
from release_platform.domain.prediction import Predictions
from release_platform.domain.windows import EVERY_SLICE, NOT_FINITE, Route, Window, find_flip
from serving.errors import NonFinitePrediction, Problem, Stopping
from serving.metrics import Metrics
from serving.models import Live, LoadedModel
from serving.tallies import Arm, Slices, Tally, first_answers, number_buckets, said

KEPT_MINUTES = 60
MOST_WINDOWS = 20_000
_MOST_PUT_DOWN = 1000


INPUT_REFUSED = "input_refused"
"""The kind of error of a canary that does not take a request which the version in Production takes."""


def error_kind(problem: Problem) -> str:
    """Returns the kind of error that a problem is of the version that was asked; empty for one that is none of it."""
    if problem.status < 500 or isinstance(problem, Stopping):
        return ""
    return NOT_FINITE if isinstance(problem, NonFinitePrediction) else problem.slug.replace("-", "_")


Answered = tuple[LoadedModel, Route, float, float, str, Predictions | None, int]
"""A routed request that its version answered, or failed: a plain tuple, as one is made for each.

The version; the route; when the request came and when it was answered, in seconds of the clock that never goes back;
the kind of its error, empty for none; the answer, None where there is an error; the number of the prediction among
those of this process.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """What a shadow made of a request.

    Attributes:
        ms: Milliseconds that it took to read and to compute.
        error: The kind of its error; empty for none.
        first: The answer to the first row; None where there is an error.
        slices: The kinds of rows that the first row is of, `column=value`.
    """

    ms: float
    error: str = ""
    first: Predictions | None = None
    slices: tuple[str, ...] = ()


class Observations:
    """Counts what routed requests come to. For one thread: the event loop's.

    Args:
        live: What is served.
        metrics: What is told of each count.
        clock: The time that minutes are of.
        seconds: The clock that never goes back, by which requests are timed.
        most_windows: Most closed windows that are kept.

    Attributes:
        replica: The name of this process, which no other and no earlier one has.
    """

    def __init__(
        self,
        *,
        live: Live,
        metrics: Metrics,
        clock: Clock,
        seconds: Callable[[], float] = perf_counter,
        most_windows: int = MOST_WINDOWS,
    ) -> None:
        self.replica = token_hex(8)
        self._live = live
        self._metrics = metrics
        self._clock = clock
        self._seconds = seconds
        self._most_windows = most_windows
        self._put_down: list[Answered] = []
        self._arms: dict[tuple[str, str, Route], Arm] = {}
        self._tallies: dict[tuple[Arm, int], Tally] = {}
        self._served: set[Arm] = set()
        self._slices = Slices()
        self._open = self.minute
        self._closed: deque[Window] = deque()
        self._fetched = -1

    @property
    def minute(self) -> int:
        """The present minute, since 1970 in UTC."""
        return int(self._clock.now().timestamp() // 60)

    def put_down(self, answered: Answered) -> None:
        """Takes a request, to be counted soon."""
        self._put_down.append(answered)
        if len(self._put_down) >= _MOST_PUT_DOWN:
            self.count()

    def count(self) -> None:
        """Counts what was put down, and closes the minutes that are over; to be called each second."""
        put_down, self._put_down = self._put_down, []
        by_arm: dict[tuple[int, int], list[Answered]] = {}
        for one in put_down:  # what is compared is what is the same object: to hash its fields would take longer
            by_arm.setdefault((id(one[0]), id(one[1])), []).append(one)
        offset = self._clock.now().timestamp() - self._seconds()
        for several in by_arm.values():
            for minute, of_minute in _by_minute(several, offset):
                self._count(self.arm_of(several[0][0], several[0][1]), max(minute, self._open), of_minute)
        self._close_before(self.minute)
        self._served.update(self._arms_served())

    def arm_of(self, loaded: LoadedModel, route: Route) -> Arm:
        """Returns the arm that a version is on a route."""
        key = (loaded.model, loaded.version, route)
        arm = self._arms.get(key)
        if arm is None:
            package = loaded.package
            arm = self._arms[key] = Arm(*key, package.task, package.classes)
        return arm

    def tally(self, arm: Arm) -> Tally:
        """Returns what an arm's present minute is counted in; to be changed before anything else happens."""
        return self._tally(arm, max(self.minute, self._open))

    def reflected(self, shadow: LoadedModel, reflection: Reflection, *, beside: Predictions | None) -> None:
        """Counts what a shadow made of a request.

        Args:
            shadow: The version.
            reflection: What it made of it.
            beside: What the version in Production answered; None where it failed, so that there is no pair.
        """
        arm = self.arm_of(shadow, Route.SHADOW)
        tally = self.tally(arm)
        answers = [] if reflection.first is None else [reflection.first]
        errors = [reflection.error] if reflection.error else []
        _, predictions = first_answers(arm, answers)
        tally.count({"latency": number_buckets(np.array([reflection.ms])), "predictions": predictions}, errors)
        if reflection.first is not None and beside is not None:
            flip = find_flip(said(arm, beside), said(arm, reflection.first))
            tally.pair((EVERY_SLICE, *self._slices.counted(arm.model, reflection.slices)), flip)
        self._metrics.routed(arm.model, arm.version, arm.route, n_answered=len(answers), errors=errors)

    def closed_after(self, minute: int) -> dict[str, Any]:
        """Returns, as a JSON value, the windows of closed minutes after one, and which minute was closed last."""
        self.count()
        found = [window for window in self._closed if window.key.minute > minute]
        self._fetched = max(self._fetched, *(window.key.minute for window in found)) if found else self._fetched
        return {
            "replica": self.replica,
            "closed": self._open - 1,
            "windows": [window.to_json() for window in found],
        }

    def _count(self, arm: Arm, minute: int, several: Sequence[Answered]) -> None:
        errors = [one[4] for one in several if one[4]]
        _, predictions = first_answers(arm, [one[5] for one in several if one[5] is not None])
        ms = np.array([one[3] - one[2] for one in several]) * 1000
        buckets = {"latency": number_buckets(ms), "predictions": predictions}
        self._tally(arm, minute).count(buckets, errors)
        self._metrics.routed(arm.model, arm.version, arm.route, n_answered=len(several) - len(errors), errors=errors)

    def _tally(self, arm: Arm, minute: int) -> Tally:
        tally = self._tallies.get((arm, minute))
        if tally is None:
            tally = self._tallies[arm, minute] = Tally()
        return tally

    def _close_before(self, minute: int) -> None:
        if minute <= self._open:  # the clock was put back: the minutes go on when it has caught up
            return
        for arm in self._served:
            self._tally(arm, self._open)
        over = [place for place in self._tallies if place[1] < minute]
        for arm, at in sorted(over, key=lambda place: place[1]):
            self._closed.append(self._tallies.pop((arm, at)).as_window(arm, at))
        self._served.clear()
        self._open = minute
        self._forget(minute - KEPT_MINUTES)
        served = {(arm.model, arm.version) for arm in self._arms_served()}
        self._arms = {key: arm for key, arm in self._arms.items() if key[:2] in served}

    def _forget(self, before: int) -> None:
        n_lost = 0
        while self._closed and (len(self._closed) > self._most_windows or self._closed[0].key.minute < before):
            n_lost += self._closed.popleft().key.minute > self._fetched
        if n_lost:
            self._metrics.windows_lost(n_lost)

    def _arms_served(self) -> Iterable[Arm]:
        table = self._live.table
        yield from (self.arm_of(loaded, Route.STABLE) for loaded in table.loaded.values())
        yield from (self.arm_of(one.loaded, Route.CANARY) for one in table.canary.values())
        yield from (self.arm_of(one.loaded, Route.SHADOW) for one in table.shadow.values())


def _by_minute(several: list[Answered], offset: float) -> Iterable[tuple[int, list[Answered]]]:
    """Returns requests by the minute in which they were answered, which mostly is one."""
    minutes = (np.array([one[3] for one in several]) + offset) // 60
    if minutes.min() == minutes.max():
        return [(int(minutes[0]), several)]
    found = np.unique(minutes).tolist()
    return [(int(minute), [several[place] for place in np.flatnonzero(minutes == minute)]) for minute in found]
