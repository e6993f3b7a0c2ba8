"""What a package is asked before it goes live, so that its first client does not wait."""

from collections.abc import Sequence
from time import thread_time

import numpy as np
import numpy.typing as npt

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.features import Inputs, n_rows_of

INLINE_S = 0.001
"""Longest time that a prediction may hold the event loop."""

_N_TIMED = 9
_COMPANIES = (2, 3, 4, 7, 8, 16, 31, 32)
"""Numbers of rows that are tried together."""


def rows_within(package: ModelPackage, seconds: float) -> int:
    """Returns how many rows a package predicts within a time, as far as its golden rows show; 0 for less than one.

    It also warms the package up. Only ONNX is computed on the event loop: scikit-learn's calls take about a millisecond
    at the least. What counts is the thread's own time, and the shortest of some: a version may be loaded while requests
    hold the interpreter, or the machine is busy, and is served by what is found here as long as it is live.
    """
    if package.engine_name != "onnx":
        return 0
    golden = package.golden_inputs
    n_rows = n_rows_of(golden)
    package.predict(golden)
    shortest_s = min(_took_s(package, golden) for _ in range(_N_TIMED))
    return int(min(seconds / max(shortest_s, 1e-6), 100.0) * n_rows)


def _took_s(package: ModelPackage, inputs: Inputs) -> float:
    begun = thread_time()
    package.predict(inputs)
    return thread_time() - begun


def is_same_in_company(package: ModelPackage) -> bool:
    """Returns whether the golden rows get the same answers to the last bit one by one and several together.

    Trees give them; a product of matrices may be added up in another order when it has more rows.
    """
    if package.engine_name != "onnx":
        return False
    golden = package.golden_inputs
    n_rows = n_rows_of(golden)
    alone = _numbers(package, [slice(row, row + 1) for row in range(n_rows)])
    return all(
        np.array_equal(alone, _numbers(package, [slice(row, row + size) for row in range(0, n_rows, size)]))
        for size in _COMPANIES
    )


def _numbers(package: ModelPackage, parts: Sequence[slice]) -> npt.NDArray[np.float64]:
    found = [package.predict(_part(package.golden_inputs, part)) for part in parts]
    return np.concatenate([one.values if one.probabilities is None else one.probabilities for one in found])


def _part(inputs: Inputs, rows: slice) -> Inputs:
    return inputs[rows] if isinstance(inputs, np.ndarray) else {name: values[rows] for name, values in inputs.items()}
