"""Recorded requests: what a version was asked and what it answered, as Parquet files by model, version and day.

```
<root>/<model>/<version>/<YYYY-MM-DD>/<name>.parquet
```

A file's columns are the version's inputs, `prediction`, `prediction_id`, `at` (UTC), and `confidence`, the probability
of the answer, where there is one. A file appears whole or not at all.

A day begins as a file for each minute and process. Once it is over they are joined into `day.parquet`, whose metadata
names what it was joined of. It is written first and they are removed then; so after a crash in between a file that is
named there counts for nothing, and joining again goes on.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from release_platform.adapters.datasets import (
    find_names,
    list_parquet,
    normal,
    parquet_files,
    reading,
    remove_file,
    writing,
)
from release_platform.domain.errors import SourceError
from release_platform.domain.scoring import SUFFIX

_T = TypeVar("_T")
_FILES_AT_ONCE = 8
_ATTEMPTS = 3
_WHOLE = "day"
_JOINED = "release.joined"
AT = "at"
PREDICTION_ID = "prediction_id"
LABEL = "label"
CONFIDENCE = "confidence"
"""The probability of the answer."""


def read_parquet(address: str) -> pd.DataFrame:
    """Returns the rows of a Parquet file, or of all in a folder.

    Raises:
        SourceError: There is none, or it is no Parquet.
        Unavailable: The storage does not answer.
    """
    return _frame([file.address for file in parquet_files(address)])


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
        if name in _names_in(self._file(model, version, day, _WHOLE)):
            return False
        self.add(model, version, day, rows, name=name)
        return True

    def join_day(self, model: str, version: str, day: date) -> int:
        """Joins the files of a day into one, and returns how many they were; 0 where there is nothing to join.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer, or is full.
        """
        found = self._days(model, version, day.__eq__).get(day)
        if found is None or not found.loose:
            return 0
        names, fresh = found.joined(), found.counted()
        table = _joined([*found.whole, *fresh])
        kept = {_JOINED.encode(): json.dumps(sorted(names | {_stem(file) for file in fresh})).encode()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **kept})
        if fresh:
            with writing(self._file(model, version, day, _WHOLE), table.schema) as writer:
                writer.write_table(table)
        del table
        for file in found.loose:
            remove_file(file)
        return len(found.loose)

    def loose_days(self, model: str, *, before: date) -> tuple[tuple[str, date], ...]:
        """Returns version and day of each earlier day whose files are not joined yet, in order.

        Raises:
            Unavailable: The storage does not answer.
        """
        found = {
            (file.rsplit("/", 3)[-3], day)
            for file in list_parquet(f"{self._root}/{model}")
            if (day := _find_day(file)) is not None and day < before and _stem(file) != _WHOLE
        }
        return tuple(sorted(found))

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
        return self._read(lambda: self._days(model, version, set(days).__contains__), _frame)

    def each_day(self, model: str, version: str, *, since: date, until: date) -> Iterator[tuple[date, pd.DataFrame]]:
        """Yields each day of which something is kept with its rows, in order; `since` is included, `until` is not.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer.
        """
        for day in self._days(model, version, lambda day: since <= day < until):
            yield day, self.read(model, version, [day])

    def read_period(self, model: str, version: str, *, since: datetime, until: datetime) -> pd.DataFrame:
        """Returns the rows of a period, its beginning included and its end not; an empty table for none.

        Raises:
            SourceError: A file is no Parquet.
            Unavailable: The storage does not answer.
        """
        found = self._read(lambda: self._days(model, version, _days_of(since, until)), _frame)
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
        read = partial(_first_rows, since=since, until=until, most=most)
        return self._read(lambda: self._days(model, version, _days_of(since, until)), read)

    def _days(self, model: str, version: str, wanted: Callable[[date], bool]) -> "dict[date, _Day]":
        """Returns the files of each wanted day, in order, as one listing shows them."""
        of = defaultdict[date, list[str]](list)
        for file in self._files(model, version):
            if wanted(_day_of(file)):
                of[_day_of(file)].append(file)
        return {day: _Day(files=files) for day, files in sorted(of.items())}

    def _read(self, listed: "Callable[[], dict[date, _Day]]", read: Callable[[list[str]], _T]) -> _T:
        for _ in range(_ATTEMPTS):
            try:
                return read([file for day in listed().values() for file in (*day.whole, *day.counted())])
            except SourceError as error:  # its files were joined meanwhile?
                missed = error
        raise missed

    def _folder(self, model: str, version: str) -> str:
        return f"{self._root}/{model}/{version}"

    def _file(self, model: str, version: str, day: date, name: str) -> str:
        return f"{self._folder(model, version)}/{day.isoformat()}/{name}{SUFFIX}"

    def _files(self, model: str, version: str) -> list[str]:
        return [file for file in list_parquet(self._folder(model, version)) if _find_day(file) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Day:
    """The files of a day."""

    files: Sequence[str]

    @property
    def whole(self) -> list[str]:
        return [file for file in self.files if _stem(file) == _WHOLE]

    @property
    def loose(self) -> list[str]:
        return [file for file in self.files if _stem(file) != _WHOLE]

    def joined(self) -> frozenset[str]:
        """Returns the names of the files that the whole one was joined of."""
        return frozenset[str]().union(*(_names_in(file) for file in self.whole))

    def counted(self) -> list[str]:
        """Returns the files that are not in the whole one."""
        loose = self.loose
        known = self.joined() if loose else frozenset()
        return [file for file in loose if _stem(file) not in known]


def _names_in(file: str) -> frozenset[str]:
    found = find_names(file)
    return frozenset() if found is None else frozenset(json.loads(found.get(_JOINED, "[]")))


def _stem(file: str) -> str:
    return file.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def _days_of(since: datetime, until: datetime) -> Callable[[date], bool]:
    return lambda day: since.date() <= day <= until.date()


def _first_rows(wanted: Sequence[str], *, since: datetime, until: datetime, most: int) -> tuple[pd.DataFrame, int]:
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
    return _frame([file for file, rows in chosen.items() if rows.any()], schema, chosen), len(places)


def _frame(
    files: Sequence[str], schema: pa.Schema | None = None, only: Mapping[str, npt.NDArray[np.bool_]] | None = None
) -> pd.DataFrame:
    """Returns the rows of files, or some of each, with the columns that they have together and those of a schema."""
    joined = _joined(files, schema, only)
    found: pd.DataFrame = joined.to_pandas(split_blocks=True, self_destruct=True)
    return found


def _joined(
    files: Sequence[str], schema: pa.Schema | None = None, only: Mapping[str, npt.NDArray[np.bool_]] | None = None
) -> pa.Table:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:  # a day may be a file for each minute
        tables = list(threads.map(partial(_table, only=only), files))
    if schema is not None:
        tables.insert(0, schema.empty_table())
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


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
