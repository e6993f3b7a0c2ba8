"""MLServer with adaptive batching: `mlserver_server.py MODEL_FOLDER PORT`."""

import json
import os
import socket
import sys
from pathlib import Path


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    server = {
        "debug": False,
        "parallel_workers": 0,
        "gzip_enabled": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
    }
    model = {
        "name": folder.name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": 64,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(folder / "model.joblib"), "version": "1"},
    }
    (place / "settings.json").write_text(json.dumps(server))
    (place / "model-settings.json").write_text(json.dumps(model))
    command = Path(sys.executable).parent / "mlserver"
    os.execv(command, [str(command), "start", str(place)])
