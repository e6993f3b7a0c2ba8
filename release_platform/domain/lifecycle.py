"""Where the versions of a model stand, and the only ways to move them.

```
registered --Staged--> staging --Promoted--> production --Promoted(next)--> previous --RolledBack--> production
                          |  CanarySet, ShadowSet        ^
                          +-----> canary, shadow --Promoted
```

`canary` and `shadow` are shares of the traffic of one version beside Production; a weight of 0 takes them away, and so
does every move of Production.

The state is a frozen `Head`; `advance` is the one transition function. `previous` is a stack: a promotion pushes the
version that it replaces, a rollback to it takes everything above it off again, and one to a version that is not on it
pushes what it replaces. `ever` lists what was in Production at any time: only those may a rollback bring back.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, assert_never

from release_platform.domain.errors import Refused


class Alias(StrEnum):
    """The registry aliases that project a head."""

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
    CANARY_SET = "canary_set"
    SHADOW_SET = "shadow_set"

    @property
    def weighted(self) -> bool:
        """Whether it sets a share of the traffic."""
        return self in {Move.CANARY_SET, Move.SHADOW_SET}

    def forward(self, weight: float | None) -> bool:
        """Whether it brings a version traffic that was not in Production before: what needs approval."""
        return self is Move.PROMOTED or (self.weighted and weight != 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A version that is asked beside the one in Production, and of how much of the traffic: above 0, up to 1."""

    version: str
    weight: float

    def __post_init__(self) -> None:
        if not isinstance(self.version, str) or type(self.weight) is not float or not 0 < self.weight <= 1:
            raise ValueError(
                f"a share of the traffic is above 0 and up to 1, and of a version; not {self.weight!r:.40}"
            )


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
        canary: The version that answers some of the requests in Production's place; None: there is none.
        shadow: The version that is asked too, and whose answers reach no client; None: there is none.
    """

    model: str
    epoch: int = 0
    staging: str | None = None
    production: str | None = None
    previous: tuple[str, ...] = ()
    ever: tuple[str, ...] = ()
    canary: Share | None = None
    shadow: Share | None = None

    @property
    def aliases(self) -> dict[Alias, str | None]:
        """What each registry alias must point to; None: it must not exist."""
        return {
            Alias.STAGING: self.staging,
            Alias.PRODUCTION: self.production,
            Alias.PREVIOUS: self.previous[-1] if self.previous else None,
            Alias.CANARY: self.canary.version if self.canary else None,
            Alias.SHADOW: self.shadow.version if self.shadow else None,
        }

    @property
    def beside(self) -> frozenset[str]:
        """The versions that are asked beside the one in Production: one at most."""
        return frozenset(share.version for share in (self.canary, self.shadow) if share is not None)

    @property
    def reachable(self) -> frozenset[str]:
        """The versions that nothing may delete."""
        standing = (*self.aliases.values(), *self.previous, *self.ever)
        return frozenset(version for version in standing if version is not None)

    def to_json(self) -> dict[str, Any]:
        """Returns the head as a JSON value; a canary or shadow that there is not, is left out."""
        shares = {Alias.CANARY.value: self.canary, Alias.SHADOW.value: self.shadow}
        return {
            "model": self.model,
            "epoch": self.epoch,
            "staging": self.staging,
            "production": self.production,
            "previous": list(self.previous),
            "ever": list(self.ever),
            **{name: asdict(share) for name, share in shares.items() if share is not None},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Head":
        """Returns the head that `to_json` wrote.

        Raises:
            ValueError: It is no such head; so do KeyError and TypeError.
        """
        shares = {name: Share(**value[name]) for name in (Alias.CANARY.value, Alias.SHADOW.value) if name in value}
        head = Head(**{**value, "previous": tuple(value["previous"]), "ever": tuple(value["ever"]), **shares})
        versions = (head.staging, head.production, *head.previous, *head.ever)
        if not isinstance(head.epoch, int) or not all(isinstance(version, str | None) for version in versions):
            raise ValueError("the epoch is no number, or a version no text")
        return head


def advance(head: Head, move: Move, version: str, weight: float | None = None) -> Head:
    """Returns the head after one transition.

    Args:
        head: The head before.
        move: What happens.
        version: The version that moves.
        weight: Of `canary_set` and `shadow_set`, the share of the traffic, 0 to 1; 0 takes it away.

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
        case Move.CANARY_SET | Move.SHADOW_SET:
            if weight is None:
                raise Refused(f"{head.model}: {move} says no share of the traffic", remedy="give one, 0 to 1")
            return _shared(head, moved, move, version, weight)
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
        canary=None,
        shadow=None,
    )


def _rolled_back(head: Head, moved: Head, version: str) -> Head:
    moved = replace(moved, canary=None, shadow=None)
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


def _shared(head: Head, moved: Head, move: Move, version: str, weight: float) -> Head:
    is_canary = move is Move.CANARY_SET
    problem = _share_problem(head, "canary" if is_canary else "shadow", version, weight)
    if problem:
        raise Refused(f"{head.model}: {problem}", remedy=f"look at `release status {head.model}`, then decide again")
    share = Share(version=version, weight=float(weight)) if weight else None
    return replace(moved, canary=share) if is_canary else replace(moved, shadow=share)


def _share_problem(head: Head, route: str, version: str, weight: float) -> str:
    """Returns why a share of the traffic cannot be set, or nothing."""
    present = head.canary if route == "canary" else head.shadow
    others = head.beside - {version}
    if not 0 <= weight <= 1:
        return f"a share of the traffic is 0 to 1, not {weight}"
    if weight == 0:
        return "" if present is not None and present.version == version else f"version {version} is no {route}"
    if head.production in {None, version}:
        return f"version {version} would be {route} beside version {head.production} in Production"
    if others:
        return f"version {min(others)} is asked beside Production already"
    if present is not None and present.weight == weight:
        return f"version {version} has this share of the {route} traffic already"
    return ""


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
