"""What the registry must show of a model, and where it does not.

Head and ledger say where each alias points and who moved it there; the release store kept the tags that each version
was registered with. The registry only shows both, and anyone who reaches it can change what it shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from release_platform.domain.lifecycle import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a registry shows of one model.

    Attributes:
        aliases: The version that each alias points to.
        tags: The tags of each version that there is, by its number.
    """

    aliases: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]


class What(StrEnum):
    """What of a model is not shown as it must be."""

    ALIAS = "alias"
    VERSION = "version"
    TAG = "tag"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One thing that the registry shows otherwise than it must.

    Attributes:
        what: What it is.
        name: The alias, or the tag; empty for a version that is gone.
        version: The version: for an alias, the one that it should point to.
        wanted: What must be shown; None: nothing.
        found: What is shown; None: nothing.
    """

    what: What
    name: str
    version: str | None
    wanted: str | None
    found: str | None

    @property
    def sentence(self) -> str:
        """Says it."""
        match self.what:
            case What.ALIAS:
                return f"alias {self.name} is {_said(self.found)}, the head says {_said(self.wanted)}"
            case What.VERSION:
                return f"version {self.version} was deleted from the registry"
            case What.CERTIFICATE:
                return f"the certificate of version {self.version} for its move to {self.name} is absent or wrong"
            case _:
                done = "removed" if self.found is None else "edited"
                return f"tag {self.name} of version {self.version} was {done}"


def deviations(head: Head, recorded: Mapping[str, Mapping[str, str]], shown: Shown) -> tuple[Deviation, ...]:
    """Returns what a registry shows otherwise than it must, certificates apart: those need keys.

    Args:
        head: Where the versions stand.
        recorded: The tags of each registered version that was not removed; none where they were not kept.
        shown: What the registry shows.
    """
    found = [
        Deviation(what=What.ALIAS, name=alias, version=version, wanted=version, found=shown.aliases.get(alias))
        for alias, version in head.aliases.items()
        if shown.aliases.get(alias) != version
    ]
    for version, tags in recorded.items():
        if version not in shown.tags:
            found.append(Deviation(what=What.VERSION, name="", version=version, wanted=version, found=None))
            continue
        seen = shown.tags[version]
        found += [
            Deviation(what=What.TAG, name=name, version=version, wanted=value, found=seen.get(name))
            for name, value in tags.items()
            if seen.get(name) != value
        ]
    return tuple(found)


def _said(version: str | None) -> str:
    return "absent" if version is None else f"version {version}"
