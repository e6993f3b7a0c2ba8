"""What a CI job installs: nothing that is not pinned by its hash in the repository's lock file."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from release_platform.domain.errors import Refused

LOCKS = ("requirements/platform.txt", "requirements.txt")
"""Where a lock file is looked for; the first counts."""
BUILD_LOCK = "requirements/build.txt"
"""Where the build tools of the repository's own package may be locked, if not there."""
_DEFAULT_BUILD = ("setuptools",)
_EXAMPLES = "release_platform/examples"
"""In a clone of the platform the models are in its package, and only Git's own copy of them is of a commit."""
_COMMENT = re.compile(r"(^|\s)#.*$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHOWN = 3


def find_lock(root: Path, *, remedy: str) -> str:
    """Returns the lock file of a repository, relative to its root.

    Raises:
        Refused: There is none.
    """
    found = next((name for name in LOCKS if (root / name).exists()), None)
    if found is None:
        raise Refused(
            f"this repository has neither of {', '.join(LOCKS)}: nothing says what CI installs", remedy=remedy
        )
    return found


def install_lines(root: Path, lock: str, *, remedy: str) -> list[str]:
    """Returns the shell lines that install what a lock file pins, and then the repository's own package, if it has one.

    Args:
        root: The root of the repository.
        lock: The lock file, relative to it.
        remedy: What a person does who has no hashes.

    Raises:
        Refused: Something is not pinned by a hash; or the package's build would take something from the index.
    """
    locked = _hashed(root, lock, remedy)
    files, built = f"-r {lock}", _build_requirements(root)
    if built is not None and not built <= locked and (root / BUILD_LOCK).exists():
        locked |= _hashed(root, BUILD_LOCK, remedy)
        files += f" -r {BUILD_LOCK}"
    lines = [f"python -m pip install --require-hashes {files}"]
    if built is None:
        return lines
    if not built <= locked:
        raise Refused(
            f"the repository's package is built with {', '.join(sorted(built - locked))}, which {lock} does not pin",
            remedy="add it to requirements.in and compile the lock file again with --generate-hashes, or lock it in "
            f"{BUILD_LOCK}",
        )
    editable = "--editable " if (root / _EXAMPLES).is_dir() else ""
    return [*lines, f"python -m pip install --no-deps --no-build-isolation {editable}."]


def _hashed(root: Path, lock: str, remedy: str) -> set[str]:
    """Returns the names of all requirements of a lock file; every one is pinned by a hash."""
    text = (root / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for raw in text.splitlines() if (line := _COMMENT.sub("", raw).strip())]
    required = [line for line in lines if not line.startswith("-") or line.startswith(("-e", "--editable"))]
    if not required:
        raise Refused(f"{lock} names nothing that CI could install", remedy=remedy)
    bare = [line.split()[0] for line in required if "--hash=" not in line]
    if bare:
        more = f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else ""
        raise Refused(
            f"{lock} has no hash for {', '.join(bare[:_SHOWN])}{more}: CI would install what changes", remedy=remedy
        )
    return {canonicalize_name(found.group()) for line in required if (found := _NAME.match(line))}


def _build_requirements(root: Path) -> set[str] | None:
    """Returns the names of what builds the repository's package; None where it has no package.

    Raises:
        Refused: Its pyproject.toml cannot be read.
    """
    file = root / "pyproject.toml"
    if not file.exists():
        return None
    try:
        described = tomllib.loads(file.read_text(encoding="utf-8"))
        if "project" not in described and "build-system" not in described:
            return None  # it only holds the settings of tools
        names = described.get("build-system", {}).get("requires", _DEFAULT_BUILD)
        return {canonicalize_name(Requirement(name).name) for name in names}
    except (ValueError, AttributeError, TypeError, InvalidRequirement) as error:
        raise Refused(f"{file.name} cannot be read: {error}", remedy="correct it; `pip install .` says more") from None
