"""The one call that all doors end in, and the threads that it runs on."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio.to_thread
import numpy as np

from release_platform.domain.features import Column
from release_platform.domain.prediction import Predictions
from serving.errors import InvalidInput, ModelFailed, NonFinitePrediction, Overloaded, PredictionFailed
from serving.metrics import Metrics
from serving.models import LoadedModel

_T = TypeVar("_T")


class Engine:
    """Computes predictions off the event loop, on a bounded number of threads, with a bounded queue before them.

    Args:
        n_threads: How many calls run at the same time.
        max_waiting: How many more may wait.
    """

    def __init__(self, *, n_threads: int, max_waiting: int, metrics: Metrics) -> None:
        self._limiter = anyio.CapacityLimiter(n_threads)
        self._n_threads = n_threads
        self._max_waiting = max_waiting
        self._n_inside = 0
        self._metrics = metrics

    async def run(self, work: Callable[[], _T]) -> _T:
        """Returns the result of a CPU-bound call, made on a thread.

        Raises:
            Overloaded: Too many calls wait already.
        """
        if self._n_inside >= self._n_threads + self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests are waiting already; come again")
        self._n_inside += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._n_inside -= 1

    def predict(self, loaded: LoadedModel, columns: Mapping[str, Column]) -> Predictions:
        """Returns a model's predictions for the plan's inputs; every number in them is finite.

        Raises:
            InvalidInput: A number is too large for the model's arithmetic.
            ModelFailed: The model raised an error, or answered a number that is not finite.
        """
        try:
            # Derived features and linear models may overflow; what comes of it is judged by the answer.
            with np.errstate(all="ignore"):
                predictions = _predict(loaded, columns)
        except ModelFailed as error:
            self._metrics.model_failed(loaded, error.slug)
            raise
        self._metrics.rows_predicted(loaded, len(predictions.values))
        return predictions


def _predict(loaded: LoadedModel, columns: Mapping[str, Column]) -> Predictions:
    try:
        predictions = loaded.package.predict(columns)
    except Exception as error:
        _blame_input(loaded, columns)
        detail = f"version {loaded.version} of '{loaded.model}' raised {type(error).__name__}; tell the model's owner"
        raise PredictionFailed(detail) from error
    numbers = predictions.values if predictions.probabilities is None else predictions.probabilities
    finite = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if not finite.all():
        _blame_input(loaded, columns)
        row = int(np.argmin(finite))
        detail = f"version {loaded.version} of '{loaded.model}' has no finite answer to row {row}"
        raise NonFinitePrediction(detail, row=row)
    return predictions


def _blame_input(loaded: LoadedModel, columns: Mapping[str, Column]) -> None:
    """Raises `InvalidInput` if a feature is beyond single precision, which is what scikit-learn's trees compute in."""
    limit = float(np.finfo(np.float32).max)
    for name, values in loaded.package.plan.apply(columns).items():
        if values.dtype.kind == "f" and (large := np.abs(values) > limit).any():
            row = int(np.argmax(large))
            raise InvalidInput(f"row {row}, '{name}': the number is too large for the model", field=name, row=row)
