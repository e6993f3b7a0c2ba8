"""The one call that all doors end in: at once where it is short, else on threads, several together."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.features import Inputs, n_rows_of
from release_platform.domain.prediction import Predictions
from serving.batching import Batcher
from serving.computing import check, predict
from serving.errors import ModelFailed, Problem
from serving.metrics import Metrics
from serving.models import LoadedModel
from serving.turn import Deliver, Turn

BATCHED_ROWS = 32
"""Most rows of a request that is computed together with others, and twice this is most of a batch.

More rows gain nothing from company; and a request of its own is computed exactly as the registry's model would compute
it, while BLAS may add in another order when rows stand in another batch.
"""

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Engine:
    """Computes predictions, with a bounded number of threads and a bounded queue before them.

    Args:
        n_threads: How many calls run at the same time.
        max_waiting: How many more may wait.
        within_s: Seconds that a request may wait for its turn and its result.
    """

    def __init__(self, *, n_threads: int, max_waiting: int, metrics: Metrics, within_s: float = 30.0) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="engine")
        self._n_threads = n_threads
        self._max_waiting = max_waiting
        self._within_s = within_s
        self._metrics = metrics
        self._batchers: WeakKeyDictionary[ModelPackage, Batcher[tuple[LoadedModel, Inputs], Predictions]]
        self._batchers = WeakKeyDictionary()
        self._work: Batcher[Callable[[], object], object] = self._batcher(_each, max_rows=1)
        self._turn: Turn[tuple[LoadedModel, Inputs], Predictions]
        self._turn = Turn(self._compute_together, max_rows=2 * BATCHED_ROWS)

    @property
    def n_waiting(self) -> int:
        """How many requests wait for a thread."""
        return self._work.n_waiting + sum(batcher.n_waiting for batcher in self._batchers.values())

    async def run(self, work: Callable[[], _T]) -> _T:
        """Returns the result of a longer call, made on a thread.

        Raises:
            Overloaded: Too many calls wait already.
            DeadlinePassed: It waited too long.
        """
        return await self._work.run(work, 1)  # type: ignore[return-value]

    def is_quick(self, loaded: LoadedModel, inputs: Inputs) -> bool:
        """Returns whether `compute` may be called on the event loop: a thread would take longer to be reached."""
        return n_rows_of(inputs) <= loaded.inline_rows

    async def predict(self, loaded: LoadedModel, inputs: Inputs) -> Predictions:
        """Returns a model's predictions for some rows, computed on a thread; every number in them is finite.

        Raises:
            InvalidInput: A number is too large for the model's arithmetic.
            ModelFailed: The model raised an error, or answered a number that is not finite.
            Overloaded: Too many requests wait already.
            DeadlinePassed: It waited too long.
        """
        n_rows = n_rows_of(inputs)
        if n_rows > BATCHED_ROWS:
            return await self.run(partial(self.compute, loaded, inputs))
        batcher = self._batchers.get(loaded.package)
        if batcher is None:
            batcher = self._batchers[loaded.package] = self._batcher(self._compute_together, max_rows=2 * BATCHED_ROWS)
        return await batcher.run((loaded, inputs), n_rows)

    def compute(self, loaded: LoadedModel, inputs: Inputs) -> Predictions:
        """Returns the predictions of one request, computed at once. Raises as `predict`."""
        try:
            predictions = predict(loaded, inputs)
            check(loaded, inputs, predictions)
        except ModelFailed as error:
            self._metrics.model_failed(loaded, error.slug)
            raise
        self._metrics.predicted(loaded, predictions)
        return predictions

    def compute_soon(self, loaded: LoadedModel, inputs: Inputs, deliver: Deliver[Predictions]) -> None:
        """Delivers what `compute` returns or raises: when this turn of the event loop ends, or before.

        Args:
            loaded: The model.
            inputs: The rows.
            deliver: Is called once; it must not raise.
        """
        n_rows = n_rows_of(inputs)
        if loaded.same_in_company and n_rows <= BATCHED_ROWS:
            self._turn.ask(loaded.package, (loaded, inputs), n_rows, deliver)
        else:
            deliver(self._try(loaded, inputs))

    def settle(self) -> None:
        """Delivers all that is to come when this turn ends."""
        self._turn.end()

    def close(self) -> None:
        """Lets the threads end; what they compute is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _batcher(
        self, compute: Callable[[Sequence[_Item]], Sequence[_Result | Problem]], *, max_rows: int
    ) -> Batcher[_Item, _Result]:
        return Batcher(
            compute,
            pool=self._pool,
            n_at_once=self._n_threads,
            max_rows=max_rows,
            max_waiting=self._max_waiting,
            within_s=self._within_s,
        )

    def _compute_together(self, asked: Sequence[tuple[LoadedModel, Inputs]]) -> Sequence[Predictions | Problem]:
        loaded = asked[0][0]
        self._metrics.batch_computed(loaded, len(asked))
        if len(asked) == 1:
            return [self._try(*asked[0])]
        inputs = _joined([inputs for _, inputs in asked])
        try:
            together = predict(loaded, inputs)
            check(loaded, inputs, together)
        except Problem:  # one of them is at fault; the others must not suffer
            return [self._try(*one) for one in asked]
        return self._shared_out(asked, together)

    def _shared_out(
        self, asked: Sequence[tuple[LoadedModel, Inputs]], together: Predictions
    ) -> Sequence[Predictions | Problem]:
        values, probabilities = together.values, together.probabilities
        results: list[Predictions | Problem] = []
        begin = 0
        for loaded, inputs in asked:
            end = begin + n_rows_of(inputs)
            own = Predictions(
                values=values[begin:end], probabilities=None if probabilities is None else probabilities[begin:end]
            )
            self._metrics.predicted(loaded, own)
            results.append(own)
            begin = end
        return results

    def _try(self, loaded: LoadedModel, inputs: Inputs) -> Predictions | Problem:
        try:
            return self.compute(loaded, inputs)
        except Problem as problem:
            return problem


def _each(calls: Sequence[Callable[[], object]]) -> Sequence[object]:
    (call,) = calls
    try:
        return [call()]
    except Problem as problem:
        return [problem]


def _joined(asked: Sequence[Inputs]) -> Inputs:
    matrices = [inputs for inputs in asked if isinstance(inputs, np.ndarray)]
    if matrices:
        return np.concatenate(matrices)
    columns = [inputs for inputs in asked if not isinstance(inputs, np.ndarray)]
    return {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
