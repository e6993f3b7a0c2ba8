"""Reads the raw data of a model from wherever its spec says. Everything that can go wrong becomes a `SourceError`."""

import csv
import importlib
import importlib.util
import lzma
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from release_platform.domain.data_spec import PackageSource, SourceSpec
from release_platform.domain.errors import ReleaseError, SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.csv_files import csv_bytes, header_of, read_csv
from release_platform.pipeline.database import read_sql
from release_platform.pipeline.files import (
    DataFile,
    find_files,
    parquet_bytes,
    parquet_names,
    read_parquet,
    require_columns,
)
from release_platform.pipeline.memory import available_bytes, require_room

PEAK_FACTOR = 8.0
"""Peak memory as a multiple of the raw table, through features and fit: 6.6 to 8 times was measured on the flights."""

_T = TypeVar("_T")
_Reader = Callable[[DataFile, Mapping[str, ColumnType]], pa.Table]
_Estimate = Callable[[DataFile, Mapping[str, ColumnType]], float]


def read_source(
    source: SourceSpec, *, base: Path, columns: Mapping[str, ColumnType], available: int | None = None
) -> pd.DataFrame:
    """Returns the raw data, only the named columns, in the source's own types, indexed from 0.

    Args:
        source: Where the data is.
        base: The folder of the model's `defs.yaml`; relative paths start there.
        columns: The contract's columns with their types. A CSV file, which has no types, is read as these.
        available: Memory that may be taken, in bytes; None: what the machine (or its container) has left.

    Raises:
        SourceError: The source cannot be read; names source, row and column where they are known.
    """
    name = describe(source)
    with _translated(name):
        if source.python is not None:
            frame = _call(source.python, columns)
        elif source.sql is not None:
            frame = _framed(read_sql(source.sql, columns))
        else:
            frame = _framed(_read_files(source, base, columns, available_bytes() if available is None else available))
    if frame.empty:
        raise SourceError("there are no rows", remedy="write the data again at its source", source=name)
    return frame


def file_columns(path: Path) -> list[str]:
    """Returns the column names of a CSV or Parquet file.

    Raises:
        SourceError: The file cannot be read.
    """
    with _translated(str(path)):
        file = find_files(str(path.absolute()), base=Path())[0]
        return parquet_names(file) if is_parquet(file.path) else header_of(file)


def is_parquet(address: str) -> bool:
    """Returns whether an address names Parquet files, by its ending; anything else is read as CSV."""
    return address.endswith((".parquet", ".pq"))


def describe(source: SourceSpec) -> str:
    """Returns how messages call a source: its path or address, never with a password."""
    if source.package is not None:
        return f"{source.package.package}/{source.package.file}"
    if source.sql is not None:
        return f"the query of {source.sql.url}" if source.sql.url.startswith("env:") else "the query of source.sql"
    return str(source.csv or source.parquet or source.python)


def _framed(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


def _read_files(source: SourceSpec, base: Path, columns: Mapping[str, ColumnType], available: int) -> pa.Table:
    address = source.csv or source.parquet or _in_package(source.package)
    files = find_files(address, base=base)
    parquet = source.parquet is not None or (source.csv is None and is_parquet(address))
    read: _Reader = read_parquet if parquet else read_csv
    estimate: _Estimate = parquet_bytes if parquet else csv_bytes
    require_room(address, needed_bytes=PEAK_FACTOR * sum(_each(estimate, files, columns)), available=available)
    tables = list(_each(read, files, columns))
    return tables[0] if len(tables) == 1 else pa.concat_tables(_agreeing(tables), promote_options="permissive")


def _each(
    of: Callable[[DataFile, Mapping[str, ColumnType]], _T], files: Iterable[DataFile], columns: Mapping[str, ColumnType]
) -> Iterator[_T]:
    for file in files:
        with _translated(file.name):
            yield of(file, columns)


def _agreeing(tables: list[pa.Table]) -> list[pa.Table]:
    """Returns the tables, all text where one of them is: a CSV file of the lot had a value that fits no type."""
    text = {f.name for table in tables for f in table.schema if pa.types.is_large_string(f.type)}
    return [
        pa.table(
            {n: c.cast(pa.large_string()) if n in text else c for n, c in zip(t.column_names, t.columns, strict=True)}
        )
        for t in tables
    ]


def _in_package(source: PackageSource | None) -> str:
    assert source is not None
    first, *inner = source.package.split(".")
    found = importlib.util.find_spec(first)  # a dotted name would import its parents
    roots = [] if found is None else list(found.submodule_search_locations or ())
    if not roots:
        raise SourceError(
            "the package is not installed",
            remedy=f"install {source.package}, or correct `source`",
            source=source.package,
        )
    return str(Path(roots[0], *inner, source.file))


def _call(reference: str, columns: Mapping[str, ColumnType]) -> pd.DataFrame:
    module, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(
            str(error), remedy="correct `source.python`, or install its package", source=reference
        ) from error
    try:
        frame = function()
    except ReleaseError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise SourceError(
            f"raised {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})",
            remedy="correct the function",
            source=reference,
        ) from error
    if not isinstance(frame, pd.DataFrame):
        raise SourceError(
            f"returned {type(frame).__name__}", remedy="let it return a pandas data frame", source=reference
        )
    require_columns(reference, columns, (str(column) for column in frame.columns))
    return frame[list(columns)].reset_index(drop=True)


_BROKEN = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, EOFError)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """The one place where exceptions of the file system, of Arrow and of the decompressors become a SourceError."""
    try:
        yield
    except ReleaseError:
        raise
    except _BROKEN as error:
        raise SourceError(f"is damaged or cut off: {error}", remedy="copy the file again", source=name) from error
    except csv.Error as error:
        raise SourceError(
            f"is no readable CSV: {error}", remedy="correct the file at its source", source=name
        ) from error
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise SourceError(
            "does not fit into memory", remedy="leave columns out of `contract` or read a part", source=name
        ) from error
    except PermissionError as error:
        raise SourceError("may not be read", remedy="give this user the right to read it", source=name) from error
    except OSError as error:
        raise SourceError(_first_line(error), remedy=_REMEDIES.get(name[:5], _CHECK), source=name) from error
    except pa.ArrowException as error:
        raise SourceError(f"cannot be read: {_first_line(error)}", remedy=_CHECK, source=name) from error


_CHECK = "check the file and its format at its source"
_REMEDIES = {"s3://": "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, bucket and key"}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
