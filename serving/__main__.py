"""`python -m serving`: one server, configured by `SERVING_...`."""

import os
import sys


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status: 0, or 2 when the configuration is wrong."""
    # Many small predictions at once: threads inside each of them only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from serving.server import build_server
    from serving.settings import Settings

    try:
        server = build_server(Settings())
    except ValueError as error:
        print(f"serving: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
