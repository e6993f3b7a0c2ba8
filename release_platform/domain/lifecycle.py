"""Where the versions of a model stand, and the only ways to move them.

```
registered --Staged--> staging --Promoted--> production --Promoted(next)--> previous --RolledBack--> production
```

The state is a frozen `Head`; `advance` is the one transition function. `previous` is a stack: a promotion pushes the
version that it replaces, a rollback to it takes everything above it off again, and one to a version that is not on it
pushes what it replaces. `ever` lists what was in Production at any time: only those may a rollback bring back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, assert_never

from release_platform.domain.errors import Refused


class Alias(StrEnum):
    """The registry aliases; the first three project a head, the others the share of traffic beside Production."""

    STAGING = "staging"
    PRODUCTION = "production"
    PREVIOUS = "previous"
    CANARY = "canary"
    SHADOW = "shadow"


class Move(StrEnum):
    """The kinds of transition."""

    STAGED = "staged"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the versions of one model stand after `epoch` transitions.

    Attributes:
        model: The model's name.
        epoch: Number of transitions so far, 0 and up.
        staging: The version in Staging.
        production: The version in Production.
        previous: Former Production versions that a rollback takes next, the last one first in line.
        ever: Every version that was in Production, in order of their first promotion.
    """

    model: str
    epoch: int = 0
    staging: str | None = None
    production: str | None = None
    previous: tuple[str, ...] = ()
    ever: tuple[str, ...] = ()

    @property
    def aliases(self) -> dict[Alias, str | None]:
        """What each registry alias must point to; None: it must not exist."""
        return {
            Alias.STAGING: self.staging,
            Alias.PRODUCTION: self.production,
            Alias.PREVIOUS: self.previous[-1] if self.previous else None,
        }

    @property
    def reachable(self) -> frozenset[str]:
        """The versions that nothing may delete."""
        standing = (self.staging, self.production, *self.previous, *self.ever)
        return frozenset(version for version in standing if version is not None)

    def to_json(self) -> dict[str, Any]:
        """Returns the head as a JSON value."""
        return {
            "model": self.model,
            "epoch": self.epoch,
            "staging": self.staging,
            "production": self.production,
            "previous": list(self.previous),
            "ever": list(self.ever),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Head":
        """Returns the head that `to_json` wrote.

        Raises:
            ValueError: It is no such head; so do KeyError and TypeError.
        """
        head = Head(**{**value, "previous": tuple(value["previous"]), "ever": tuple(value["ever"])})
        versions = (head.staging, head.production, *head.previous, *head.ever)
        if not isinstance(head.epoch, int) or not all(isinstance(version, str | None) for version in versions):
            raise ValueError("the epoch is no number, or a version no text")
        return head


def advance(head: Head, move: Move, version: str) -> Head:
    """Returns the head after one transition.

    Raises:
        Refused: The move makes no sense from this head; says why.
    """
    moved = replace(head, epoch=head.epoch + 1)
    match move:
        case Move.STAGED:
            return _staged(head, moved, version)
        case Move.PROMOTED:
            return _promoted(head, moved, version)
        case Move.ROLLED_BACK:
            return _rolled_back(head, moved, version)
        case _:
            assert_never(move)


def _staged(head: Head, moved: Head, version: str) -> Head:
    if version in {head.staging, head.production}:
        where = "Staging" if version == head.staging else "Production"
        raise Refused(f"{head.model}: version {version} already is in {where}", remedy="nothing is to be done")
    return replace(moved, staging=version)


def _promoted(head: Head, moved: Head, version: str) -> Head:
    if version == head.production:
        raise Refused(
            f"{head.model}: version {version} already is in Production",
            remedy=f"choose another version; `release status {head.model}` lists where each stands",
        )
    return replace(
        moved,
        staging=None if head.staging == version else head.staging,
        production=version,
        previous=head.previous if head.production is None else (*head.previous, head.production),
        ever=head.ever if version in head.ever else (*head.ever, version),
    )


def _rolled_back(head: Head, moved: Head, version: str) -> Head:
    if version == head.production:
        raise Refused(
            f"{head.model}: version {version} is in Production now", remedy="choose a former Production version"
        )
    if version not in head.ever:
        known = ", ".join(head.ever) or "none"
        raise Refused(
            f"{head.model}: version {version} never was in Production",
            remedy=f"a rollback goes to a former Production version (known: {known}); anything else is a promotion",
        )
    if version in head.previous:
        below = len(head.previous) - 1 - head.previous[::-1].index(version)
        return replace(moved, production=version, previous=head.previous[:below])
    replaced = () if head.production is None else (head.production,)
    return replace(moved, production=version, previous=(*head.previous, *replaced))


def rollback_target(head: Head) -> str:
    """Returns the version that a plain rollback goes to: the one before the present one.

    Raises:
        Refused: There is none.
    """
    if not head.previous:
        raise Refused(
            f"{head.model}: there is no previous Production version",
            remedy=f"name a former Production version with --to (known: {', '.join(head.ever) or 'none'})",
        )
    return head.previous[-1]
