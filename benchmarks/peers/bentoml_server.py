"""BentoML, adaptive batching, one worker: `bentoml_server.py MODEL_FOLDER PORT`."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Model:
    """Answers `{"rows": [[...], ...]}` with the probabilities of each row."""

    def __init__(self) -> None:
        import joblib

        self.model = joblib.load(Path(os.environ["BENCH_MODEL"]) / "model.joblib")

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=1000, max_latency_ms=60_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Returns the probabilities of each row."""
        return self.model.predict_proba(rows)


if __name__ == "__main__":
    here = Path(__file__)
    os.environ |= {"BENCH_MODEL": sys.argv[1], "BENTOML_DO_NOT_TRACK": "true"}
    what = f"{here.stem}:Model"
    command = ["-m", "bentoml", "serve", what, "--working-dir", str(here.parent), "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, *command, "--port", sys.argv[2]])
