"""Verified copies of versions on disk, addressed by digest, and a note for each model of what was served last.

```
cache_dir/
  packages/<64 hex digits>/    the files of a version
  served/<model>.json          version, manifest and proof of what was live last
  served/.lock                 held by the one who notes or prunes
  incoming/                    what is being fetched; nothing is ever loaded for good from here
  outcomes/                    the last predictions, and outcomes for other servers: see `prediction_files` and `held`
```
Nothing in here is trusted: whatever is read is verified again, the proof by its signatures, the files by the manifest.
"""

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from release_platform.adapters.strict_json import read_json
from release_platform.adapters.trust import Proof
from release_platform.adapters.whole_files import write_whole
from release_platform.domain.identity import PREFIX, Manifest, canonical_json

_FORMAT = 2
_ABANDONED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What was live: the version, its files, and the proof that it may answer."""

    version: str
    manifest: Manifest
    proof: Proof


class PackageCache:
    """The copies in one folder. Several servers may share it: every change is one atomic rename."""

    def __init__(self, folder: Path) -> None:
        self._packages = folder / "packages"
        self._served = folder / "served"
        self._incoming = folder / "incoming"

    def find(self, digest: str) -> Path | None:
        """Returns the folder of a copy, or None."""
        folder = self._packages / digest.removeprefix(PREFIX)
        return folder if folder.is_dir() else None

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Yields an empty folder to fetch into; what is still there at the end is removed."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._incoming))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, folder: Path, digest: str) -> None:
        """Takes a verified folder as the copy of a digest; does nothing when there is one."""
        self._packages.mkdir(parents=True, exist_ok=True)
        target = self._packages / digest.removeprefix(PREFIX)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another server was first, with the same bytes
                raise

    def discard(self, digest: str) -> None:
        """Removes a copy, e.g. one that was changed."""
        shutil.rmtree(self._packages / digest.removeprefix(PREFIX), ignore_errors=True)

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keeps every other thread and server on this machine from noting or pruning meanwhile."""
        self._served.mkdir(parents=True, exist_ok=True)
        with (self._served / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def remember(self, model: str, note: Note) -> None:
        """Notes what is live, for a restart without the registry."""
        self._served.mkdir(parents=True, exist_ok=True)
        copy = self.find(note.manifest.digest)
        if copy is not None:
            os.utime(copy)  # `prune` keeps what was live last
        value = {
            "format": _FORMAT,
            "model": model,
            "version": note.version,
            "manifest": note.manifest.to_json(),
            "proof": asdict(note.proof),
        }
        write_whole(self._note(model), canonical_json(value))

    def recall(self, model: str) -> Note | None:
        """Returns what was live last, or None.

        Raises:
            ValueError: The note cannot be read.
        """
        try:
            note = read_json(self._note(model).read_bytes())
            if note["format"] != _FORMAT or note["model"] != model:
                raise ValueError(f"the note of what was served of '{model}' is of another model or format")
            return Note(
                version=str(note["version"]),
                manifest=Manifest.from_json(note["manifest"]),
                proof=Proof(**note["proof"]),
            )
        except FileNotFoundError:
            return None
        except (KeyError, TypeError) as error:
            raise ValueError(f"the note of what was served of '{model}' cannot be read: {error!r}") from error

    def noted_at(self, model: str) -> int:
        """Returns when the note of a model was written, in nanoseconds of the file system's clock; 0 for none."""
        try:
            return self._note(model).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def remembered(self) -> tuple[str, ...]:
        """Returns the models that there are notes of, in order."""
        return tuple(sorted(unquote(path.stem) for path in self._served.glob("*.json")))

    def prune(self, *, keep: int, now_s: float) -> None:
        """Removes the copies that no note names, except the newest, and what a killed server left half-fetched.

        Args:
            keep: How many spare copies of each model stay: those that came or went live last.
            now_s: Seconds since 1970; what came in more than an hour before is left over.
        """
        named = {manifest.digest.removeprefix(PREFIX) for manifest in self._noted_manifests()}
        kept: Counter[str] = Counter()
        spare = [path for path in self._packages.glob("*") if path.name not in named]
        for path in sorted(spare, key=_modified, reverse=True):
            model = _model_of(path)
            kept[model] += 1
            if kept[model] > keep:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._incoming.glob("*"):
            if _modified(path) < now_s - _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)

    def _noted_manifests(self) -> Iterator[Manifest]:
        for model in self.remembered():
            with suppress(ValueError):  # an unreadable note names no copy; the next one that goes live replaces it
                note = self.recall(model)
                if note is not None:
                    yield note.manifest

    def _note(self, model: str) -> Path:
        return self._served / f"{quote(model, safe='')}.json"


def _model_of(copy: Path) -> str:
    """Returns whose copy it is, by its own word: that decides which copies are kept, never which are served."""
    try:
        return str(read_json((copy / "release.json").read_bytes())["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another server removed it
        return 0.0
