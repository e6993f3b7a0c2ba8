"""The snapshot store: data comes back as it was stored, is stored once, and never unnoticed changed."""

import errno
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import IntegrityError, Unavailable
from release_platform.domain.fingerprint import fingerprint
from release_platform.domain.snapshot import Snapshot
from release_platform.pipeline.ingest import columns_of, store_frame
from tests.integration.s3_server import S3Server, running_s3

FRAME = pd.DataFrame(
    {
        "number": [1.5, np.nan, -0.0],
        "integer": pd.array([9_007_199_254_740_993, None, -1], dtype="Int64"),
        "boolean": pd.array([True, None, False], dtype="boolean"),
        "category": pd.array(["", None, "Grüße"], dtype="string[pyarrow]"),
        "timestamp": pd.Series(["2020-01-01T00:00:00.000001", None, "9999-12-31"], dtype="datetime64[us]"),
    }
)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        server.client().create_bucket(Bucket="snapshots")
        yield server


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnapshotStore:
    if request.param == "disk":
        return SnapshotStore(str(tmp_path / "a" / "b"))
    for name, value in request.getfixturevalue("s3").environment.items():
        monkeypatch.setenv(name, value)
    return SnapshotStore(f"s3://snapshots/{tmp_path.name}/")


@pytest.fixture
def on_disk(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(str(tmp_path))


class TestOnDiskAndS3:
    def test_data_comes_back_exactly(self, store: SnapshotStore) -> None:
        snapshot = store_frame(FRAME, store)
        found = store.read(snapshot)
        pd.testing.assert_frame_equal(found, FRAME)
        assert np.signbit(found["number"][2])
        assert fingerprint(columns_of(found), n_rows=3) == snapshot.fingerprint
        assert snapshot.uri.endswith(f"{snapshot.digest.removeprefix('sha256:')}.parquet")
        assert snapshot.n_rows == 3

    def test_a_snapshot_is_found_again_by_another_process(self, store: SnapshotStore) -> None:
        told = json.loads(json.dumps(store_frame(FRAME, store).to_json()))
        pd.testing.assert_frame_equal(store.read(Snapshot.from_json(told)), FRAME)
        store.verify(Snapshot.from_json(told))

    def test_storing_the_same_data_again_gives_the_same_snapshot(self, store: SnapshotStore) -> None:
        assert store_frame(FRAME, store) == store_frame(FRAME.copy(), store)

    def test_a_snapshot_that_was_never_stored_is_gone(self, store: SnapshotStore) -> None:
        found = fingerprint(columns_of(FRAME), n_rows=3)
        root = store_frame(FRAME[:1], store).uri.rpartition("/")[0]
        absent = Snapshot(uri=f"{root}/{found.digest[7:]}.parquet", fingerprint=found, n_rows=3, size_bytes=1)
        with pytest.raises(IntegrityError, match="is gone"):
            store.read(absent)

    def test_an_empty_table_comes_back(self, store: SnapshotStore) -> None:
        pd.testing.assert_frame_equal(store.read(store_frame(FRAME[:0], store)), FRAME[:0])


COLUMN = {
    "number": st.lists(st.floats(), min_size=3, max_size=3).map(np.array),
    "integer": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(
        lambda v: pd.array(v, dtype="Int64")
    ),
    "category": st.lists(st.none() | st.text(), min_size=3, max_size=3).map(
        lambda v: pd.Series(v, dtype="string[pyarrow]").array
    ),
}


@given(st.fixed_dictionaries(COLUMN))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_keeps_its_fingerprint(on_disk: SnapshotStore, columns: dict[str, Any]) -> None:
    frame = pd.DataFrame(columns)
    snapshot = store_frame(frame, on_disk)
    assert fingerprint(columns_of(on_disk.read(snapshot)), n_rows=3) == snapshot.fingerprint


@pytest.mark.parametrize("values", [[1, 2], ["a", "b"], [True, False], pd.array([1.5, None], dtype="Float64")])
def test_a_dtype_that_would_come_back_changed_is_refused(on_disk: SnapshotStore, values: Any) -> None:
    with pytest.raises(ValueError, match="not in a snapshot dtype: 'x'"):
        store_frame(pd.DataFrame({"x": values}), on_disk)


def test_a_stored_snapshot_is_not_written_again(on_disk: SnapshotStore) -> None:
    path = Path(store_frame(FRAME, on_disk).uri)
    before = path.stat()
    store_frame(FRAME, on_disk)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_many_writers_of_one_snapshot_leave_one_that_is_whole(on_disk: SnapshotStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        (snapshot,) = {
            found.uri: found for found in pool.map(lambda _: store_frame(FRAME, on_disk), range(16))
        }.values()
    pd.testing.assert_frame_equal(on_disk.read(snapshot), FRAME)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "forge", "swap"])
def test_a_changed_snapshot_is_never_read(on_disk: SnapshotStore, damage: str) -> None:
    snapshot = store_frame(FRAME, on_disk)
    other = store_frame(FRAME[:2], on_disk)
    path = Path(snapshot.uri)
    record = path.with_suffix(".json")
    content = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        case "cut":
            path.write_bytes(content[:-1])
        case "remove":
            path.unlink()
        case "record":
            record.write_text("{")
        case "forge":
            record.write_text("[]")
        case "swap":
            path.write_bytes(Path(other.uri).read_bytes())
            record.write_bytes(Path(other.uri).with_suffix(".json").read_bytes())
    for look in (on_disk.read, on_disk.verify):
        with pytest.raises(IntegrityError, match=r"(?s)->.*materialize raw_data again"):
            look(snapshot)
    assert len(on_disk.read(other)) == 2


@pytest.mark.parametrize("lost", [".parquet", ".json"])
def test_a_snapshot_that_lost_a_file_is_stored_again(on_disk: SnapshotStore, lost: str) -> None:
    snapshot = store_frame(FRAME, on_disk)
    Path(snapshot.uri).with_suffix(lost).unlink()
    assert store_frame(FRAME, on_disk) == snapshot
    on_disk.verify(snapshot)


class FullDisk:
    """A file that takes some bytes, then has no room."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._file.write(bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_and_leaves_nothing_behind(
    on_disk: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    opened = os.fdopen
    monkeypatch.setattr("os.fdopen", lambda *of, **more: FullDisk(opened(*of, **more)))
    with pytest.raises(Unavailable, match=r"no room left to store the snapshot\n  -> free space"):
        store_frame(FRAME, on_disk)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="does not answer"):
        store_frame(FRAME, SnapshotStore(str(tmp_path / "file" / "snapshots")))


def test_an_s3_that_does_not_answer_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**s3.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match=r"(?s)ACCESS_DENIED.*AWS credentials"):
        store_frame(FRAME, SnapshotStore("s3://snapshots/x"))
