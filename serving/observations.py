"""What each version does on its route, minute by minute, in windows that a collector fetches.

```
answer --> put down --each second--> counted into its minute --minute over--> closed, kept for an hour
                                                             --process ends--> closed, handed over (`handover`)
```
A request costs one entry in a list; all counting is done for many at once. Only requests that were routed count, not
those that chose their version. A minute is closed once: what is counted later goes into the next one. Each minute in
which this process served a route has a window, also without a request. A minute that it slept through has none. Which
minutes were counted from beginning to end is told too: not the one in which the process began, unless it goes on from
another one that handed over all that it had counted.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import nan
from secrets import token_hex
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from release_platform.domain.ports import Clock
from release_platform.domain.slices import Slices
from release_platform.domain.windows import EVERY_SLICE, LABEL, NOT_FINITE, Route, Window
from serving.errors import NonFinitePrediction, Problem, Stopping
from serving.handover import Ended
from serving.metrics import Metrics
from serving.models import Live, LoadedModel
from serving.outcomes import Memory, Remembered, Told, bucket_of, memory_of
from serving.prediction_files import KeptPredictions
from serving.ring import MOST_NAMES
from serving.tallies import MOST_PUT_DOWN, Arm, Tally, number_buckets, prediction_buckets

KEPT_MINUTES = 60
MOST_WINDOWS = 20_000


INPUT_REFUSED = "input_refused"
"""The kind of error of a canary that does not take a request which the version in Production takes."""


def error_kind(problem: Problem) -> str:
    """Returns the kind of error that a problem is of the version that was asked; empty for one that is none of it."""
    if problem.status < 500 or isinstance(problem, Stopping):
        return ""
    return NOT_FINITE if isinstance(problem, NonFinitePrediction) else problem.slug.replace("-", "_")


Answered = tuple[LoadedModel, Route, float, float, str, float, float, int]
"""A routed request that its version answered, or failed: a plain tuple of plain values, as one is made for each.

The version; the route; when the request came and when it was answered, in seconds of the clock that never goes back;
the kind of its error, empty for none; what was answered, and what of it is counted (`first_answer`), NaN where there
is an error; the number of the prediction among those of this process.
"""


class Reflection(NamedTuple):
    """What a shadow made of a request.

    Attributes:
        number: The number of the prediction that Production's version made; 0 where it failed.
        ms: Milliseconds that it took to read and to compute.
        error: The kind of its error; empty for none.
        answer: What it answered to the first row (`first_answer`); NaN where there is an error.
        counted: And what is counted of it.
        is_pair: Whether both versions answered.
        flip: What became what, of a pair whose answers differ.
        slices: The kinds of rows that the first row of a pair is of, `column=value`.
    """

    number: int
    ms: float
    error: str = ""
    answer: float = nan
    counted: float = nan
    is_pair: bool = False
    flip: str | None = None
    slices: tuple[str, ...] = ()


class Observations:
    """Counts what routed requests come to. For one thread: the event loop's.

    Args:
        live: What is served.
        metrics: What is told of each count.
        clock: The time that minutes are of.
        seconds: The clock that never goes back, by which requests are timed.
        most_windows: Most closed windows that are kept.
        most_remembered: How many predictions are remembered, for outcomes that come later, where no file is given.
        sample_share: The share of the requests that is sampled, 0 to 1.

    Attributes:
        replica: The name of this process, which no other and no earlier one has.
        origin: What the ids of its predictions begin with; one after the other may go on with the same.
        since: The minute in which it began to count.
    """

    def __init__(
        self,
        *,
        live: Live,
        metrics: Metrics,
        clock: Clock,
        seconds: Callable[[], float] = perf_counter,
        most_windows: int = MOST_WINDOWS,
        most_remembered: int = 0,
        sample_share: float = 0.0,
    ) -> None:
        self.replica = self.origin = token_hex(8)
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
        self._memory = memory_of(most_remembered, share=sample_share)
        self.since = self._open = self.minute
        self._whole: deque[int] = deque()
        self._closed: deque[Window] = deque()
        self._fetched = -1
        self._before: tuple[Ended, ...] | None = None

    @property
    def n_remembered(self) -> int:
        """How many predictions are remembered."""
        return self._memory.n_remembered

    def remember_in(self, kept: KeptPredictions) -> None:
        """Goes on with a file of predictions; to be called before there is one."""
        self.origin, self._memory = kept.origin, kept.memory

    def forget(self) -> None:
        """Counts what was put down, and remembers no prediction any more."""
        self.count()
        self._memory = memory_of(0)

    @property
    def minute(self) -> int:
        """The present minute, since 1970 in UTC."""
        return int(self._clock.now().timestamp() // 60)

    @property
    def _now(self) -> int:
        """The minute that what happens now is counted in."""
        return max(self.minute, self._open)

    def put_down(self, answered: Answered) -> None:
        """Takes a request, to be counted soon."""
        self._put_down.append(answered)
        if len(self._put_down) >= MOST_PUT_DOWN:
            self.count()

    def count(self) -> None:
        """Counts what was put down, and closes the minutes that are over; to be called each second."""
        put_down, self._put_down = self._put_down, []
        offset = self._clock.now().timestamp() - self._seconds()
        for several in _by_arm(put_down):
            loaded, route = several[0][:2]
            arm = self.arm_of(loaded, route)
            for minute, of_minute in _by_minute(several, offset):
                self._count(arm, max(minute, self._open), of_minute)
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
        return self._tally(arm, self._now)

    def take(
        self,
        outcomes: Iterable[Mapping[str, Any]],
        *,
        labelled: Callable[[Arm, str, Any, float], None] | None = None,
        of: Memory | None = None,
    ) -> Told:
        """Counts outcomes of predictions of one process, each a `prediction_id`, `name` and `value`.

        Args:
            outcomes: The outcomes.
            labelled: Is given the arm that answered, the prediction's id, each label that counted, and the share of the
                requests that was sampled at the time of the prediction.
            of: Where the predictions are remembered; None for those of this process.
        """
        self.count()
        memory, n_counted = self._memory if of is None else of, 0
        repeated, unknown, refused = [], [], []
        for outcome in outcomes:
            prediction_id, name = outcome["prediction_id"], outcome["name"]
            prediction = memory.find(int(prediction_id.rpartition("-")[2], 16))
            if prediction is None:
                unknown.append(prediction_id)
                continue
            try:
                buckets = _buckets_of(prediction, name, outcome["value"])
                bit = _bit_of(memory, name)
            except ValueError as error:
                refused.append({"prediction_id": prediction_id, "outcome": name, "reason": f"it {error}"})
                continue
            if not memory.is_first(prediction, bit):
                repeated.append(prediction_id)
                continue
            n_counted += 1
            if labelled is not None and name == LABEL:
                labelled(buckets[0][0], prediction_id, outcome["value"], prediction.share)
            for arm, bucket in buckets:
                self.tally(arm).outcome(name, max(self._now - prediction.minute, 0), bucket)
                self._metrics.outcome_came(arm.model, arm.version, arm.route, name)
        once = tuple(dict.fromkeys(unknown))
        return Told(counted=n_counted, repeated=tuple(repeated), unknown=once, refused=tuple(refused))

    def reflected(self, shadow: LoadedModel, reflections: Sequence[Reflection]) -> None:
        """Counts what a shadow made of some requests, at least one."""
        self.count()  # what is beside them may only be put down so far
        arm = self.arm_of(shadow, Route.SHADOW)
        tally = self.tally(arm)
        errors = [one.error for one in reflections if one.error]
        answered = [one for one in reflections if not one.error]
        numbers = np.array([one.number for one in answered], dtype=np.int64)
        self._memory.keep_shadow(arm, numbers, np.array([one.answer for one in answered]))
        buckets = {
            "latency": number_buckets(np.array([one.ms for one in reflections])),
            "predictions": prediction_buckets(arm, np.array([one.counted for one in answered])),
        }
        tally.count(buckets, errors)
        for one in answered:
            if one.is_pair:
                tally.pair((EVERY_SLICE, *self._slices.counted(arm.model, one.slices)), one.flip)
        self._metrics.routed(arm.model, arm.version, arm.route, n_answered=len(answered), errors=errors)

    def windows_after(self, minute: int) -> list[Window]:
        """Returns the windows of closed minutes after one."""
        self.count()
        return [window for window in self._closed if window.key.minute > minute]

    def closed_after(self, minute: int) -> dict[str, Any]:
        """Returns, as a JSON value, the windows of closed minutes after one, and which minute was closed last.

        Told is also what share of the traffic is given to versions beside Production now.
        """
        found = self.windows_after(minute)
        self._fetched = max(self._fetched, *(window.key.minute for window in found)) if found else self._fetched
        return {
            "replica": self.replica,
            "closed": self._open - 1,
            "since": self.since,
            "whole": [whole for whole in self._whole if whole > minute],
            "windows": [window.to_json() for window in found],
            "before": [ended.told_after(minute, before=self._open) for ended in self._before or ()],
            "gives": {model: self._given(model) for model in self._live.table.loaded},
        }

    def _given(self, model: str) -> list[dict[str, Any]]:
        standing = [(route, self._live.table.beside(route).get(model)) for route in (Route.CANARY, Route.SHADOW)]
        return [
            {"route": route.value, "version": beside.loaded.version, "weight": beside.weight}
            for route, beside in standing
            if beside is not None
        ]

    def go_on_from(self, before: tuple[Ended, ...] | None) -> None:
        """Takes over what processes counted that were here before; to be called before anything is served.

        Args:
            before: All that they counted; None when something of it is lacking.
        """
        self._before = before

    def end(self) -> tuple[Ended, ...]:
        """Closes the present minute, and returns what this process and those before it counted, the newest last."""
        self.count()
        ended = self._open
        self._close_before(ended + 1)
        own = Ended(
            replica=self.replica,
            since=self.since,
            ended=ended,
            whole=tuple(self._whole),
            windows=tuple(self._closed),
        )
        return (*(self._before or ()), own)

    def _count(self, arm: Arm, minute: int, several: Sequence[Answered]) -> None:
        _, _, begun, ended, kinds, answers, counted, numbers = zip(*several, strict=True)
        errors = [kind for kind in kinds if kind]
        answered = np.array([not kind for kind in kinds])
        values = np.array(answers)[answered]
        self._memory.keep(arm, minute, np.array(numbers, dtype=np.int64)[answered], values)
        buckets = {
            "latency": number_buckets((np.array(ended) - np.array(begun)) * 1000),
            "predictions": prediction_buckets(arm, np.array(counted)[answered]),
        }
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
        if self._open > self.since or self._before is not None:
            self._whole.append(self._open)
        self._open = minute
        self._forget(minute - KEPT_MINUTES)
        served = {(arm.model, arm.version) for arm in self._arms_served()}
        self._arms = {key: arm for key, arm in self._arms.items() if key[:2] in served}

    def _forget(self, before: int) -> None:
        n_lost, gone = 0, before - 1
        while self._closed and (len(self._closed) > self._most_windows or self._closed[0].key.minute < before):
            gone = max(gone, self._closed[0].key.minute)
            n_lost += self._closed.popleft().key.minute > self._fetched
        while self._whole and self._whole[0] <= gone:
            self._whole.popleft()
        if n_lost:
            self._metrics.windows_lost(n_lost)
        if self._before:
            self._before = tuple(one.since_minute(before) for one in self._before if one.ended >= before)

    def _arms_served(self) -> Iterable[Arm]:
        table = self._live.table
        yield from (self.arm_of(loaded, Route.STABLE) for loaded in table.loaded.values())
        yield from (self.arm_of(one.loaded, Route.CANARY) for one in table.canary.values())
        yield from (self.arm_of(one.loaded, Route.SHADOW) for one in table.shadow.values())


def _buckets_of(prediction: Remembered, name: str, value: Any) -> list[tuple[Arm, int]]:
    """Returns each arm that an outcome counts for, with its bucket; raises ValueError, as `bucket_of`."""
    (arm, answer), *shadows = prediction.answers
    found = [(arm, bucket_of(arm, answer, name, value))]
    for shadow, answer in shadows if name == LABEL else ():  # nothing else comes of answers that nobody gets
        with suppress(ValueError):
            found.append((shadow, bucket_of(shadow, answer, name, value)))
    return found


def _bit_of(memory: Memory, name: str) -> int:
    bit = memory.bit_of(name)
    if bit is None:
        raise ValueError(f"is one name too many: {MOST_NAMES} are known already")
    return bit


def _by_arm(put_down: list[Answered]) -> Iterable[list[Answered]]:
    """Returns requests by version and route. What is compared is which object it is: hashing would take longer."""
    if not put_down:
        return []
    loaded, route = put_down[0][:2]
    if all(one[0] is loaded and one[1] is route for one in put_down):
        return [put_down]
    found: dict[tuple[int, int], list[Answered]] = {}
    for one in put_down:
        found.setdefault((id(one[0]), id(one[1])), []).append(one)
    return found.values()


def _by_minute(several: list[Answered], offset: float) -> Iterable[tuple[int, list[Answered]]]:
    """Returns requests by the minute in which they were answered, which mostly is one."""
    minutes = (np.array([one[3] for one in several]) + offset) // 60
    if minutes.min() == minutes.max():
        return [(int(minutes[0]), several)]
    found = np.unique(minutes).tolist()
    return [(int(minute), [several[place] for place in np.flatnonzero(minutes == minute)]) for minute in found]
