"""Copies of files for backups: of a folder, and of what lies behind a prefix of an S3 bucket."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from release_platform.adapters.bucket import s3_errors
from release_platform.adapters.database_copies import copy_sqlite
from release_platform.domain.errors import IntegrityError

_INDEX = "index.json"
_SQLITE = b"SQLite format 3\x00"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")


class FolderCopy:
    """The regular files of a folder that are to be kept, SQLite databases in use among them.

    Args:
        folder: The folder; one that is not there is an empty one.
    """

    kind = "folder"

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder

    def is_empty(self) -> bool:
        """Returns whether there is no file in it."""
        return next(_files(self._folder), None) is None

    def save(self, folder: Path) -> None:
        """Puts a copy into a folder; what is deleted meanwhile is left out.

        Raises:
            OSError: A file cannot be read or written.
        """
        for file in _files(self._folder):
            if not file.name.endswith(_BESIDE_SQLITE) and file.exists():
                _copy(file, folder / file.relative_to(self._folder))

    def load(self, folder: Path) -> None:
        """Takes what a folder has in the place of what is there.

        Raises:
            OSError: A file cannot be read or written.
        """
        for file in list(_files(self._folder)):
            file.unlink()
        for file in _files(folder):
            _copy(file, self._folder / file.relative_to(folder))


class S3Copy:
    """The objects behind a prefix that are to be kept: of each its present version.

    Args:
        address: `s3://bucket/prefix`.
        client: A boto3 client of S3.
    """

    kind = "s3"

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self._bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client

    def is_empty(self) -> bool:
        """Returns whether there is no object."""
        with s3_errors(self._bucket):
            found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        return not found["KeyCount"]

    def save(self, folder: Path) -> None:
        """Puts a copy into a folder: of each object the version that was the present one when this began.

        Raises:
            OSError: A file cannot be written.
        """
        keys: list[str] = []
        with s3_errors(self._bucket):
            for key, version in list(self._present()):
                found = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{key}", VersionId=version)
                with (folder / str(len(keys))).open("wb") as file:
                    shutil.copyfileobj(found["Body"], file)
                keys.append(key)
        (folder / _INDEX).write_text(json.dumps(keys))

    def load(self, folder: Path) -> None:
        """Takes what a folder has in the place of what is there; a bucket with versions keeps that as former ones."""
        keys = json.loads((folder / _INDEX).read_text())
        with s3_errors(self._bucket):
            there = {key for key, _ in self._present()}
            for number, key in enumerate(keys):
                self._client.upload_file(str(folder / str(number)), self._bucket, f"{self._prefix}{key}")
            for key in there - set(keys):
                self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}{key}")

    def _present(self) -> Iterator[tuple[str, str]]:
        """Yields each key, without the prefix, and the version that it has now."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            for found in page.get("Versions", ()):
                if found["IsLatest"] and not found["Key"].endswith("/"):  # some servers show folders
                    yield found["Key"].removeprefix(self._prefix), found["VersionId"]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        is_database = file.read(len(_SQLITE)) == _SQLITE
    if is_database:
        copy_sqlite(source, target)
        shutil.copymode(source, target)
    else:
        shutil.copy2(source, target)
    if source.stat().st_size != target.stat().st_size and not is_database:
        raise IntegrityError(f"{source} changed while it was copied", remedy="do it again when nobody writes to it")
