"""The command line `release`: a thin door over the functions that the jobs call."""

import os
import sys
import warnings

from release_platform.cli.app import app
from release_platform.cli.console import show_error
from release_platform.domain.errors import ReleaseError


def main() -> None:
    """Runs the command line; exit codes are those of `release_platform.domain.errors`."""
    if not os.environ.get("RELEASE_DEBUG"):
        warnings.simplefilter("ignore")  # libraries' notes to developers; the tests turn each into an error
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
    while error is not None and not isinstance(error, ReleaseError):
        error = error.__cause__ or error.__context__
    return error
