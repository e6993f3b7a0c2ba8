"""`mlflow models serve` of the registered version itself: `mlflow_server.py MODEL_FOLDER PORT`."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts `uvicorn` by name
    words = ["models", "serve", "--model-uri", str(Path(sys.argv[1]) / "package"), "--env-manager", "local"]
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", sys.argv[2]]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "UVICORN_ACCESS_LOG": "false"}
    os.execve(sys.executable, command, {**os.environ, "PATH": path, **quiet})
