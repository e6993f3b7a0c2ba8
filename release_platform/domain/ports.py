"""What the platform asks of outside systems. Adapters implement these; one contract test runs on them and fakes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from release_platform.domain.identity import Manifest
from release_platform.domain.projection import Shown
from release_platform.domain.push import Outcome, Push
from release_platform.domain.refusals import CallsOfMinute
from release_platform.domain.samples import Label, Sample
from release_platform.domain.windows import Route, Window


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Returns the present moment, in UTC, with its zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version as the registry knows it.

    Attributes:
        model: The model's name.
        version: The version's number, as text.
        digest: `D(v)`: the manifest's digest.
        manifest: All files.
        run_id: The MLflow run that trained it.
        tags: All tags of the version.
        created_at: When it was registered, in UTC.
    """

    model: str
    version: str
    digest: str
    manifest: Manifest
    run_id: str
    tags: Mapping[str, str]
    created_at: datetime


class RegistryReader(Protocol):
    """The model registry as one reads it: versions, their files, and the aliases that project the head.

    Every method raises `Unavailable` when the registry does not answer.
    """

    def models(self) -> Sequence[str]:
        """Returns the names of all models of this platform, in order."""

    def versions(self, model: str) -> Sequence[VersionRecord]:
        """Returns all versions of this platform, oldest first; none for an unknown model."""

    def get_version(self, model: str, version: str) -> VersionRecord:
        """Returns a version.

        Raises:
            NotFound: There is none of that number.
            IntegrityError: It was not registered by this platform, or its manifest was edited.
        """

    def shown(self, model: str) -> Shown:
        """Returns all aliases and all tags of a model as they are, unchecked; empty for an unknown model."""

    def find_alias(self, model: str, alias: str) -> str | None:
        """Returns the number of the version that an alias points to, or None."""

    def fetch(self, model: str, version: str, folder: Path) -> VersionRecord:
        """Downloads the files of a version into an empty folder, at the paths of its manifest; checks nothing.

        Raises:
            NotFound: There is no such version.
            IntegrityError: A file is gone.
        """


class Registry(RegistryReader, Protocol):
    """The model registry, to be written to as well."""

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Points an alias to a version, or removes it. Does nothing when it already is so."""

    def set_tag(self, model: str, version: str, name: str, value: str) -> None:
        """Sets a tag of a version.

        Raises:
            NotFound: There is no such version.
        """

    def remove(self, model: str, version: str) -> None:
        """Deletes a version and its files for good; does nothing when it is gone. Asks nobody whether it is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A share of the traffic, 0 to 1, that a version has beside the one in Production."""

    route: Route
    version: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedIn:
    """What one process of a server hands in of its live traffic.

    Attributes:
        url: The server's address.
        replica: The process's name, which no other and no earlier one has.
        since: The minute in which it began to count.
        whole: The minutes that are over and that it counted from beginning to end; none of a server that does not say.
        windows: The windows of minutes that are over, of every model; what was told once never changes.
        problem: Why nothing is handed in; empty when something is.
        ended: The minute in which the process ended, after which it owes nothing; None while it goes on.
        gives: What it gives now to versions beside Production, of each model that it serves, by its name.
    """

    url: str
    replica: str = ""
    since: int = 0
    ended: int | None = None
    whole: Collection[int] = ()
    windows: Sequence[Window] = ()
    gives: Mapping[str, Collection[Given]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedSamples:
    """What a server hands in of its sample of answered requests.

    Attributes:
        url: The server's address.
        closed: The last minute, since 1970, of which all was told; None when that is not known.
        samples: Those of minutes that are over, of every model; what was told once never changes.
        labels: The labels that came in minutes that are over, of predictions of the sample; likewise.
        calls: How many calls came in minutes that are over, and were refused; likewise.
        more: Whether it has more of minutes after `closed` that are over: it does not tell too much at once.
        problem: Why not all is handed in; empty when all is.
    """

    url: str
    closed: int | None = None
    samples: Sequence[Sample] = ()
    labels: Sequence[Label] = ()
    calls: Sequence[CallsOfMinute] = ()
    more: bool = False
    problem: str = ""


class Servers(Protocol):
    """The live servers."""

    def windows(self, after: int) -> Sequence[HandedIn]:
        """Asks each server, all at once, for what it counted in the minutes after one, and returns it in their order.

        What does not answer is told of in what is returned; it holds up the others for some seconds at most.
        """

    def samples(self, after: Mapping[str, int], *, of: Collection[str] | None = None) -> Sequence[HandedSamples]:
        """Asks each server, all at once, for its sample of the minutes after one, and returns it in their order.

        What does not answer is told of in what is returned; it holds up the others for some seconds at most.

        Args:
            after: The minute by the server's address; a server that is not named tells from the first that it has.
            of: The addresses of those that are asked; None for all.
        """

    def push(self, push: Push) -> Sequence[Outcome]:
        """Tells each server of a move of Production, all at once, and returns what each says, in their order.

        A server that does not answer is an outcome too; it holds up the others for some seconds at most.
        """
