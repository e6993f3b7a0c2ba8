"""Calls of each version, minute by minute: how many were answered, and how many refused, for which fault.

What clients call their inputs is no part of it: an input counts by its name only if the version has it. So a minute
of a version has at most two counts for each of its inputs, and two more.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from release_platform.domain.refusals import OTHER, Fault, Reason
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

    def to_json(self) -> dict[str, Any]:
        faults = [[name, reason.value, n] for (name, reason), n in sorted(self.faults.items())]
        own = {"model": self.model, "version": self.version, "minute": self.minute}
        return {**own, "answered": self.answered, "refused": self.refused, "faults": faults}


class CallCounts:
    """Counts the calls of one process, of the last hour.

    Args:
        minute: Returns the present minute.
    """

    def __init__(self, minute: Callable[[], int]) -> None:
        self._minute = minute
        self._kept: deque[_Minute] = deque(maxlen=MOST_KEPT)
        self._open: dict[tuple[str, str], _Minute] = {}

    def answered(self, loaded: LoadedModel) -> None:
        """Counts a call that was answered."""
        self._now(loaded).answered += 1

    def refused(self, loaded: LoadedModel, problem: RequestProblem) -> None:
        """Counts a call that was refused, and each of its faults once."""
        now = self._now(loaded)
        now.refused += 1
        now.faults.update(faults_of(problem, {column.name for column in loaded.package.plan.inputs}))

    def closed_after(self, minute: int, closed: int) -> list[dict[str, Any]]:
        """Returns the counts of the minutes after one, up to another one that is over."""
        before = self._minute() - KEPT_MINUTES
        while self._kept and self._kept[0].minute < before:
            self._kept.popleft()
        return [one.to_json() for one in self._kept if minute < one.minute <= closed]

    def _now(self, loaded: LoadedModel) -> _Minute:
        minute, key = self._minute(), (loaded.model, loaded.version)
        found = self._open.get(key)
        if found is None or found.minute != minute:
            found = self._open[key] = _Minute(loaded.model, loaded.version, minute)
            self._kept.append(found)
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
