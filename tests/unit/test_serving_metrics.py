"""What is counted, and that counting many at once is counting each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from serving.metrics import observe_all

VALUES = st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.1000001, 0.5, 0.99, 1.0, 1.5]) | st.floats(0, 1), max_size=40)


def counted(observe):
    registry = CollectorRegistry()
    observe(Histogram("scores", "Scores.", buckets=(0.05, 0.1, 0.5, 1.0), registry=registry))
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.split() for line in lines if line[0] != "#")
        if "created" not in name
    }


@given(VALUES)
def test_many_values_at_once_are_counted_as_each_of_them_is(values):
    at_once = counted(lambda histogram: observe_all(histogram, np.array(values, dtype=np.float64)))
    one_by_one = counted(lambda histogram: [histogram.observe(value) for value in values])
    assert at_once == pytest.approx(one_by_one)
