"""The one place where the profiles differ: where each keeps what no setting names.

| profile | databases | artefacts and snapshots | who starts the servers |
|---|---|---|---|
| `embedded` | SQLite | files | nobody: there are none |
| `local` | PostgreSQL | S3 | `release dev`, as processes of this machine |
| `stack` | as the settings say | as the settings say | the container stack |
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from release_platform.domain.errors import Refused, Unavailable

SERVERS = "servers.json"
"""The file in which `release dev` says, while it runs, where the servers of the profile `local` are."""

_DAGSTER_ON_POSTGRES = """
storage:
  postgres:
    postgres_url:
      env: DAGSTER_POSTGRES_URL
"""


class Profile(StrEnum):
    """Which outside systems the platform works with."""

    EMBEDDED = "embedded"
    LOCAL = "local"
    STACK = "stack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a profile keeps what no setting names; an empty text stands for what must be named.

    Attributes:
        tracking_uri: MLflow's tracking and registry.
        store_url: The SQLAlchemy URL of the release store.
        snapshots: Folder or `s3://bucket/prefix` of data snapshots.
        artifact_root: Where an MLflow without a server keeps artefacts; None when a server decides.
        environment: Variables that the clients of the servers read.
    """

    tracking_uri: str = ""
    store_url: str = ""
    snapshots: str = ""
    artifact_root: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def root_of(profile: Profile, home: Path) -> Path:
    """Returns the folder of a profile; the data of `local` is never mixed with that of `embedded`."""
    return home.resolve() / "local" if profile is Profile.LOCAL else home.resolve()


def places_of(profile: Profile, root: Path) -> Places:
    """Returns where a profile keeps things.

    Raises:
        Unavailable: The servers of the profile `local` do not run.
    """
    match profile:
        case Profile.EMBEDDED:
            return Places(
                tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
                store_url=f"sqlite:///{root / 'release.db'}",
                snapshots=str(root / "snapshots"),
                artifact_root=(root / "artifacts").as_uri(),
            )
        case Profile.LOCAL:
            return _running(root / SERVERS)
        case Profile.STACK:
            return Places()
        case _:
            assert_never(profile)


def written(places: Places) -> bytes:
    """Returns the content of `servers.json`. It names keys of the servers, so only its owner may read it."""
    return json.dumps(asdict(places), indent=2).encode()


def described(profile: Profile, root: Path) -> str:
    """Returns the profile in a sentence, for people."""
    kept = {
        Profile.EMBEDDED: f"SQLite and files in {root}",
        Profile.LOCAL: f"PostgreSQL and S3 as processes of this machine, their data in {root}",
        Profile.STACK: "servers as the settings name them",
    }
    return f"profile {profile}: {kept[profile]}"


def dagster_storage(profile: Profile) -> str:
    """Returns what a profile adds to Dagster's `dagster.yaml`; without it Dagster keeps SQLite files."""
    return _DAGSTER_ON_POSTGRES if profile is Profile.LOCAL else ""


def require(profile: Profile, given: Mapping[str, bool]) -> None:
    """Refuses to start a stack whose settings are not complete; it would quietly write files in a container.

    Args:
        profile: The profile.
        given: Whether each variable that a stack needs is set, by its name.

    Raises:
        Refused: Some are not set; names them.
    """
    missing = [name for name, there in given.items() if not there]
    if profile is Profile.STACK and missing:
        raise unset(*missing)


def unset(*variables: str) -> Refused:
    """Returns the failure that the profile `stack` misses variables."""
    listed, verb = ", ".join(variables), "are" if len(variables) > 1 else "is"
    return Refused(
        f"{listed} {verb} not set, as RELEASE_PROFILE=stack needs",
        remedy=f"set {listed}, as docker-compose.yml does, or use RELEASE_PROFILE=embedded",
    )


def _running(file: Path) -> Places:
    try:
        return Places(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        raise Unavailable(
            "RELEASE_PROFILE=local needs its servers, and they do not run",
            remedy="start them with `RELEASE_PROFILE=local release dev`, and leave it running",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(
            f"{file} cannot be read ({type(error).__name__})", remedy="stop and start `release dev`; it writes it anew"
        ) from None
