"""A home as it was at one moment, brought back in place: the addresses that are kept inside stay valid."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

FOLDERS = ("artifacts", "snapshots", "keys")


class SavedHome:
    """Keeps a copy of a home's databases and files; the home may stay open meanwhile.

    Args:
        folder: The home.
        kept: A new folder for the copy.
    """

    def __init__(self, folder: Path, kept: Path) -> None:
        self._folder = folder
        self._kept = kept
        for path in _databases(folder):
            _copy_database(path, kept / path.relative_to(folder))
        for name in FOLDERS:
            shutil.copytree(folder / name, kept / name)

    def restore(self) -> None:
        """Makes the home what it was; connections that are open see it so from then on."""
        for path in _databases(self._kept):
            _copy_database(path, self._folder / path.relative_to(self._kept))
        for name in FOLDERS:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            shutil.copytree(self._kept / name, self._folder / name)


def _databases(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.db") if not any(name in path.parts for name in FOLDERS)]


def _copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as after:
        after.execute("PRAGMA synchronous=OFF")
        before.backup(after)
