"""What the live servers are told of a move, and what each of them says to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A move of Production, or of a version beside it, with all that proves it.

    Attributes:
        model: The model's name.
        version: The version that stands in Production, or beside it.
        epoch: The epoch of the move.
        certificate: The signed certificate of the move.
        signature: The signed statement of the version's registration.
        manifest: The version's files, as JSON text.
        route: `canary` or `shadow` of a version beside Production; empty for the one in it.
        weight: The share of the requests on that route; 0 takes it away.
    """

    model: str
    version: str
    epoch: int
    certificate: str
    signature: str
    manifest: str
    route: str = ""
    weight: float = 0.0

    @property
    def done(self) -> str:
        """Says what a server does that took it."""
        if not self.route:
            return f"serves version {self.version} since epoch {self.epoch}"
        if self.weight == 0:
            return f"has version {self.version} on the route {self.route} no longer"
        return f"has version {self.version} on the route {self.route} with weight {self.weight:g}"

    def to_json(self) -> Mapping[str, Any]:
        """Returns the body that a server takes."""
        return {
            "certificate": self.certificate,
            "signature": self.signature,
            "manifest": json.loads(self.manifest),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The server does from now on as it was told."""

    url: str
    version: str
    epoch: int
    done: str = ""

    @property
    def sentence(self) -> str:
        """Says it."""
        return f"{self.url}: {self.done or f'serves version {self.version} since epoch {self.epoch}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """The server answers, but goes on as before, for a reason."""

    url: str
    reason: str

    @property
    def sentence(self) -> str:
        """Says it."""
        return f"{self.url}: goes on as before: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """The server did not answer in time."""

    url: str
    problem: str

    @property
    def sentence(self) -> str:
        """Says it."""
        return f"{self.url}: does not answer; it follows when it reaches the registry"


Outcome = Accepted | Declined | Unanswered
