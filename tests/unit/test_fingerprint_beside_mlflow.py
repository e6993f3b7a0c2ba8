"""What the fingerprint separates, beside MLflow's own digest of the same two data frames, as measured."""

from typing import Any

import mlflow.data
import numpy as np
import pandas as pd
import pytest

from release_platform.domain.fingerprint import fingerprint
from release_platform.pipeline.ingest import columns_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow on integers and missing values

N_ROWS = 20_000


def ours(values: Any) -> str:
    frame = pd.DataFrame({"x": values})
    return fingerprint(columns_of(frame), n_rows=len(frame)).digest


def theirs(values: Any) -> str:
    return str(mlflow.data.from_pandas(pd.DataFrame({"x": values})).digest)


def with_value(values: Any, row: int, value: Any) -> Any:
    copy = values.copy()
    copy[row] = value
    return copy


NUMBERS = np.arange(N_ROWS, dtype=np.float64)
FLAGS = np.arange(N_ROWS) % 2 == 0
TIMES = pd.Series(pd.date_range("2020-01-01", periods=9))
DAY = pd.to_datetime(["2020-01-01"]).tz_localize("UTC")
PAYLOAD = np.array([1.0, np.nan])
PAYLOAD.view(np.uint64)[1] |= 12_345


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(NUMBERS, with_value(NUMBERS, 15_000, -1.0), id="a number after row 10,000"),
        pytest.param(FLAGS, with_value(FLAGS, 5, not FLAGS[5]), id="a flag"),
        pytest.param(TIMES, with_value(TIMES, 3, pd.Timestamp("1999-01-01")), id="a time"),
        pytest.param(np.arange(9, dtype="int32"), np.arange(9, dtype="int64"), id="int32 and int64"),
        pytest.param(["a", "b", None], ["a", "c", None], id="a text in a column with a null"),
        pytest.param(DAY.tz_localize(None), DAY, id="no time zone and UTC"),
        pytest.param(DAY, DAY.tz_convert("Europe/Vienna"), id="time zones of one instant"),
        pytest.param(
            pd.Categorical(["a", "b"], categories=["a", "b"]),
            pd.Categorical(["a", "b"], categories=["b", "a"]),
            id="order of categories",
        ),
    ],
)
def test_what_mlflow_takes_for_the_same_data_is_told_apart(one: Any, other: Any) -> None:
    assert theirs(one) == theirs(other)
    assert ours(one) != ours(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([1.0, 2.0], [2.0, 1.0], id="order of rows"),
        pytest.param([0.0], [-0.0], id="zero and minus zero"),
    ],
)
def test_what_mlflow_tells_apart_is_told_apart_too(one: Any, other: Any) -> None:
    assert theirs(one) != theirs(other)
    assert ours(one) != ours(other)


def test_missing_numbers_with_other_bits_are_equal_though_mlflow_tells_them_apart() -> None:
    quiet = np.array([1.0, np.nan])
    assert theirs(quiet) != theirs(PAYLOAD)
    assert ours(quiet) == ours(PAYLOAD)
