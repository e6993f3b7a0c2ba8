"""raw_data: a source becomes snapshots, by month where the model is partitioned; bad data leaves none behind."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.data_spec import ColumnContract, ContractSpec, PartitionSpec, SourceSpec, TargetSpec
from release_platform.domain.errors import ContractError, DataError, SourceError
from release_platform.domain.features import ColumnType
from release_platform.domain.gate_spec import GateSpec
from release_platform.domain.metrics import Task
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import EstimatorSpec
from release_platform.pipeline.ingest import data_differences, ingest, preview, read_raw
from tests.fakes.clock import FakeClock

MONTHS = PartitionSpec(column="at", start="2020-01", end="2020-03")
CSV = """at,x,y
2020-02-29T23:59:59,1,a
2020-01-31T23:59:59,2,b
2020-03-01,3,b
2019-12-31,4,a
2020-02-01,5,a
"""


def spec(**changes: Any) -> ModelSpec:
    columns = {
        "at": ColumnContract(type=ColumnType.TIMESTAMP, nullable=True),
        "x": ColumnContract(type=ColumnType.NUMBER, maximum=10),
        "y": ColumnContract(type=ColumnType.CATEGORY),
    }
    given: dict[str, Any] = {
        "name": "m",
        "task": Task.BINARY,
        "owner": "team:ml",
        "source": SourceSpec(csv="d.csv"),
        "contract": ContractSpec(columns=columns, minimum_rows=1),
        "target": TargetSpec(column="y", positive="a"),
        "estimator": EstimatorSpec(type="sklearn.linear_model.LogisticRegression"),
        "features": ("x",),
        "gates": (GateSpec(name="floor", metric="roc_auc", minimum=0.5),),
    }
    return ModelSpec(**(given | changes))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "d.csv").write_text(CSV)
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(str(tmp_path / "snapshots"))


def stored(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "snapshots").glob("*"))


def test_without_partitions_there_is_one_snapshot_of_all_rows(base: Path, store: SnapshotStore) -> None:
    found = ingest(spec(), base=base, store=store)
    assert list(found) == [None]
    snapshot = found[None]
    assert store.read(snapshot)["x"].tolist() == [1, 2, 3, 4, 5]
    assert snapshot.preview.splitlines()[:3] == [
        "| at | x | y |",
        "| --- | --- | --- |",
        "| 2020-02-29 23:59:59 | 1 | a |",
    ]


def test_ingesting_again_stores_nothing_new(base: Path, store: SnapshotStore) -> None:
    first = ingest(spec(), base=base, store=store)
    files = {path: path.stat().st_mtime_ns for path in (base / "snapshots").iterdir()}
    assert ingest(spec(), base=base, store=store) == first
    assert {path: path.stat().st_mtime_ns for path in (base / "snapshots").iterdir()} == files


def test_each_month_is_a_snapshot_of_its_rows_in_their_order(base: Path, store: SnapshotStore) -> None:
    found = ingest(spec(partitions=MONTHS), base=base, store=store)
    rows = {str(key): store.read(snapshot)["x"].tolist() for key, snapshot in found.items()}
    assert rows == {"2020-01": [2], "2020-02": [1, 5], "2020-03": [3]}


def test_only_the_wanted_months_are_taken_and_checked(base: Path, store: SnapshotStore) -> None:
    (base / "d.csv").write_text(CSV.replace("2020-03-01,3", "2020-03-01,99"))
    assert list(ingest(spec(partitions=MONTHS), base=base, store=store, partitions=["2020-02"])) == ["2020-02"]
    with pytest.raises(ContractError, match=r"row 3 \(99\.0\)"):
        ingest(spec(partitions=MONTHS), base=base, store=store, partitions=["2020-01", "2020-03"])


def test_an_empty_and_an_unknown_month_and_a_row_without_time_are_told(base: Path, store: SnapshotStore) -> None:
    months = PartitionSpec(column="at", start="2020-01", end="2020-04")
    with pytest.raises(DataError, match=r"no row has its 'at' in 2020-04"):
        ingest(spec(partitions=months), base=base, store=store)
    with pytest.raises(DataError, match=r"there is no partition 2020-05"):
        ingest(spec(partitions=months), base=base, store=store, partitions=["2020-05"])
    (base / "d.csv").write_text(CSV + ",6,a\n")
    with pytest.raises(DataError, match=r"d\.csv, row 6, column 'at': 1 row\(s\) have no time"):
        ingest(spec(partitions=MONTHS), base=base, store=store)
    assert stored(base) == []


def test_of_an_open_end_what_is_not_there_yet_is_waited_for_only_if_it_is_named(
    base: Path, store: SnapshotStore
) -> None:
    months, clock = PartitionSpec(column="at", start="2020-01"), FakeClock(datetime(2020, 3, 31, 23, 59, tzinfo=UTC))
    assert list(ingest(spec(partitions=months), base=base, store=store, now=clock.now())) == ["2020-01", "2020-02"]
    clock.pass_s(60)
    of_now = ["2020-01", "2020-02", "2020-03"]
    assert list(ingest(spec(partitions=months), base=base, store=store, now=clock.now())) == of_now
    clock.pass_s(30 * 86_400)
    assert list(ingest(spec(partitions=months), base=base, store=store, now=clock.now())) == of_now
    with pytest.raises(DataError, match=r"no row has its 'at' in 2020-04") as refused:
        ingest(spec(partitions=months), base=base, store=store, partitions=[*of_now, "2020-04"], now=clock.now())
    assert "`--partitions 2020-01:2020-03`" in refused.value.remedy
    with pytest.raises(DataError, match=r"there is no partition 2020-05"):
        ingest(spec(partitions=months), base=base, store=store, partitions=["2020-05"], now=clock.now())
    (base / "d.csv").write_text("at,x,y\n2020-05-01,1,a\n")
    with pytest.raises(DataError, match="no row has its 'at' in a month that is over"):
        ingest(spec(partitions=months), base=base, store=store, now=clock.now())


@pytest.mark.parametrize(
    ("line", "error"),
    [("2020-01-01,abc,a", SourceError), ("2020-01-01,11,a", ContractError), ("2020-01-01,1", SourceError)],
)
def test_bad_data_leaves_no_snapshot_behind(
    base: Path, store: SnapshotStore, line: str, error: type[Exception]
) -> None:
    (base / "d.csv").write_text(f"{CSV}{line}\n")
    with pytest.raises(error, match="row 6"):
        ingest(spec(), base=base, store=store)
    assert stored(base) == []


def test_months_are_read_back_together_in_their_order(base: Path, store: SnapshotStore) -> None:
    found = ingest(spec(partitions=MONTHS), base=base, store=store)
    frame = read_raw(store, {str(key): found[key] for key in reversed(list(found))})
    assert frame["x"].tolist() == [2, 1, 5, 3]
    assert list(frame.index) == [0, 1, 2, 3]
    assert [str(kind) for kind in frame.dtypes] == ["datetime64[us]", "float64", "string"]


def test_what_changed_between_snapshots_is_told(base: Path, store: SnapshotStore) -> None:
    before = ingest(spec(), base=base, store=store)[None]
    (base / "d.csv").write_text(CSV.replace("2020-02-01,5,a", "2020-02-01,5,b"))
    after = ingest(spec(), base=base, store=store)[None]
    assert data_differences(before, before) == ()
    assert data_differences(before, after) == ("column 'y' differs in 1 block(s) of rows, the first at rows 1 to 5",)


def test_a_preview_is_a_table_that_markdown_can_show() -> None:
    frame = pd.DataFrame({"a": ["x|y\nz", None, "w" * 50], "b": [1.5, None, 1e9]})
    assert preview(frame).splitlines()[2:] == [r"| x\|y z | 1.5 |", "|  |  |", f"| {'w' * 37}... | 1e+09 |"]
