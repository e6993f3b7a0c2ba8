"""The types that a source gave its columns, before they were cast: part of what the raw data's fingerprint covers.

Casting makes one dtype of int32 and int64, of two time zones, of two orders of categories. A change of these at the
source is a change of the data that its readers should hear of. CSV has no types and a database driver gives Python
values, so for both there is nothing to record.
"""

from typing import Any

import pandas as pd
import pyarrow as pa

from release_platform.domain.data_spec import SourceSpec
from release_platform.domain.identity import digest_of
from release_platform.pipeline.sources import is_parquet

_SHOWN = 80


def source_types(frame: pd.DataFrame, source: SourceSpec) -> dict[str, str]:
    """Returns the type of each column as a Parquet file or a Python function gave it; nothing for other sources.

    Categories count with their order. More of them than fit into a line are told by their number and digest.
    """
    if not _typed(source):
        return {}
    return {str(name): _type(frame[name]) for name in frame.columns}


def _typed(source: SourceSpec) -> bool:
    in_package = source.package is not None and is_parquet(source.package.file)
    return source.python is not None or source.parquet is not None or in_package


def _type(series: "pd.Series[Any]") -> str:
    dtype: Any = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories(dtype.categories.tolist(), ordered=bool(dtype.ordered))
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_dictionary(dtype.pyarrow_dtype):
        return _categories(_dictionary(series), ordered=bool(dtype.pyarrow_dtype.ordered))
    return str(dtype).removesuffix("[pyarrow]")


def _dictionary(series: "pd.Series[Any]") -> list[Any]:
    array = pa.array(series)
    chunks = array.unify_dictionaries().chunks if isinstance(array, pa.ChunkedArray) else [array]
    values: list[Any] = chunks[0].dictionary.to_pylist() if chunks else []
    return values


def _categories(values: list[Any], *, ordered: bool) -> str:
    text = ", ".join(map(repr, values))
    if len(text) > _SHOWN:
        text = f"{len(values):,} values {digest_of(list(map(repr, values)))}"
    return f"{'ordered ' if ordered else ''}category({text})"
