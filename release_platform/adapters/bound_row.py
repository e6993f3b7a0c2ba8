"""One row at a time through an ONNX session, by way of memory that is bound to the session once.

`InferenceSession.run` checks and converts what it is given, and makes an array for each answer: for one row that takes
as long as a small model.
"""

from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt


class BoundRow:
    """Memory for one row and its answer. For any number of threads: those that find it taken go without.

    Args:
        session: An `onnxruntime.InferenceSession` whose only input is a matrix of numbers.
        given: The name of that input.
        wanted: The name of the output. Its shape and type for one row are those of the first answer.
    """

    def __init__(self, session: Any, given: str, wanted: str) -> None:
        self._session = session
        self._given, self._wanted = given, wanted
        self._lock = Lock()
        self._row = self._answer = np.empty(0)
        self._binding: Any = None

    def through(self, row: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """Returns the answer to a row, shape (1, n_features)."""
        if not self._lock.acquire(blocking=False):
            return self._unbound(row)
        try:
            if self._binding is None:
                return self._bind(row)
            self._row[:] = row
            self._session.run_with_iobinding(self._binding)
            return self._answer.copy()
        finally:
            self._lock.release()

    def _unbound(self, row: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        (answer,) = self._session.run([self._wanted], {self._given: row})
        return np.asarray(answer)

    def _bind(self, row: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        from onnxruntime import OrtValue

        answer = self._unbound(row)
        self._row, self._answer = np.array(row), np.array(answer)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._given, OrtValue.ortvalue_from_numpy(self._row))
        binding.bind_ortvalue_output(self._wanted, OrtValue.ortvalue_from_numpy(self._answer))
        self._binding = binding
        return answer
