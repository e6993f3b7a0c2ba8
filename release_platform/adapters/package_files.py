"""Reads the files of a package once, against its manifest: the bytes that were checked are the bytes that are returned.

Nothing is opened that could block or lead elsewhere: the folder is opened once, each file relative to it, without
following links, and what is no plain file is refused before a byte is read.
"""

import hashlib
import os
import stat
from pathlib import Path

from release_platform.domain.identity import FileEntry, Manifest

MAXIMUM_BYTES = 2 * 1024**3
LIMITS = {
    "MLmodel": 1024**2,
    "conda.yaml": 1024**2,
    "golden.json": 16 * 1024**2,
    "input_example.json": 16 * 1024**2,
    "model.onnx": MAXIMUM_BYTES,
    "model.skops": MAXIMUM_BYTES,
    "python_env.yaml": 1024**2,
    "release.json": 16 * 1024**2,
    "requirements.txt": 1024**2,
}
"""Every file that a package may hold, and its most bytes. There are no folders and no others."""


def read_checked(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Returns the content of every file of a package.

    Raises:
        ValueError: A file is absent, added, changed, too large, not a plain file, or none that a package may hold.
    """
    check_manifest(manifest)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listed = {entry.path for entry in manifest.files}
        for name in os.listdir(opened):  # noqa: PTH208 - of the folder that is open, not of its path
            if name not in listed:
                raise ValueError(f"{name!a} is not in the manifest")
        return {entry.path: _read(opened, entry) for entry in manifest.files}
    finally:
        os.close(opened)


def check_manifest(manifest: Manifest) -> None:
    """Refuses a manifest that names a file that no package has, or more bytes than one may have.

    Raises:
        ValueError: It does.
    """
    for entry in manifest.files:
        if entry.path not in LIMITS:
            raise ValueError(f"{entry.path!a} is no file that a package may hold")
        if entry.size_bytes > LIMITS[entry.path]:
            raise ValueError(f"{entry.path} has {entry.size_bytes:,} bytes, more than {LIMITS[entry.path]:,}")
    if manifest.size_bytes > MAXIMUM_BYTES:
        raise ValueError(f"{manifest.size_bytes:,} bytes, more than {MAXIMUM_BYTES:,}")


def _read(folder: int, entry: FileEntry) -> bytes:
    try:
        opened = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise ValueError(f"{entry.path} is missing") from None
    except OSError as error:
        raise ValueError(f"{entry.path} is not a plain file ({error.strerror})") from None
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ValueError(f"{entry.path} is not a plain file")
        if found.st_size != entry.size_bytes:
            raise ValueError(f"{entry.path} has {found.st_size:,} bytes instead of {entry.size_bytes:,}")
        data = file.read(entry.size_bytes + 1)
    if len(data) != entry.size_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ValueError(f"{entry.path} was changed: its digest is not the registered one")
    return data
