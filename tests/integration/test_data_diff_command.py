"""`release data diff` on stored snapshots: in their order, and in any order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.pipeline.ingest import store_frame
from tests.integration.homes import Done, release_in

FRAME = pd.DataFrame({"x": np.arange(4.0), "w": pd.array(["a", "b", None, "a"], dtype="string[pyarrow]")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


def diff(folder: Path, after: pd.DataFrame, *options: str) -> Done:
    store = SnapshotStore(str(folder / "snapshots"))
    uris = [store_frame(frame, store).uri for frame in (FRAME, after)]
    done = release_in(folder, "data", "diff", *uris, *options)
    assert done.exit_code == 0, done.err
    return done


def test_rows_in_another_order_differ_unless_any_order_will_do(folder: Path) -> None:
    turned = FRAME.iloc[::-1].reset_index(drop=True)
    assert "the rows are the same, in another order" in diff(folder, turned).out
    assert diff(folder, turned, "--any-order").out == "the same rows, whatever their order\n"
    found = diff(folder, turned, "--any-order", "--json").json
    assert found["same_rows_in_any_order"] is True
    assert found["only_before"] == found["only_after"] == {"count": 0, "first_rows": []}


def test_in_any_order_only_the_rows_that_are_not_in_both_are_named(folder: Path) -> None:
    after = FRAME.iloc[[3, 2, 0, 0]].reset_index(drop=True)
    assert diff(folder, after, "--any-order").out == (
        "- 1 row(s) only before, the first: 2\n- 1 row(s) only after, the first: 3\n"
    )


def test_in_any_order_another_column_is_named_and_rows_are_not_compared(folder: Path) -> None:
    found = diff(folder, FRAME.assign(z=1.0), "--any-order", "--json").json
    assert found["differences"] == ["column 'z' is new"]
    assert found["same_rows_in_any_order"] is False
    assert found["only_before"] is None


def test_what_is_neither_a_version_nor_a_file_is_named(folder: Path) -> None:
    done = release_in(folder, "data", "diff", "digits@production", "digits/1")
    assert done.exit_code != 0
    assert "'digits@production' is neither MODEL/VERSION of a known model nor a file" in done.err
