"""The platform's overhead: a full release against a plain script that does the same work, in turns, in one run.

Each is a fresh process; both work on a home that exists already. Prints medians, their ratio, and for breast_cancer the
whole command against the time that importing dagster, mlflow and sklearn takes here.

Usage: python benchmarks/pipeline.py [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

MODELS = ("breast_cancer", "flight_delay")
IMPORTS = "import dagster, mlflow.sklearn, sklearn.linear_model"
HERE = Path(__file__).parent


def spent_s(command: Sequence[str], home: Path) -> float:
    """Returns how long a command takes, in seconds.

    Raises:
        SystemExit: It failed; its output is shown.
    """
    environment = {**os.environ, "RELEASE_HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    spent = perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return spent


def commands(model: str, home: Path) -> dict[str, list[str]]:
    """Returns the two commands that are compared."""
    uri, artifacts = f"sqlite:///{home / 'plain.db'}", (home / "plain").as_uri()
    return {
        "plain": [sys.executable, str(HERE / "plain.py"), model, uri, artifacts],
        "release": [sys.executable, "-m", "release_platform", "run", model],
    }


def main(rounds: int) -> None:
    """Runs everything in turns and prints the ratios."""
    importing = statistics.median(spent_s([sys.executable, "-c", IMPORTS], Path.cwd()) for _ in range(max(rounds, 3)))
    print(f"importing dagster, mlflow and sklearn: {importing:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for model in MODELS:
            pair = commands(model, home)
            for command in pair.values():  # warm: databases made, bytecode compiled
                spent_s(command, home)
            times: dict[str, list[float]] = {name: [] for name in pair}
            for _ in range(rounds):
                for name, command in pair.items():
                    times[name].append(spent_s(command, home))
            plain, release = (statistics.median(times[name]) for name in ("plain", "release"))
            print(
                f"{model}: plain {plain:.2f} s, release {release:.2f} s, ratio {release / plain:.2f}, "
                f"release / imports {release / importing:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
