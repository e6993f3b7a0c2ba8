"""Reads CSV files with Arrow. Where Arrow refuses a file, a second, slow pass finds the row that people can correct.

Comma-separated UTF-8 with a header, quoted as in RFC 4180. What pandas takes as missing is missing here: nothing, `NA`,
`NaN`, `null` and the like, in text columns too.
"""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.files import DataFile, require_columns

_NULLS = [*pyarrow.csv.ConvertOptions().null_values, "None", "<NA>"]
_TYPES = {ColumnType.NUMBER: pa.float64(), ColumnType.INTEGER: pa.int64(), ColumnType.BOOLEAN: pa.bool_()}
_SAMPLE_BYTES = 65_536
_UTF8_REMEDY = "save the file as UTF-8 (e.g. `iconv -f LATIN1 -t UTF-8`)"
_EXPANSION = {".gz": 8.0, ".bz2": 10.0, ".xz": 12.0}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zip": lambda stream: _only_member(stream),
}


def read_csv(file: DataFile, columns: Mapping[str, ColumnType]) -> pa.Table:
    """Returns the named columns of a CSV file: as their types where every value fits, all as text otherwise.

    Raises:
        SourceError: A column is missing, or a row cannot be read; names the row.
    """
    require_columns(file.name, columns, header_of(file))
    try:
        return _read(file, {name: _TYPES.get(kind, pa.large_string()) for name, kind in columns.items()})
    except pa.ArrowInvalid:
        pass
    try:
        return _read(file, dict.fromkeys(columns, pa.large_string()))
    except pa.ArrowInvalid as error:
        _explain(file)
        raise SourceError(str(error), remedy="correct the file at its source", source=file.name) from error


def csv_bytes(file: DataFile, columns: Mapping[str, ColumnType]) -> float:
    """Returns about how much memory the named columns of a CSV file take as a table, from its size and first rows."""
    header = header_of(file)
    with _opened(file) as stream:
        sample = stream.read(_SAMPLE_BYTES)
    rows = list(csv.reader(io.StringIO(sample.decode(errors="replace"))))[1:]
    whole = [row for row in rows[: max(1, len(rows) - 1)] if len(row) == len(header)]
    if not whole:
        return float(_unpacked_bytes(file))
    n_rows = _unpacked_bytes(file) * len(rows) / len(sample)
    means = {
        name: sum(len(row[header.index(name)]) for row in whole) / len(whole) for name in columns if name in header
    }
    return n_rows * sum(8.0 if columns[name] in _TYPES else 8.0 + mean for name, mean in means.items())


def header_of(file: DataFile) -> list[str]:
    """Returns the column names in the first row of a CSV file; none where there is no row.

    Raises:
        SourceError: They are not UTF-8.
    """
    with _opened(file) as stream:
        names = next((row for row in csv.reader(_lines(stream)) if row), [])
    if not all(map(_is_utf8, names)):
        raise SourceError("the header is not UTF-8", remedy=_UTF8_REMEDY, source=file.name)
    return names


def _read(file: DataFile, types: Mapping[str, pa.DataType]) -> pa.Table:
    with _opened(file) as stream:
        return pyarrow.csv.read_csv(
            stream,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict(types),
                include_columns=list(types),
                null_values=_NULLS,
                strings_can_be_null=True,
            ),
        )


@contextmanager
def _opened(file: DataFile) -> Iterator[IO[bytes]]:
    unpack = _UNPACK.get(PurePosixPath(file.path).suffix.lower())
    with file.filesystem.open_input_file(file.path) as stored:
        if unpack is None:
            yield stored
        else:
            with unpack(stored) as unpacked:
                yield unpacked


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]


def _only_member(stream: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(stream)
    members = _members(archive)
    if len(members) != 1:
        raise zipfile.BadZipFile(f"holds {len(members)} files, not one")
    return archive.open(members[0])


def _unpacked_bytes(file: DataFile) -> float:
    suffix = PurePosixPath(file.path).suffix.lower()
    if suffix == ".zip":
        with file.filesystem.open_input_file(file.path) as stream, zipfile.ZipFile(stream) as archive:
            return float(sum(member.file_size for member in _members(archive)))
    return file.size_bytes * _EXPANSION.get(suffix, 1.0)


def _lines(stream: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(file: DataFile) -> None:
    """Raises the SourceError that names the first row which cannot be read; returns when every row can."""
    with _opened(file) as stream:
        rows = csv.reader(_lines(stream))
        header = next(row for row in rows if row)
        for number, fields in enumerate((row for row in rows if row), start=1):
            if len(fields) != len(header):
                raise SourceError(
                    f"has {len(fields)} field(s), the header has {len(header)} (line {rows.line_num} of the file)",
                    remedy="correct the row; quote values that contain a comma or a line break",
                    source=file.name,
                    row=number,
                )
            bad = next((name for name, field in zip(header, fields, strict=True) if not _is_utf8(field)), None)
            if bad is not None:
                raise SourceError("is not UTF-8", remedy=_UTF8_REMEDY, source=file.name, row=number, column=bad)
