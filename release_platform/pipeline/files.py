"""Finds and reads data files: CSV (also compressed) and Parquet, on disk or behind `s3://`, one or a glob of them."""

import difflib
import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from release_platform.adapters.s3_files import s3_files
from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType

_MAGIC = re.compile(r"[*?]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file that exists.

    Attributes:
        filesystem: Where it is.
        path: Its path there.
        name: How messages call it.
        size_bytes: Its size as it is stored.
    """

    filesystem: pafs.FileSystem
    path: str
    name: str
    size_bytes: int


def find_files(address: str, *, base: Path) -> tuple[DataFile, ...]:
    """Returns the files of a path, a glob or an `s3://` address, in the order of their names.

    Args:
        address: A path, relative to `base` or absolute; `*`, `?` and `**` match as in a shell.
        base: The folder of the model's `defs.yaml`.

    Raises:
        SourceError: There is none, one is empty, or the address is a folder.
    """
    files = _on_s3(address) if address.startswith("s3://") else _on_disk(address, base)
    for file in files:
        if file.size_bytes == 0:
            raise SourceError("the file is empty", remedy="write the data again at its source", source=file.name)
    return files


def _on_disk(address: str, base: Path) -> tuple[DataFile, ...]:
    path = base / Path(address).expanduser()
    if path.is_dir():
        raise SourceError(
            "is a folder", remedy=f"write {address.rstrip('/')}/*.csv or the name of a file", source=str(path)
        )
    if path.exists():
        found = [path]
    elif glob.has_magic(address):
        found = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if p.is_file()]  # noqa: PTH207
        if not found:
            raise SourceError("no file matches", remedy="correct the pattern in `source`", source=str(path))
    else:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SourceError("there is no such file", remedy=_remedy(path.name, siblings, base), source=str(path))
    local = pafs.LocalFileSystem()
    return tuple(DataFile(filesystem=local, path=str(p), name=str(p), size_bytes=p.stat().st_size) for p in found)


def _remedy(name: str, siblings: Iterable[str], base: Path) -> str:
    near = difflib.get_close_matches(name, list(siblings), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}correct the path in `source`; relative paths start at {base}"


def _on_s3(address: str) -> tuple[DataFile, ...]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise SourceError("is not `s3://bucket/key`", remedy="name bucket and key in `source`", source=address)
    filesystem = s3_files(bucket)
    if _MAGIC.search(key):
        fixed = key[: _MAGIC.search(key).start()].rpartition("/")[0]  # type: ignore[union-attr]
        selector = pafs.FileSelector(f"{bucket}/{fixed}".rstrip("/"), recursive=True, allow_not_found=True)
        pattern = _compiled(f"{bucket}/{key}")
        infos = [i for i in filesystem.get_file_info(selector) if i.is_file and pattern.fullmatch(i.path)]
    else:
        infos = [i for i in [filesystem.get_file_info(f"{bucket}/{key}")] if i.is_file]
    if not infos:
        raise SourceError("there is no such object", remedy="correct bucket and key in `source`", source=address)
    return tuple(
        DataFile(filesystem=filesystem, path=info.path, name=f"s3://{info.path}", size_bytes=info.size)
        for info in sorted(infos, key=lambda info: info.path)
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)))


def read_parquet(file: DataFile, columns: Mapping[str, ColumnType]) -> pa.Table:
    """Returns the named columns of a Parquet file.

    Raises:
        SourceError: A column is missing.
    """
    with file.filesystem.open_input_file(file.path) as stream, pq.ParquetFile(stream) as parquet:
        require_columns(file.name, columns, parquet.schema_arrow.names)
        return parquet.read(columns=list(columns))


def parquet_names(file: DataFile) -> list[str]:
    """Returns the column names of a Parquet file."""
    with file.filesystem.open_input_file(file.path) as stream, pq.ParquetFile(stream) as parquet:
        return list(parquet.schema_arrow.names)


def parquet_bytes(file: DataFile, columns: Mapping[str, ColumnType]) -> float:
    """Returns about how much memory the named columns of a Parquet file take as a table."""
    with file.filesystem.open_input_file(file.path) as stream, pq.ParquetFile(stream) as parquet:
        metadata = parquet.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    stored = sum(
        group.column(i).total_uncompressed_size
        for group in groups
        for i in range(group.num_columns)
        if group.column(i).path_in_schema in columns
    )
    return float(max(stored, metadata.num_rows * len(columns) * 8))


def require_columns(name: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Requires that a source has the wanted columns, each once.

    Raises:
        SourceError: One is missing, or is there twice.
    """
    have = list(found)
    for column in wanted:
        if column not in have:
            raise SourceError("there is no such column", remedy=_missing(column, have), source=name, column=column)
        if have.count(column) > 1:
            raise SourceError(
                f"there are {have.count(column)} columns of this name",
                remedy="give each column its own name",
                source=name,
                column=column,
            )


def _missing(column: str, have: list[str]) -> str:
    if len(have) == 1 and re.search(r"[;\t|]", have[0]):
        return "its columns seem to be separated by something else than commas; write it with commas"
    near = difflib.get_close_matches(column, have, n=1) or [n for n in have if n.strip().lower() == column.lower()]
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}the source has: {', '.join(have[:30])}{', ...' if len(have) > 30 else ''}"
