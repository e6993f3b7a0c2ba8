"""LitServe, batching: `litserve_server.py MODEL_FOLDER PORT`."""

import sys
from pathlib import Path

import joblib
import litserve as ls
import numpy as np


class Model(ls.LitAPI):
    """Answers `{"rows": [[...], ...]}` with the probabilities of each row."""

    def setup(self, device):
        """Loads the model."""
        self.model = joblib.load(Path(sys.argv[1]) / "model.joblib")

    def decode_request(self, request):
        """Returns the rows of one request."""
        return np.array(request["rows"])

    def batch(self, inputs):
        """Returns the rows of many requests as one array, and how many each of them has."""
        return np.concatenate(inputs), np.cumsum([len(rows) for rows in inputs])[:-1]

    def predict(self, batch):
        """Returns the probabilities of all rows."""
        rows, ends = batch
        return self.model.predict_proba(rows), ends

    def unbatch(self, output):
        """Returns the probabilities of each request."""
        probabilities, ends = output
        return np.split(probabilities, ends)

    def encode_response(self, output):
        """Returns the answer."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    api = Model(max_batch_size=64, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
