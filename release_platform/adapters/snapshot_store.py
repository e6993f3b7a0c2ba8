"""Keeps snapshots as Parquet, named by the digest of their content, in a folder or behind `s3://`.

```
<root>/<digest>.parquet    the data: float64, Int64, boolean, string, timestamp[us]; written once, never changed
<root>/<digest>.json       its fingerprint and the Parquet file's SHA-256; written last: without it nothing is there
```

A file appears complete or not at all. Two writers of one snapshot write the same bytes, so it does not matter who wins.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from release_platform.adapters.s3_files import s3_files
from release_platform.adapters.whole_files import write_whole
from release_platform.domain.errors import IntegrityError, Unavailable
from release_platform.domain.fingerprint import Fingerprint
from release_platform.domain.identity import PREFIX, digest_of_bytes
from release_platform.domain.snapshot import Snapshot, StoredData

_PANDAS: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.large_string(): pd.StringDtype("pyarrow"),
}
_DTYPES = (*_PANDAS.values(), np.dtype("float64"), np.dtype("datetime64[us]"))
_FULL = {errno.ENOSPC, errno.EDQUOT}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Returns a table of float64, int64, bool, large_string and timestamp[us] columns in the snapshot dtypes.

    Missing values are NaN, NA or NaT; rows are indexed from 0.
    """
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS.get, ignore_metadata=True)
    return frame


def to_table(frame: pd.DataFrame) -> pa.Table:
    """Returns a data frame of the snapshot dtypes as a table, missing values as nulls; the reverse of `to_frame`.

    Raises:
        ValueError: A column has another dtype, which would come back changed.
    """
    strange = [f"'{name}' ({kind!r})" for name, kind in frame.dtypes.items() if kind not in _DTYPES]
    if strange:
        raise ValueError(f"not in a snapshot dtype: {', '.join(strange)}")
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A snapshot as it lies in the store: its address, its size, and when it was written (UTC)."""

    uri: str
    size_bytes: int
    written_at: datetime


class SnapshotStore:
    """Immutable snapshots, each stored once.

    Args:
        root: A folder, made when the first snapshot is stored, or `s3://bucket/prefix`. For S3 the standard variables
            count: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/") if root.startswith("s3://") else str(Path(root).expanduser().absolute())

    def put(self, frame: pd.DataFrame, fingerprint: Fingerprint, *, preview: str = "") -> Snapshot:
        """Returns the snapshot of a data frame, stored now unless it already is.

        Args:
            frame: Data in the snapshot dtypes (float64, Int64, boolean, string[pyarrow], datetime64[us]).
            fingerprint: Its fingerprint, which names it.
            preview: Its first rows for people; not kept in the store.

        Raises:
            Unavailable: The store cannot be written, or is full. Nothing of the snapshot is left there.
        """
        uri = f"{self._root}/{_name(fingerprint)}.parquet"
        size = self._find_intact(uri)
        if size is None:
            size = self._write(uri, to_table(frame), fingerprint)
        return Snapshot(uri=uri, fingerprint=fingerprint, n_rows=len(frame), size_bytes=size, preview=preview)

    def read(self, snapshot: Snapshot | StoredData) -> pd.DataFrame:
        """Returns the data of a snapshot, in the dtypes that it was stored with.

        Raises:
            IntegrityError: The file is gone, or is not the one that was written.
            Unavailable: The store does not answer.
        """
        data = self._verified(snapshot)  # the bytes that were checked are the bytes that are read
        return to_frame(pq.read_table(pa.BufferReader(data)))

    def get(self, uri: str) -> Snapshot:
        """Returns the snapshot that is stored at an address.

        Raises:
            IntegrityError: There is none, or its record cannot be read.
            Unavailable: The store does not answer.
        """
        with _translated(uri):
            filesystem, path = _open(uri)
            try:
                record = json.loads(_read(filesystem, _record_of(path)))
                fingerprint = Fingerprint.from_json(record["fingerprint"])
                size_bytes = int(record["size_bytes"])
            except FileNotFoundError:
                raise _damaged(uri, "is gone") from None
            except (ValueError, KeyError, TypeError):
                raise _damaged(_record_of(uri), "cannot be read") from None
        return Snapshot(uri=uri, fingerprint=fingerprint, n_rows=fingerprint.n_rows, size_bytes=size_bytes)

    def read_as_found(self, uri: str) -> pd.DataFrame:
        """Returns whatever data the file at an address holds now, unchecked: to say what changed, never to train on.

        Raises:
            IntegrityError: The file is gone, or no snapshot's Parquet.
            Unavailable: The store does not answer.
        """
        with _translated(uri):
            filesystem, path = _open(uri)
            try:
                data = _read(filesystem, path)
            except FileNotFoundError:
                raise _damaged(uri, "is gone") from None
        try:
            return to_frame(pq.read_table(pa.BufferReader(data)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(uri, f"cannot be read as Parquet: {str(error).splitlines()[0]}") from None

    def files(self) -> tuple[StoredFile, ...]:
        """Returns every snapshot in the store, by address.

        Raises:
            Unavailable: The store does not answer.
        """
        with _translated(self._root):
            filesystem, path = _open(self._root)
            selector = pafs.FileSelector(path, allow_not_found=True)
            found = [info for info in filesystem.get_file_info(selector) if info.path.endswith(".parquet")]
        return tuple(
            StoredFile(uri=f"{self._root}/{info.base_name}", size_bytes=int(info.size), written_at=info.mtime)
            for info in sorted(found, key=lambda info: info.path)
        )

    def delete(self, uri: str) -> None:
        """Deletes a snapshot, its record first: without it nothing is there. Does nothing when it is gone.

        Raises:
            Unavailable: The store does not answer.
        """
        with _translated(uri):
            filesystem, path = _open(uri)
            for place in (_record_of(path), path):
                with suppress(FileNotFoundError):
                    filesystem.delete_file(place)

    def verify(self, snapshot: Snapshot | StoredData) -> None:
        """Compares a snapshot's stored bytes with those that were written.

        Raises:
            IntegrityError: The file is gone, or is not the one that was written.
            Unavailable: The store does not answer.
        """
        self._verified(snapshot)

    def _verified(self, snapshot: Snapshot | StoredData) -> bytes:
        with _translated(snapshot.uri):
            filesystem, path = _open(snapshot.uri)
            try:
                record = json.loads(_read(filesystem, _record_of(path)))
                data = _read(filesystem, path)
            except FileNotFoundError:
                raise _damaged(snapshot.uri, "is gone") from None
            except ValueError:
                raise _damaged(_record_of(snapshot.uri), "cannot be read") from None
        if not isinstance(record, dict) or record.get("sha256") != digest_of_bytes(data):
            raise _damaged(snapshot.uri, "does not hold the bytes that were written")
        if (
            record.get("fingerprint", {}).get("digest") != snapshot.digest
            or snapshot.digest.removeprefix(PREFIX) not in path
        ):
            raise _damaged(snapshot.uri, "is another snapshot than the one asked for")
        return data

    def _find_intact(self, uri: str) -> int | None:
        """Returns the size of a stored file, or None where there is none of the size that was written."""
        with _translated(uri):
            filesystem, path = _open(uri)
            try:
                wanted = json.loads(_read(filesystem, _record_of(path)))["size_bytes"]
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
            size = filesystem.get_file_info(path).size
            return int(size) if size == wanted else None

    def _write(self, uri: str, table: pa.Table, fingerprint: Fingerprint) -> int:
        with _translated(uri):
            filesystem, path = _open(uri)
            data = _encoded(table)
            record = {"sha256": digest_of_bytes(data), "size_bytes": data.size, "fingerprint": fingerprint.to_json()}
            for place, content in ((path, data), (_record_of(path), json.dumps(record).encode())):
                if isinstance(filesystem, pafs.LocalFileSystem):
                    Path(place).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(Path(place), content, mode=0o644)
                else:
                    with filesystem.open_output_stream(place) as stream:
                        stream.write(content)
            return int(data.size)


def _name(fingerprint: Fingerprint) -> str:
    return fingerprint.digest.removeprefix(PREFIX)


def _record_of(path: str) -> str:
    return path.removesuffix(".parquet") + ".json"


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    if not uri.startswith("s3://"):
        return pafs.LocalFileSystem(), uri
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return s3_files(bucket), f"{bucket}/{key}"


def _read(filesystem: pafs.FileSystem, path: str) -> bytes:
    with filesystem.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def _encoded(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy")
    return sink.getvalue()


def _damaged(uri: str, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{uri} {problem}",
        remedy="restore the file from a backup, or delete it and materialize raw_data again",
    )


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """The one place where exceptions of the file system and of S3 become the platform's."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                f"{uri}: there is no room left to store the snapshot",
                remedy="free space, or set RELEASE_SNAPSHOTS to a folder or bucket with room, and run again",
            ) from error
        raise Unavailable(
            f"{uri}: the snapshot store does not answer: {str(error).splitlines()[0]}",
            remedy="check RELEASE_SNAPSHOTS and the right to write there; for s3:// also AWS_ENDPOINT_URL, AWS_REGION "
            "and the AWS credentials",
        ) from error
