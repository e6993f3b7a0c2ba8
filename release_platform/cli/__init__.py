"""The command line `release`: a thin door over the functions that the jobs call."""

import errno
import logging
import os
import sqlite3
import sys
import warnings

from release_platform.cli.app import app
from release_platform.cli.console import show_error
from release_platform.domain.errors import ReleaseError, Unavailable


def main() -> None:
    """Runs the command line; exit codes are those of `release_platform.domain.errors`."""
    if not os.environ.get("RELEASE_DEBUG"):
        warnings.simplefilter("ignore")  # libraries' notes to developers; the tests turn each into an error
        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
    try:
        app(standalone_mode=True)
    except Exception as error:
        known = find_release_error(error)
        if known is None and os.environ.get("RELEASE_DEBUG"):
            raise
        show_error(known or error)
        sys.exit(known.exit_code if known else 1)


def find_release_error(error: BaseException | None) -> ReleaseError | None:
    """Returns the platform's own error in a chain of causes, or None."""
    seen: set[int] = set()  # a chain may lead back to where it began
    while error is not None and id(error) not in seen:
        if isinstance(error, ReleaseError):
            return error
        if _is_full_disk(error):
            return Unavailable(
                f"the disk has no room left ({error})", remedy="make room in RELEASE_HOME, then run again"
            )
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    return isinstance(error, sqlite3.OperationalError) and "disk" in str(error)
