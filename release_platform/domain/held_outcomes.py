"""Outcomes that a server was told of another one's predictions, and what becomes of them when all servers are asked.

```
told the wrong server --> held there --> offered to every server --> one knows the prediction: carried
                                                                '--> all answer, none does, for two minutes: unknown
                                                                '--> one does not answer: offered again
```
A server forgets after an hour what it holds. To offer one twice does no harm: a server counts it once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from release_platform.domain.json_form import exactly

UNKNOWN_AFTER_S = 120.0
"""Seconds for which one that no server knows is offered: a server that restarts may know it then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutcome:
    """An outcome that waits on a server which does not know its prediction.

    Attributes:
        prediction_id: The prediction.
        name: What the outcome is called.
        value: The outcome.
        age_s: Seconds since it was told.
    """

    prediction_id: str
    name: str
    value: str | int | float
    age_s: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """What it is called by: there is one of a name for each prediction."""
        return self.prediction_id, self.name

    @staticmethod
    def from_json(value: object) -> "HeldOutcome":
        """Returns the outcome that a server tells.

        Raises:
            ValueError: It is none.
        """
        kinds = (str, int, float, bool)
        of = exactly(value, "outcome", prediction_id=str, name=str, outcome=kinds, age_s=(int, float))
        return HeldOutcome(prediction_id=of["prediction_id"], name=of["name"], value=of["outcome"], age_s=of["age_s"])

    def to_json(self) -> dict[str, Any]:
        """Returns it as it is told a server."""
        return {"prediction_id": self.prediction_id, self.name: self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOutcomes:
    """What a server holds for others.

    Attributes:
        url: The server's address.
        outcomes: Some of it, what was offered longest ago.
        problem: Why nothing is handed in; empty when something is, or nothing is held.
    """

    url: str
    outcomes: Sequence[HeldOutcome] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a server said to outcomes that it was offered.

    Attributes:
        url: The server's address.
        unknown: The predictions that it does not know.
        unanswered: Those of a process of it that did not answer, or that were not asked of it in the end.
        problem: Why some are unanswered; empty when all are answered.
    """

    url: str
    unknown: Collection[str] = frozenset()
    unanswered: Collection[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of outcomes that were held.

    Attributes:
        carried: Those whose prediction a server knows.
        unknown: Those that no server knows.
    """

    carried: Sequence[HeldOutcome] = ()
    unknown: Sequence[HeldOutcome] = ()


def settle(held: Sequence[HeldOutcome], offered: Sequence[Offered]) -> Settled:
    """Returns what became of outcomes; those that are in neither list are to be offered again.

    Args:
        held: The outcomes.
        offered: What each server that there is said.
    """
    carried, unknown = [], []
    for one in held:
        denied = [one.prediction_id in server.unknown for server in offered]
        silent = [one.prediction_id in server.unanswered for server in offered]
        if not all(no or nothing for no, nothing in zip(denied, silent, strict=True)):
            carried.append(one)
        elif denied and all(denied) and one.age_s >= UNKNOWN_AFTER_S:
            unknown.append(one)
    return Settled(carried=carried, unknown=unknown)


class OutcomeServers(Protocol):
    """The live servers, as far as outcomes go from one to another. Each call asks all of them at once."""

    def held_outcomes(self) -> Sequence[HandedOutcomes]:
        """Returns what each server holds for others, or some of it."""

    def offer_outcomes(self, outcomes: Sequence[HeldOutcome]) -> Sequence[Offered]:
        """Tells each server some outcomes, and returns what each says, in their order."""

    def settle_outcomes(self, url: str, settled: Settled) -> str:
        """Tells a server what became of what it holds; returns why that did not go, empty when it did."""
