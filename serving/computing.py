"""Computes the rows of one request, and judges what came of it: the same for every door, and for batch scoring."""

from math import isfinite

import numpy as np

from release_platform.domain.features import Inputs
from release_platform.domain.prediction import Predictions
from serving.errors import InvalidInput, NonFinitePrediction, PredictionFailed
from serving.models import LoadedModel

_FEW = 16


def predict(loaded: LoadedModel, inputs: Inputs) -> Predictions:
    """Returns what a model says of some rows, unjudged.

    Raises:
        InvalidInput: The model failed, and a number is too large for its arithmetic.
        PredictionFailed: The model raised an error.
    """
    try:
        return loaded.package.predict(inputs)
    except Exception as error:
        _blame_input(loaded, inputs)
        detail = f"version {loaded.version} of '{loaded.model}' raised {type(error).__name__}; tell the model's owner"
        raise PredictionFailed(detail) from error


def check(loaded: LoadedModel, inputs: Inputs, predictions: Predictions) -> None:
    """Refuses an answer that is not finite.

    Raises:
        InvalidInput: A number is too large for the model's arithmetic.
        NonFinitePrediction: The model answered NaN or an infinity.
    """
    numbers = predictions.values if predictions.probabilities is None else predictions.probabilities
    if numbers.size <= _FEW and all(map(isfinite, numbers.ravel().tolist())):  # NumPy takes longer for so few
        return
    finite = np.isfinite(numbers)
    if not finite.all():
        _blame_input(loaded, inputs)
        row = int(np.argmin(finite.reshape(len(numbers), -1).all(axis=1)))
        detail = f"version {loaded.version} of '{loaded.model}' has no finite answer to row {row}"
        raise NonFinitePrediction(detail, row=row)


def _blame_input(loaded: LoadedModel, inputs: Inputs) -> None:
    """Raises `InvalidInput` if a number is too large for what is computed of it.

    That is a feature beyond single precision, which is what scikit-learn's trees compute in, or a derived column beyond
    double precision; the largest of the inputs that it is derived from is then to blame.
    """
    limit = float(np.finfo(np.float32).max)
    plan = loaded.package.plan
    columns = plan.columns(inputs)
    for name, values in plan.derive(columns).items():
        if values.dtype.kind != "f":
            continue
        large = np.abs(values) > limit if name in plan.features else np.isinf(values)
        if large.any():
            row = int(np.argmax(large))
            sources = [source for source in plan.sources_of(name) if columns[source].dtype.kind == "f"]
            field = max(sources, key=lambda source: np.nan_to_num(abs(columns[source][row])))
            raise InvalidInput(f"row {row}, '{field}': the number is too large for the model", field=field, row=row)
