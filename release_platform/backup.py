"""Backups: all that a platform keeps, of one moment, with the digest of every file; and its way back.

Nobody can move, register or ask while the databases are copied, so what release store, MLflow and Dagster say fits
together: a backup is what a crash at that moment would have left. Files come after: what a version consists of is never
changed, and was there before the version was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from release_platform.adapters.database_copies import PostgresCopy, SqliteCopy
from release_platform.adapters.file_copies import FolderCopy, S3Copy
from release_platform.adapters.store_database import held, store_url
from release_platform.domain.errors import IntegrityError, Refused, Unavailable
from release_platform.domain.identity import PREFIX, FileEntry
from release_platform.domain.ports import Clock
from release_platform.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
RECORDS = ("release", "mlflow", "dagster", "keys", "api-keys")
"""What is copied while nobody can write to the release store."""

Tell = Callable[[str], None]


class Kept(Protocol):
    """A part of what a platform keeps.

    Attributes:
        kind: What holds it; a backup goes back into the same kind only.
        address: Where it is, without a password.
    """

    kind: str
    address: str

    def is_empty(self) -> bool:
        """Returns whether nothing is there."""

    def save(self, folder: Path) -> None:
        """Puts a copy into an empty folder."""

    def load(self, folder: Path) -> None:
        """Takes what such a folder has in the place of what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a backup holds.

    Attributes:
        made_at: When it was made, ISO 8601.
        home: The folder of the platform; records name files in it by their whole path.
        kinds: What held each part.
        ledger: Epoch and hash of the last row of each model's ledger.
        files: Every file, below the backup's folder.
    """

    made_at: str
    home: str
    kinds: Mapping[str, str]
    ledger: Mapping[str, tuple[int, str]]
    files: tuple[FileEntry, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Contents":
        """Returns what such a JSON value says.

        Raises:
            ValueError, KeyError, TypeError: It is none.
        """
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']}, not {FORMAT}")
        return cls(
            made_at=value["made_at"],
            home=value["home"],
            kinds=dict(value["kinds"]),
            ledger={model: (int(epoch), str(row)) for model, (epoch, row) in value["ledger"].items()},
            files=tuple(FileEntry(**entry) for entry in value["files"]),
        )


def holdings(settings: Settings, environment: Mapping[str, str]) -> dict[str, Kept]:
    """Returns all that a platform keeps, by name.

    Of an MLflow server the environment must say where it keeps its records and files, as it does for that server:
    MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION.

    Raises:
        Refused: It does not.
    """
    mlflow = environment.get("MLFLOW_BACKEND_STORE_URI") or settings.tracking_uri
    artifacts = environment.get("MLFLOW_ARTIFACTS_DESTINATION") or settings.artifact_root
    if mlflow.startswith("http") or artifacts is None:
        raise Refused(
            "MLflow's records and files are behind its server",
            remedy="set MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION as they are set for the server",
        )
    found = {
        "release": kept_at(settings.release_store_url),
        "mlflow": kept_at(mlflow),
        "dagster": kept_at(environment.get("DAGSTER_POSTGRES_URL") or str(settings.dagster_home)),
        "keys": kept_at(str(settings.key_folder)),
        "artifacts": kept_at(artifacts),
        "snapshots": kept_at(settings.snapshot_root),
    }
    if not settings.known_keys.is_relative_to(settings.key_folder):
        found["api-keys"] = kept_at(str(settings.known_keys.parent))
    return found


def kept_at(address: str) -> Kept:
    """Returns what is kept at the address of a database, a bucket or a folder."""
    if address.startswith("s3://"):
        from release_platform.adapters.bucket import s3_client

        return S3Copy(address, s3_client())
    if address.startswith(("sqlite:", "postgresql")):
        url = store_url(address)
        return PostgresCopy(url) if url.get_backend_name() == "postgresql" else SqliteCopy(Path(str(url.database)))
    return FolderCopy(Path(unquote(urlsplit(address).path) if address.startswith("file:") else address).absolute())


def save(parts: Mapping[str, Kept], settings: Settings, folder: Path, clock: Clock, tell: Tell) -> Contents:
    """Puts a backup of all parts into an empty folder, and returns what it holds.

    Raises:
        Unavailable: A part does not answer, or there is no room.
        Refused: A part may not be copied.
    """

    def save_part(name: str) -> None:
        tell(f"{name}: {parts[name].address}")
        (folder / name).mkdir()
        parts[name].save(folder / name)

    with written_to(folder):
        folder.mkdir(exist_ok=True)
        with held(store_url(settings.release_store_url)) as ends:
            for name in parts:
                if name in RECORDS:
                    save_part(name)
        for name in parts:
            if name not in RECORDS:
                save_part(name)
        contents = Contents(
            made_at=clock.now().isoformat(),
            home=str(settings.root),
            kinds={name: part.kind for name, part in parts.items()},
            ledger=ends,
            files=_entries(folder),
        )
        (folder / MANIFEST).write_text(json.dumps(contents.to_json(), indent=1))
    return contents


def check(folder: Path) -> Contents:
    """Returns what the backup in a folder holds, after every file was compared with its digest.

    Raises:
        IntegrityError: It is none, or a file is damaged, missing or added.
    """
    try:
        contents = Contents.from_json(json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"its manifest cannot be read: {error}") from None
    wanted, found = ({entry.path: entry for entry in files} for files in (contents.files, _entries(folder)))
    for path in sorted({*wanted} | {*found}):
        if path not in found:
            raise _damaged(f"the file {path} is missing")
        if path not in wanted:
            raise _damaged(f"the file {path} does not belong to it")
        if wanted[path] != found[path]:
            raise _damaged(f"the file {path} is damaged")
    return contents


def load(parts: Mapping[str, Kept], settings: Settings, folder: Path, *, overwrite: bool, tell: Tell) -> Contents:
    """Takes what the backup in a folder holds in the place of what the platform keeps, and returns what that is.

    All of it is checked before anything is touched. When it fails half-way, do it again with `overwrite`.

    Args:
        parts: What the platform keeps.
        settings: Where the platform is.
        folder: A backup.
        overwrite: Whether what is there now may be lost.
        tell: Is told each part.

    Raises:
        IntegrityError: The backup is damaged, or the ledger does not end afterwards as it says.
        Refused: It is one of another kind of platform, or there is something already.
        Unavailable: A part does not answer, or there is no room.
    """
    contents = check(folder)
    kinds = {name: part.kind for name, part in parts.items()}
    if kinds != dict(contents.kinds):
        raise Refused(
            f"the backup is of {_listed(contents.kinds)}, but this platform keeps {_listed(kinds)}",
            remedy="use the settings of the platform that it was made of",
        )
    if {"folder", "sqlite"} & {kinds["mlflow"], kinds["artifacts"]} and contents.home != str(settings.root):
        raise Refused(
            f"the backup is of {contents.home}, which its records name, not of {settings.root}",
            remedy=f"restore it with RELEASE_HOME={contents.home}; the folder may be moved there",
        )
    full = [f"{name} ({part.address})" for name, part in parts.items() if not part.is_empty()]
    if full and not overwrite:
        raise Refused(
            f"there is something already in {', '.join(full)}",
            remedy="stop the servers, make a backup of it, then restore with --overwrite (make: OVERWRITE=1)",
        )
    with written_to(folder):
        for name, part in parts.items():
            tell(f"{name}: {part.address}")
            part.load(folder / name)
    with held(store_url(settings.release_store_url)) as ends:
        if ends != contents.ledger:
            raise IntegrityError(
                f"the ledger ends with {ends}, but the backup says {dict(contents.ledger)}",
                remedy="did somebody write meanwhile? Stop the servers; restore with --overwrite (make: OVERWRITE=1)",
            )
    return contents


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return tuple(
        FileEntry(path=str(path.relative_to(folder)), size_bytes=path.stat().st_size, sha256=_digest_of(path))
        for path in found
    )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def _listed(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} in {kind}" for name, kind in kinds.items())


def _damaged(problem: str) -> IntegrityError:
    return IntegrityError(f"the backup cannot be used: {problem}", remedy="use another one; nothing was changed")


@contextmanager
def written_to(place: Path) -> Iterator[None]:
    """Says in the platform's words that files could not be written.

    Raises:
        Unavailable: They could not.
    """
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{error.filename or place}: {error.strerror or error}",
            remedy=f"is there room left, in {place} too, and may this user write there? Then do it again",
        ) from error
