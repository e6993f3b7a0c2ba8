"""Parquet data sets, on disk or behind `s3://`: their row groups, the digest of one, and outputs that appear whole."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from release_platform.domain.errors import ReleaseError, SourceError, Unavailable
from release_platform.domain.identity import PREFIX
from release_platform.domain.scoring import SUFFIX

_S3 = "s3://"
_PIECE_BYTES = 1024**2
_FOOTERS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """One file of a data set.

    Attributes:
        address: A path, or `s3://bucket/key`.
        relative: Its path below that of the data set.
        rows: How many rows each of its row groups has.
    """

    address: str
    relative: str
    rows: tuple[int, ...]


def parquet_files(address: str) -> tuple[ParquetFile, ...]:
    """Returns the Parquet files of a data set: the file at an address, or all below it, in the order of their paths.

    Files and folders whose names begin with a dot or an underscore are left out, as other readers do.

    Raises:
        SourceError: There is none, or one is no Parquet.
        Unavailable: The storage does not answer.
    """
    address = normal(address)
    found = list_parquet(address)
    if not found:
        raise SourceError("there is no Parquet file", remedy="correct the address", source=address)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as threads:
        rows = list(threads.map(_rows, found))
    base = PurePosixPath(address).parent if found == [address] else PurePosixPath(address)
    return tuple(
        ParquetFile(address=one, relative=PurePosixPath(one).relative_to(base).as_posix(), rows=n)
        for one, n in zip(found, rows, strict=True)
    )


def normal(address: str) -> str:
    """Returns an address as all functions here write it: `s3://bucket/key` without a slash at its end, or a path."""
    return address.rstrip("/") if address.startswith(_S3) else str(Path(address).expanduser().absolute())


def list_parquet(address: str) -> list[str]:
    """Returns the addresses of the Parquet files at and below an address; none where nothing is there.

    Raises:
        Unavailable: The storage does not answer.
    """
    address = normal(address)
    with translated(address):
        filesystem, path = _open(address)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [address]
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        files = [one.path for one in filesystem.get_file_info(selector) if one.type == pafs.FileType.File]
    scheme = _S3 if address.startswith(_S3) else ""
    return sorted(scheme + file for file in files if file.endswith(SUFFIX) and not _is_hidden(file[len(path) :]))


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.strip("/").split("/"))


def _rows(address: str) -> tuple[int, ...]:
    with reading(address) as file:
        return tuple(file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups))


def remove_file(address: str) -> None:
    """Removes a file for good; does nothing when it is gone.

    Raises:
        Unavailable: The storage does not answer.
    """
    with translated(address):
        filesystem, path = _open(address)
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            filesystem.delete_file(path)


@contextmanager
def reading(address: str) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file, to be read in pieces; it must not change meanwhile.

    Raises:
        SourceError: It is gone, no Parquet, or was changed while it was read.
        Unavailable: The storage does not answer.
    """
    with translated(address):
        filesystem, path = _open(address)
        before = filesystem.get_file_info(path)
        with filesystem.open_input_file(path) as stream:
            yield pq.ParquetFile(stream, buffer_size=_PIECE_BYTES)
        after = filesystem.get_file_info(path)
    if (before.size, before.mtime_ns) != (after.size, after.mtime_ns):
        raise SourceError("was changed while it was read", remedy="score it again", source=address)


def group_digest(address: str, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> str:
    """Returns the digest of some columns of a row group as they are stored, with their types.

    Args:
        address: The file.
        file: The same, open.
        group: Number of the row group.
        columns: Names of columns that are there.

    Raises:
        Unavailable: The storage does not answer.
    """
    listed, wanted = file.metadata.row_group(group), set(columns)
    digest = hashlib.sha256(f"{listed.num_rows}".encode())
    for name in sorted(wanted):
        digest.update(f"\n{name}: {file.schema_arrow.field(name).type}".encode())
    with translated(address):
        filesystem, path = _open(address)
        with filesystem.open_input_file(path) as stream:
            for place in range(listed.num_columns):
                column = listed.column(place)
                if column.path_in_schema.split(".")[0] in wanted:
                    _update(digest, stream, column)
    return PREFIX + digest.hexdigest()


def _update(digest: Any, stream: Any, column: Any) -> None:
    begins = [column.data_page_offset, column.dictionary_page_offset]
    stream.seek(min(begin for begin in begins if begin))
    left = column.total_compressed_size
    digest.update(f"\n{column.path_in_schema} {column.compression} {column.encodings} {left}\n".encode())
    while left > 0:
        piece = stream.read(min(left, _PIECE_BYTES))
        if not piece:
            raise pa.ArrowInvalid("it ends too early")
        digest.update(piece)
        left -= len(piece)


def find_names(address: str) -> Mapping[str, str] | None:
    """Returns the metadata of a Parquet file; None where there is none, or what is there cannot be read.

    Raises:
        Unavailable: The storage does not answer.
    """
    with translated(address):
        filesystem, path = _open(address)
        if filesystem.get_file_info(path).type != pafs.FileType.File:
            return None
        try:
            with filesystem.open_input_file(path) as stream:
                found = pq.read_schema(stream).metadata or {}
            return {name.decode(): value.decode() for name, value in found.items() if not name.startswith(b"ARROW:")}
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None


@contextmanager
def writing(address: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes a Parquet file that appears whole at the end, in the place of one that is there; nothing after an error.

    Raises:
        Unavailable: The storage does not answer, or is full.
    """
    with translated(address):
        filesystem, path = _open(address)
        is_local = isinstance(filesystem, pafs.LocalFileSystem)
        if is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=Path(path).parent if is_local else None, prefix=".score-")
        os.close(handle)
        fresh = Path(name)
        try:
            with pq.ParquetWriter(fresh, schema) as writer:
                yield writer
            _publish(fresh, filesystem, path)
        finally:
            fresh.unlink(missing_ok=True)


def _publish(fresh: Path, filesystem: pafs.FileSystem, path: str) -> None:
    if not isinstance(filesystem, pafs.LocalFileSystem):
        with fresh.open("rb") as file, filesystem.open_output_stream(path) as stream:
            shutil.copyfileobj(file, stream, _PIECE_BYTES)  # an object appears when its upload is complete
        return
    with fresh.open("rb+") as file:
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open(address: str) -> tuple[pafs.FileSystem, str]:
    if not address.startswith(_S3):
        return pafs.LocalFileSystem(), normal(address)
    bucket, _, key = address.removeprefix(_S3).partition("/")
    filesystem, _ = pafs.FileSystem.from_uri(f"{_S3}{bucket}")
    return filesystem, f"{bucket}/{key}".rstrip("/")


@contextmanager
def translated(address: str) -> Iterator[None]:
    """The one place where errors of Arrow, of the file system and of S3 become the platform's."""
    try:
        yield
    except ReleaseError:
        raise
    except FileNotFoundError:
        raise SourceError("is gone", remedy="see who removed it, and score again", source=address) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        said = str(error).splitlines()[0]
        raise SourceError(f"cannot be read as Parquet: {said}", remedy="write it again", source=address) from error
    except OSError as error:
        raise Unavailable(
            f"{address}: the storage does not answer: {str(error).splitlines()[0]}",
            remedy="check the address and the right to use it; for s3:// also AWS_ENDPOINT_URL, AWS_REGION and the "
            "AWS credentials",
        ) from error
