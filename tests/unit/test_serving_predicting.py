"""The route of a path is found, short or long, and clients cannot fill the memory with paths."""

import tracemalloc

import pytest

from serving.predicting import Directory
from serving.routes.native import PREDICT_ROUTES


def named(n_bytes: int) -> str:
    """Returns the name of a model whose path to predict has that many bytes."""
    return "m" * (n_bytes - len("/v1/models//predict"))


@pytest.mark.parametrize("n_bytes", [100, 256, 257, 60_000])
def test_a_path_of_any_length_leads_to_its_route(n_bytes: int) -> None:
    directory = Directory(PREDICT_ROUTES)
    path = f"/v1/models/{named(n_bytes)}/predict"
    wanted = (PREDICT_ROUTES[0], named(n_bytes), None)
    for _ in range(2):
        assert directory.find(path) == wanted
        assert directory.find_url(path.encode()) == wanted
        assert directory.find(f"{path}/none") is None
        assert directory.find_url(f"{path}?".encode()) is None


def test_long_paths_are_not_kept() -> None:
    directory = Directory(PREDICT_ROUTES)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(300):
            assert directory.find_url(f"/v1/models/{n}{named(60_000)}/predict".encode()) is not None
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
