"""Golden answers: what a version said of a few rows when it was registered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.adapters.model_package import ModelPackage
from release_platform.domain.errors import IntegrityError
from release_platform.domain.prediction import Predictions

TOLERANCE = 1e-9


def check_golden(package: ModelPackage) -> int:
    """Returns how many golden rows there are, after the loaded model gave the recorded answer to each of them.

    Labels must be equal; numbers must be within 1e-9, absolute or relative, for the machine that registered the version
    may compute in another order.

    Raises:
        IntegrityError: There are none, or an answer differs.
    """
    found = package.predict(package.golden_inputs)
    try:
        _check(found, package.golden["answers"])
    except (KeyError, TypeError, ValueError) as error:
        raise _refuse(f"what cannot be read ({type(error).__name__}: {error})") from error
    return len(found.values)


def _check(found: Predictions, recorded: Mapping[str, Any]) -> None:
    if found.probabilities is None:
        _compare(found.values, recorded["predictions"])
    else:
        _compare(found.probabilities, recorded["probabilities"])
        if found.values.tolist() != recorded["predictions"]:
            raise _refuse("another label")


def _compare(found: npt.NDArray[Any], recorded: object) -> None:
    wanted = np.asarray(recorded, dtype=np.float64)
    if not len(found) or found.shape != wanted.shape:
        raise _refuse(f"answers of shape {found.shape} instead of {wanted.shape}")
    if not np.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE):
        raise _refuse(f"a number that is off by {np.max(np.abs(found - wanted)):.3g}")


def _refuse(problem: str) -> IntegrityError:
    return IntegrityError(
        f"the golden rows do not get the answers that were recorded, but {problem}",
        remedy="compare the libraries of this server with those that the version was registered with",
    )
