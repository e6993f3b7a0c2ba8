"""Of which minutes all was handed in that the live servers counted.

Whoever is seen in a minute owes it: each server that there should be, and each of its processes. It is paid when the
minute is told, counted from beginning to end. What is still owed when the minute is judged makes it a hole:

```
there is a server    --minute over--> it and all its processes answer --> told
it does not answer, one of its processes does not                     --> a hole, unless it does before the judge looks
a process ends before it told all, or began in that minute            --> a hole
  but one that ends in good order hands over to the next in its place --> told, by that one, and that one's first minute
a process gives the version another share than that of the stage      --> a hole, unless it does before the judge looks
a server that is not among them any more, or a new one                --> a hole in the minutes of the change only
```
A process that is seen just before a minute owes that one too: it may end before anybody asks again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from release_platform.domain.ports import Given, HandedIn

SEEN_AGAIN_S = 10
"""Who is seen may count for so long before it is asked again."""

Holes = Mapping[int, Sequence[str]]
"""The minutes, since 1970, of which not all was handed in, with who owes it; nobody where nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What a server, or one of its processes, owes of a minute.

    Attributes:
        minute: The minute, since 1970.
        url: The server's address.
        replica: The process's name; empty for the server itself, that all its processes were asked.
        told: Whether it was handed in.
    """

    minute: int
    url: str
    replica: str = ""
    told: bool


def owed_by(
    handed: Sequence[HandedIn], model: str, share: Given, *, after: int, last: int, at: datetime
) -> tuple[Owed, ...]:
    """Returns what was told of the minutes after one, up to the last that is over, and what is owed of the next.

    Args:
        handed: What each server that there is handed in, or why it did not.
        model: The model whose minutes they are.
        share: What every process that serves the model should give now.
        after: The minute before the first that is asked for.
        last: The last minute that is over.
        at: When they were asked.
    """
    over, seconds = range(after + 1, last + 1), at.timestamp()
    now = range(int(seconds // 60), int((seconds + SEEN_AGAIN_S) // 60) + 1)
    silent = {one.url for one in handed if one.problem}
    found = []
    for url in dict.fromkeys(one.url for one in handed):
        found += [Owed(minute=minute, url=url, told=url not in silent) for minute in over]
        found += [Owed(minute=minute, url=url, told=False) for minute in now]
    for one in (one for one in handed if one.replica):
        of = {"url": one.url, "replica": one.replica}
        if one.ended is None:
            gives = share in one.gives.get(model, (share,))
            found += [Owed(minute=m, told=gives and m in one.whole, **of) for m in over if m >= one.since]
            found += [Owed(minute=m, told=False, **of) for m in now if m >= one.since]  # it may be younger than `at`
        else:  # it may have been seen just before the minute after
            until = one.ended + 1
            found += [Owed(minute=m, told=m in {*one.whole, until}, **of) for m in over if one.since <= m <= until]
    return tuple(found)


def holes_in(period: range, owed: Iterable[Owed]) -> Holes:
    """Returns the holes among some minutes, from all that is owed of them."""
    asked: dict[int, bool] = {}
    lacking: dict[int, set[str]] = {}
    for one in owed:
        asked[one.minute] = True
        if not one.told:
            lacking.setdefault(one.minute, set()).add(one.url)
    return {m: sorted(lacking.get(m, ())) for m in period if m not in asked or m in lacking}
