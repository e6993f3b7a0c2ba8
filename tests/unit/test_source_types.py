"""The types that a source gave count: what casting makes the same is told apart, by fingerprint and by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import ColumnContract, ContractSpec, SourceSpec, TargetSpec
from release_platform.domain.errors import ReleaseError
from release_platform.domain.features import ColumnType
from release_platform.domain.fingerprint import Fingerprint
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.metrics import Task
from release_platform.domain.snapshot import Snapshot
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import EstimatorSpec
from release_platform.pipeline.ingest import data_differences, ingest

N_ROWS = 4
TIMES = pd.date_range("2026-01-01", periods=N_ROWS, tz="UTC")
ONE_WAY = pd.Categorical(["a", "b"] * 2, categories=["a", "b"])
OTHER_WAY = pd.Categorical(["a", "b"] * 2, categories=["b", "a"])


def raw(folder: Path, source: SourceSpec, kind: ColumnType) -> Snapshot:
    columns = {
        "x": ColumnContract(type=kind),
        "y": ColumnContract(type=ColumnType.CATEGORY),
        "z": ColumnContract(type=ColumnType.NUMBER),
    }
    spec = ModelSpec(
        name="m",
        task=Task.BINARY,
        owner="team:ml",
        source=source,
        contract=ContractSpec(columns=columns, minimum_rows=1),
        target=TargetSpec(column="y", positive="a"),
        estimator=EstimatorSpec(type="sklearn.linear_model.LogisticRegression"),
        features=("z",),
        gates=(GateSpec(name="floor", metric="roc_auc", minimum=0.5),),
    )
    return ingest(spec, base=folder, store=SnapshotStore(str(folder / "snapshots")))[None]


def from_parquet(folder: Path, values: Any, kind: ColumnType) -> Snapshot:
    pd.DataFrame({"x": values, "y": ["a", "b"] * 2, "z": 1.0}).to_parquet(folder / "d.parquet", row_group_size=2)
    return raw(folder, SourceSpec(parquet="d.parquet"), kind)


@pytest.mark.parametrize(
    ("one", "other", "kind", "said"),
    [
        (np.arange(N_ROWS, dtype="int32"), np.arange(N_ROWS), ColumnType.INTEGER, "int64 instead of int32"),
        (np.arange(N_ROWS) > 1, (np.arange(N_ROWS) > 1).astype(int), ColumnType.BOOLEAN, "int64 instead of bool"),
        (
            TIMES,
            TIMES.tz_convert("Europe/Vienna"),
            ColumnType.TIMESTAMP,
            "timestamp[ns, tz=Europe/Vienna] instead of timestamp[ns, tz=UTC]",
        ),
        (ONE_WAY, OTHER_WAY, ColumnType.CATEGORY, "category('b', 'a') instead of category('a', 'b')"),
        (
            ONE_WAY,
            ONE_WAY.as_ordered(),
            ColumnType.CATEGORY,
            "ordered category('a', 'b') instead of category('a', 'b')",
        ),
        (ONE_WAY, list(ONE_WAY), ColumnType.CATEGORY, "string instead of category('a', 'b')"),
    ],
)
def test_what_casting_makes_the_same_is_told_apart(
    tmp_path: Path, one: Any, other: Any, kind: ColumnType, said: str
) -> None:
    before, after = from_parquet(tmp_path, one, kind), from_parquet(tmp_path, other, kind)
    assert before.digest != after.digest
    assert data_differences(before, after) == (f"column 'x' came from its source as {said}",)
    store = SnapshotStore(str(tmp_path / "snapshots"))
    pd.testing.assert_frame_equal(store.read(before), store.read(after))


def test_many_categories_are_told_by_their_number_and_digest(tmp_path: Path) -> None:
    names = [f"category {i}" for i in range(99)]
    before = from_parquet(tmp_path, pd.Categorical(names[:N_ROWS], categories=names), ColumnType.CATEGORY)
    turned = pd.Categorical(names[:N_ROWS], categories=names[::-1])
    (said,) = data_differences(before, from_parquet(tmp_path, turned, ColumnType.CATEGORY))
    assert said.count("99 values sha256:") == 2


def test_a_csv_file_has_no_types_so_how_a_number_is_written_does_not_count(tmp_path: Path) -> None:
    digests = set()
    for written in ("1", "1.0"):
        (tmp_path / "d.csv").write_text(f"x,y,z\n{written},a,1\n2,b,1\n")
        digests.add(raw(tmp_path, SourceSpec(csv="d.csv"), ColumnType.NUMBER).digest)
    assert len(digests) == 1


def test_a_fingerprint_that_was_written_without_types_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y,z\n1,a,1\n2,b,1\n")
    found = raw(tmp_path, SourceSpec(csv="d.csv"), ColumnType.NUMBER).fingerprint
    written = found.to_json()
    for column in written["columns"]:
        del column["source"]
    assert Fingerprint.from_json(written) == found


def test_a_missing_column_is_told_as_before(tmp_path: Path) -> None:
    pd.DataFrame({"y": ["a", "b"], "z": 1.0}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(ReleaseError, match="'x'"):
        raw(tmp_path, SourceSpec(parquet="d.parquet"), ColumnType.NUMBER)
