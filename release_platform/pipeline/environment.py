"""What a training run depended on besides its data: code, lock file, Python, libraries, BLAS, threads."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from release_platform.domain.identity import PREFIX, digest_of, digest_of_bytes
from release_platform.settings import shipped

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "onnxruntime", "skl2onnx", "mlflow")


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
    files = [
        path
        for name in modules
        for path in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    ]
    return digest_of(
        [[path.relative_to(package).as_posix(), digest_of_bytes(path.read_bytes())] for path in sorted(files)]
    )


def folder_digest(folder: Path) -> str:
    """Returns the digest of a model's own Python files, which its source or features may use."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return PREFIX + digest.hexdigest()


def git_state(folder: Path) -> dict[str, str]:
    """Returns `git_commit` and `git_dirty` of the checkout that a folder is in; `unknown` where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = _git(folder, "status", "--porcelain")
    return {
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if commit is None or dirty is None else str(bool(dirty)).lower(),
    }


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
        **_native_libraries(),
    }


def _native_libraries() -> dict[str, str]:
    from threadpoolctl import threadpool_info

    found: dict[str, str] = {}
    for pool in threadpool_info():
        kind = str(pool["user_api"])
        parts: Sequence[object] = (
            pool["internal_api"],
            pool.get("version"),
            pool.get("architecture"),
            pool["num_threads"],
        )
        found.setdefault(f"native.{kind}", " ".join(str(part) for part in parts if part is not None))
    return found
