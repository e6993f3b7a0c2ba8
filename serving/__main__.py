"""`python -m serving`: one server, configured by `SERVING_...`, in one process or several."""

import gc
import logging.config
import os
import sys
from collections.abc import Sequence

from serving.logs import log_config
from serving.settings import Settings
from serving.workers import WRONG_CONFIGURATION, run_worker, supervise


def main(arguments: Sequence[str] = ()) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status: 0, or 2 when the configuration is wrong.

    Args:
        arguments: Nothing, or, for one worker of several, what `supervise` puts there.
    """
    # Many small predictions at once: threads inside each of them only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        settings = Settings()
        if settings.workers > 1 and not arguments:
            logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
            return supervise(settings, [sys.executable, "-m", "serving"])
        from serving.server import build_server

        server = build_server(settings)
    except ValueError as error:
        print(f"serving: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return WRONG_CONFIGURATION
    gc.freeze()  # a collection that looks at all that was imported would hold up every answer for 50 ms
    if arguments:
        run_worker(server, arguments)
    else:
        server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
