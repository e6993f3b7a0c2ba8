"""Calls of each version, minute by minute: how many were answered, and how many refused, for which fault.

Answered ones are counted in the windows already; here they only stand beside the refused ones.
What clients call their inputs is no part of it: an input counts by its name only if the version has it. So a minute
of a version has at most two counts for each of its inputs, and two more.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from release_platform.domain.refusals import OTHER, Fault, Reason
from release_platform.domain.windows import Route, Window
from serving.errors import DuplicateKey, InvalidInput, MalformedBody, RequestProblem
from serving.models import LoadedModel
from serving.observations import KEPT_MINUTES

REFUSALS = (InvalidInput, MalformedBody, DuplicateKey)
"""What is wrong with a call itself, not with who sent it, when, or how large it is."""
MOST_KEPT = 10_000
"""Most counts of a version and minute that are kept."""


@dataclass(slots=True)
class _Minute:
    model: str
    version: str
    minute: int
    answered: int = 0
    refused: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.model, self.version, self.minute

    def to_json(self) -> dict[str, Any]:
        faults = [[name, reason.value, n] for (name, reason), n in sorted(self.faults.items())]
        own = {"model": self.model, "version": self.version, "minute": self.minute}
        return {**own, "answered": self.answered, "refused": self.refused, "faults": faults}


class CallCounts:
    """Counts the calls of one process, of the last hour.

    Args:
        minute: Returns the present minute.
        windows: Returns the windows of the minutes after one that are closed.
    """

    def __init__(self, minute: Callable[[], int], windows: Callable[[int], Iterable[Window]]) -> None:
        self._minute = minute
        self._windows = windows
        self._refused: deque[_Minute] = deque(maxlen=MOST_KEPT)
        self._open: dict[tuple[str, str], _Minute] = {}

    def refused(self, loaded: LoadedModel, problem: RequestProblem) -> None:
        """Counts a call that was refused, and each of its faults once."""
        now = self._now(loaded)
        now.refused += 1
        now.faults.update(faults_of(problem, {column.name for column in loaded.package.plan.inputs}))

    def closed_after(self, minute: int, closed: int) -> list[dict[str, Any]]:
        """Returns the counts of the minutes after one, up to another one that is over."""
        before = self._minute() - KEPT_MINUTES
        while self._refused and self._refused[0].minute < before:
            self._refused.popleft()
        found = {one.key: replace(one) for one in self._refused if minute < one.minute <= closed}
        for window in self._windows(minute):
            answered, of = window.requests - sum(window.errors.values()), window.key
            if answered and of.route is not Route.SHADOW and of.minute <= closed:
                one = _Minute(of.model, of.version, of.minute)
                found.setdefault(one.key, one).answered += answered
        return [one.to_json() for one in sorted(found.values(), key=lambda one: one.minute)]

    def _now(self, loaded: LoadedModel) -> _Minute:
        minute, key = self._minute(), (loaded.model, loaded.version)
        found = self._open.get(key)
        if found is None or found.minute != minute:
            found = self._open[key] = _Minute(loaded.model, loaded.version, minute)
            self._refused.append(found)
        return found


def faults_of(problem: RequestProblem, inputs: set[str]) -> set[Fault]:
    """Returns what was wrong with a call, by input.

    Args:
        problem: What its client was told.
        inputs: The names of the version's inputs.
    """
    if not isinstance(problem, InvalidInput):
        return {(OTHER, Reason.BODY)}
    found = {(name, Reason.MISSING) for name in problem.missing if name in inputs}
    if problem.field in inputs:
        return found or {(str(problem.field), Reason.VALUE)}
    return found | ({(OTHER, Reason.UNKNOWN)} if problem.field is not None or not found else set())
