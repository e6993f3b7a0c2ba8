"""Writes a file so that a reader, and a crash of the machine, meets the old one or the new one, never a part."""

import os
import tempfile
from pathlib import Path
from typing import Any

OWNER_ONLY = 0o600


def write_whole(path: Path, data: Any, *, mode: int = OWNER_ONLY) -> None:
    """Puts a file in the place of the one that is there, if any; what was returned from is on the disk.

    Args:
        path: Where; its folder must be there.
        data: Bytes, or what supports their buffer.
        mode: Who may read and write it.

    Raises:
        OSError: It cannot be written; what was there is as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
