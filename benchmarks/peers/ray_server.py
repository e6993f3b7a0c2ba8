"""Ray Serve, batching, one replica: `ray_server.py MODEL_FOLDER PORT`."""

import sys
from pathlib import Path

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request

QUIET = {"enable_access_log": False}


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 1}, logging_config=QUIET)
class Model:
    """Answers `{"rows": [[...], ...]}` with the probabilities of each row."""

    def __init__(self, folder: str) -> None:
        self.model = joblib.load(Path(folder) / "model.joblib")

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def predict(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the probabilities of many requests."""
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return np.split(self.model.predict_proba(np.concatenate(inputs)), ends)

    async def __call__(self, request: Request) -> dict:
        """Answers one request."""
        rows = np.array((await request.json())["rows"])
        return {"probabilities": (await self.predict(rows)).tolist()}


if __name__ == "__main__":
    # Ray would end its workers when other programs fill the machine's memory.
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config={"memory_monitor_refresh_ms": 0})
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config=QUIET)
    serve.run(Model.bind(sys.argv[1]), route_prefix="/predict", blocking=True)
