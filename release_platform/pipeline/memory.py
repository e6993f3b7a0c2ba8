"""Whether data fits into memory, asked before it is read."""

import os
from pathlib import Path

from release_platform.domain.errors import SourceError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Returns how much memory this process may still take: the machine's, or its container's where that is less."""
    return min(_of_machine(), _of_container())


def require_room(name: str, *, needed_bytes: float, available: int) -> None:
    """Refuses data that would not fit.

    Args:
        name: The source, for the message.
        needed_bytes: Estimated peak while the data is read and turned into features.
        available: What may be taken, from `available_bytes`.

    Raises:
        SourceError: More is needed than there is.
    """
    if needed_bytes > available:
        raise SourceError(
            f"needs about {_gigabytes(needed_bytes)} of memory, and {_gigabytes(available)} are available",
            remedy="leave columns out of `contract`, read a part (`sql` with a WHERE clause, fewer files), "
            "or run on a machine with more memory",
            source=name,
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _of_machine() -> int:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> int:
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return limit - used + int(kept["inactive_file"])  # the kernel drops inactive file pages when asked for memory
    except (OSError, KeyError, ValueError):  # no cgroup v2, or "max": no limit
        return 2**63
