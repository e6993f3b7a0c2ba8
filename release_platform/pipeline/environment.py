"""What a training run depended on besides its data: code, lock file, Python, libraries, BLAS, threads."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from release_platform.domain.identity import PREFIX, digest_of, digest_of_bytes
from release_platform.pipeline.native import native_libraries
from release_platform.settings import shipped

LIBRARIES = (
    *("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "joblib", "threadpoolctl"),
    *("skops", "onnxruntime", "skl2onnx", "mlflow"),
)
TRAINING_CODE = ("domain", "pipeline", "adapters/model_package.py", "adapters/snapshot_store.py")
"""What of the platform's own source turns snapshots into a fitted model."""

_MOST_FILES = 60


@lru_cache(maxsize=1)
def lock_digest() -> str:
    """Returns the digest of the lock file that the platform is installed from."""
    return digest_of_bytes(shipped("requirements/platform.txt").read_bytes())


@lru_cache(maxsize=64)
def code_digest(*modules: str) -> str:
    """Returns the digest of the platform's own source files, named relative to its package, e.g. `pipeline/ingest.py`.

    A folder counts with all Python files below it.
    """
    package = Path(__file__).resolve().parent.parent
    files = _source_files(package, modules)
    return digest_of([[path.relative_to(package).as_posix(), digest_of_bytes(path.read_bytes())] for path in files])


def file_digests(folder: Path) -> dict[str, str]:
    """Returns a short digest of each source file that training may use, by its name.

    These are the platform's, e.g. `pipeline/training.py`, and the model's own, e.g. `own/source.py`; of more than 60
    own files there is one digest for all.
    """
    package = Path(__file__).resolve().parent.parent
    found = {path.relative_to(package).as_posix(): path for path in _source_files(package, TRAINING_CODE)}
    own = {f"own/{path.name}": path for path in folder.glob("*.py")}
    short = {name: _short(digest_of_bytes(path.read_bytes())) for name, path in (found | own).items()}
    if len(own) <= _MOST_FILES:
        return short
    return {name: digest for name, digest in short.items() if name in found} | {"own/*": _short(folder_digest(folder))}


def _short(digest: str) -> str:
    return digest.removeprefix(PREFIX)[:12]


def _source_files(package: Path, modules: Sequence[str]) -> list[Path]:
    return sorted(
        path
        for name in modules
        for path in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    )


def folder_digest(folder: Path) -> str:
    """Returns the digest of a model's own Python files, which its source or features may use."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return PREFIX + digest.hexdigest()


def module_digest(module: str) -> str | None:
    """Returns the digest of a module's file, which is found without importing it; None where it has none."""
    file = module_file(module)
    return None if file is None else digest_of_bytes(file.read_bytes())


def module_file(module: str) -> Path | None:
    """Returns the file of a module without importing it or its parents; None where it has none."""
    top, *inner = module.split(".")
    found = find_spec(top)
    if found is None:
        return None
    if not inner:
        return Path(found.origin).resolve() if found.has_location and found.origin else None
    for place in found.submodule_search_locations or ():
        stem = Path(place, *inner)
        for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if file.is_file():
                return file.resolve()
    return None


def git_state(folder: Path) -> dict[str, str]:
    """Returns `git_commit` and `git_dirty` of the checkout that a folder is in; `unknown` where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = _git(folder, "status", "--porcelain")
    return {
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if commit is None or dirty is None else str(bool(dirty)).lower(),
    }


def git_root(folder: Path) -> Path | None:
    """Returns the root of the checkout that a folder is in, or None."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return None if found is None else Path(found)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(folder: Path) -> dict[str, str]:
    """Returns everything about the surroundings of a training run, as flat text."""
    return {
        **git_state(folder),
        "lock": lock_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": str(os.cpu_count()),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "byte_order": sys.byteorder,
        **{f"version.{name}": importlib.metadata.version(name) for name in LIBRARIES},
        **native_libraries(),
    }
