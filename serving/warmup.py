"""What a package is asked before it goes live, so that its first client does not wait."""

from time import perf_counter

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.features import n_rows_of

INLINE_S = 0.001
"""Longest time that a prediction may hold the event loop."""


def rows_within(package: ModelPackage, seconds: float) -> int:
    """Returns how many rows a package predicts within a time, as far as its golden rows show; 0 for less than one.

    It also warms the package up. Only ONNX is computed on the event loop: scikit-learn's calls take about a millisecond
    at the least.
    """
    if package.engine_name != "onnx":
        return 0
    golden = package.golden_inputs
    n_rows = n_rows_of(golden)
    package.predict(golden)
    begun = perf_counter()
    package.predict(golden)
    return int(min(seconds / max(perf_counter() - begun, 1e-6), 100.0) * n_rows)
