"""A sample that a server tells becomes a value, or is refused where it could name a file of somebody else."""

import pytest

from release_platform.domain.samples import Sample
from release_platform.domain.windows import Route

TOLD = {
    "prediction_id": "9f0c-1b",
    "model": "churn",
    "version": "3",
    "route": "stable",
    "minute": 7,
    "n_rows": 2,
    "columns": {"age": [1, None]},
    "predictions": ["no", "yes"],
}


def test_what_a_server_tells_is_read_whole() -> None:
    sample = Sample.from_json(TOLD)

    assert (sample.replica, sample.n_rows, sample.route) == ("9f0c", 2, Route.STABLE)
    assert sample.columns == {"age": [1, None]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "../churn"},
        {"version": "../3"},
        {"prediction_id": "../x-1"},
        {"prediction_id": "9f0c"},
        {"route": "beside"},
        {"columns": {"age": [1]}},
        {"columns": {"age": "ab"}},
        {"minute": "7"},
    ],
)
def test_a_sample_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Sample.from_json({**TOLD, **wrong})
