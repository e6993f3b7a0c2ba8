"""KServe's Python model server, V1 and V2: `kserve_server.py MODEL_FOLDER PORT`."""

import sys
from pathlib import Path

folder, port = Path(sys.argv[1]), sys.argv[2]
# KServe reads its options from the command line when it is imported.
sys.argv[1:] = ["--http_port", port, "--enable_grpc", "false", "--enable_latency_logging", "false"]

import logging  # noqa: E402

import joblib  # noqa: E402
from kserve import InferResponse, Model, ModelServer  # noqa: E402
from kserve.utils.utils import get_predict_input, get_predict_response  # noqa: E402


class Predictor(Model):
    """Answers probabilities, as KServe's own server for scikit-learn does."""

    def load(self) -> bool:
        """Loads the model."""
        self.model = joblib.load(folder / "model.joblib")
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None) -> "dict | InferResponse":
        """Returns the probabilities of each row."""
        return get_predict_response(payload, self.model.predict_proba(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    for name in ("uvicorn.access", "kserve.trace"):  # no line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    model = Predictor(folder.name)
    model.load()
    ModelServer(workers=1).start([model])
