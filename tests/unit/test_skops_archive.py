"""A skops file is loaded only if each of its types is on the list, whatever skops itself would trust."""

import os

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVR

from release_platform.adapters.skops_archive import load_skops

FEATURES, TARGET = np.arange(12.0).reshape(6, 2), np.arange(6.0)


def test_a_type_that_is_on_the_list_is_loaded() -> None:
    fitted = LinearRegression().fit(FEATURES, TARGET)
    assert load_skops(skops.io.dumps(fitted)).predict(FEATURES).tolist() == fitted.predict(FEATURES).tolist()


@pytest.mark.parametrize(
    "held",
    [SVR().fit(FEATURES, TARGET), KNeighborsRegressor().fit(FEATURES, TARGET), FunctionTransformer(os.getcwd)],
    ids=["SVR", "KNeighborsRegressor", "function"],
)
def test_a_type_that_is_not_on_the_list_is_refused(held: object) -> None:
    with pytest.raises(ValueError, match="which is not loaded"):
        load_skops(skops.io.dumps(held))
