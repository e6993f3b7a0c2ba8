"""Recorded requests: what a version was asked and what it answered, as Parquet files by model, version and day.

```
<root>/<model>/<version>/<YYYY-MM-DD>/<name>.parquet
```

A file's columns are the version's inputs, `prediction`, `prediction_id`, `at` (UTC), and `probability` where there is
one. A file appears whole or not at all, and is never changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from release_platform.adapters.datasets import list_parquet, normal, parquet_files, reading, remove_file, writing
from release_platform.domain.scoring import SUFFIX

_FILES_AT_ONCE = 8
AT = "at"
PREDICTION_ID = "prediction_id"
LABEL = "label"


def read_parquet(address: str) -> pd.DataFrame:
    """Returns the rows of a Parquet file, or of all in a folder.

    Raises:
        SourceError: There is none, or it is no Parquet.
        Unavailable: The storage does not answer.
    """
    return _rows([file.address for file in parquet_files(address)])


def places_of(prediction_ids: "pd.Series[str]") -> npt.NDArray[np.uint64]:
    """Returns where each prediction stands in an order that nothing in a request decides: the start of its id's digest.

    Shape (n,), uint64.
    """
    digests = b"".join(hashlib.sha256(of.encode()).digest()[:8] for of in prediction_ids.astype(str).tolist())
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def first_places(places: npt.NDArray[np.uint64], most: int) -> npt.NDArray[np.bool_]:
    """Returns which rows are among the first so many in that order, with all that stand where the last of them does."""
    if len(places) <= most:
        return np.ones(len(places), dtype=np.bool_)
    return np.asarray(places <= np.partition(places, most - 1)[most - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """What is read of a file before it is known which of its rows are wanted."""

    file: str
    schema: pa.Schema
    places: npt.NDArray[np.uint64]
    at: "pd.Series[pd.Timestamp] | None"

    def within(self, since: datetime, until: datetime) -> npt.NDArray[np.bool_]:
        """Returns which rows are of a period; none where the file does not say when they were."""
        if self.at is None:
            return np.zeros(len(self.places), dtype=np.bool_)
        return ((self.at >= since) & (self.at < until)).to_numpy(dtype=np.bool_)


class Recordings:
    """The recorded requests.

    Args:
        root: A folder, which need not exist, or `s3://bucket/prefix`.
    """

    def __init__(self, root: str) -> None:
        self._root = normal(root)

    def add(self, model: str, version: str, day: date, rows: pd.DataFrame, *, name: str) -> None:
        """Keeps the rows of a file; one of that name is replaced.

        Raises:
            Unavailable: The storage does not answer, or is full.
        """
        table = pa.Table.from_pandas(rows, preserve_index=False)
        with writing(self._file(model, version, day, name), table.schema) as writer:
            writer.write_table(table)

    def add_new(self, model: str, version: str, day: date, rows: pd.DataFrame, *, name: str) -> bool:
        """Keeps the rows of a file, and returns whether it is new; one of that name stays as it is.

        Raises:
            Unavailable: The storage does not answer, or is full.
        """
        if list_parquet(self._file(model, version, day, name)):
            return False
        self.add(model, version, day, rows, name=name)
        return True

    def drop_before(self, model: str, day: date) -> int:
        """Removes what is kept of all versions of a model of earlier days, and returns how many files that were.

        Raises:
            Unavailable: The storage does not answer.
        """
        files = list_parquet(f"{self._root}/{model}")
        old = [file for file in files if (of := _find_day(file)) is not None and of < day]
        for file in old:
            remove_file(file)
        return len(old)

    def days(self, model: str, version: str) -> tuple[date, ...]:
        """Returns the days of which something is kept, in order; none for an unknown version.

        Raises:
            Unavailable: The storage does not answer.
        """
        return tuple(sorted({_day_of(file) for file in self._files(model, version)}))

    def read(self, model: str, version: str, days: Sequence[date]) -> pd.DataFrame:
        """Returns the rows of some days, in their order; a table without columns where nothing is kept.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer.
        """
        wanted = set(days)
        return _rows([file for file in self._files(model, version) if _day_of(file) in wanted])

    def read_period(self, model: str, version: str, *, since: datetime, until: datetime) -> pd.DataFrame:
        """Returns the rows of a period, its beginning included and its end not; an empty table for none.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer.
        """
        days = [day for day in self.days(model, version) if since.date() <= day <= until.date()]
        found = self.read(model, version, days)
        if AT not in found:
            return found
        at = pd.to_datetime(found[AT], utc=True)
        return found[(at >= since) & (at < until)].reset_index(drop=True)

    def read_first(
        self, model: str, version: str, *, since: datetime, until: datetime, most: int
    ) -> tuple[pd.DataFrame, int]:
        """Returns rows of a period, its beginning included and its end not, and how many there are of it in all.

        They are those whose predictions stand first in the order of `places_of`, so many, and with them all that stand
        where the last of them does. Of the others only ids and times are read.

        Args:
            model: The model.
            version: The version that answered.
            since: The beginning.
            until: The end.
            most: How many, 1 and up.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer.
        """
        wanted = [file for file in self._files(model, version) if since.date() <= _day_of(file) <= until.date()]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:
            files = list(threads.map(_index, wanted))
        if not files:
            return pd.DataFrame(), 0
        timed = any(one.at is not None for one in files)
        within = [one.within(since, until) if timed else np.ones(len(one.places), dtype=np.bool_) for one in files]
        places = np.concatenate([one.places[own] for one, own in zip(files, within, strict=True)])
        if not len(places):
            return pd.DataFrame(), 0
        last = places[first_places(places, most)].max()
        chosen = {one.file: own & (one.places <= last) for one, own in zip(files, within, strict=True)}
        schema = pa.unify_schemas([one.schema for one in files], promote_options="permissive")
        return _rows([file for file, rows in chosen.items() if rows.any()], schema, chosen), len(places)

    def _folder(self, model: str, version: str) -> str:
        return f"{self._root}/{model}/{version}"

    def _file(self, model: str, version: str, day: date, name: str) -> str:
        return f"{self._folder(model, version)}/{day.isoformat()}/{name}{SUFFIX}"

    def _files(self, model: str, version: str) -> list[str]:
        return [file for file in list_parquet(self._folder(model, version)) if _find_day(file) is not None]


def _rows(
    files: Sequence[str], schema: pa.Schema | None = None, only: Mapping[str, npt.NDArray[np.bool_]] | None = None
) -> pd.DataFrame:
    """Returns the rows of files, or some of each, with the columns that they have together and those of a schema."""
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:  # a day may be a file for each minute
        tables = list(threads.map(partial(_table, only=only), files))
    if schema is not None:
        tables.insert(0, schema.empty_table())
    joined = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    del tables
    found: pd.DataFrame = joined.to_pandas(split_blocks=True, self_destruct=True)
    return found


def _table(file: str, only: Mapping[str, npt.NDArray[np.bool_]] | None = None) -> pa.Table:
    with reading(file) as opened:
        table = opened.read()
    return table if only is None else table.filter(pa.array(only[file]))


def _index(file: str) -> _Index:
    with reading(file) as opened:
        schema = opened.schema_arrow
        found = opened.read(columns=[name for name in (PREDICTION_ID, AT) if name in schema.names]).to_pandas()
        n_rows = opened.metadata.num_rows
    ids = found[PREDICTION_ID] if PREDICTION_ID in found else pd.Series([None] * n_rows, dtype=object)
    at = pd.to_datetime(found[AT], utc=True) if AT in found else None
    return _Index(file=file, schema=schema, places=places_of(ids), at=at)


def _find_day(file: str) -> date | None:
    try:
        return date.fromisoformat(file.rsplit("/", 2)[-2])
    except ValueError:  # what somebody else put there
        return None


def _day_of(file: str) -> date:
    day = _find_day(file)
    assert day is not None
    return day
