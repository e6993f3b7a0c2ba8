"""Recorded requests: what a version was asked and what it answered, as Parquet files by model, version and day.

```
<root>/<model>/<version>/<YYYY-MM-DD>/<name>.parquet
```

A file's columns are the version's inputs, `prediction`, `prediction_id`, `at` (UTC), and `probability` where there is
one. A file appears whole or not at all.

A day begins as a file for each minute and process. Once it is over they are joined into `day.parquet`, whose metadata
names what it was joined of. It is written first and they are removed then; so after a crash in between a file that is
named there counts for nothing, and joining again goes on.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime

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

_FILES_AT_ONCE = 8
_ATTEMPTS = 3
_WHOLE = "day"
_JOINED = "release.joined"
AT = "at"
PREDICTION_ID = "prediction_id"
LABEL = "label"


def read_parquet(address: str) -> pd.DataFrame:
    """Returns the rows of a Parquet file, or of all in a folder.

    Raises:
        SourceError: There is none, or it is no Parquet.
        Unavailable: The storage does not answer.
    """
    return _frame([file.address for file in parquet_files(address)])


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
        found = _Day(files=[file for file in self._files(model, version) if _find_day(file) == day])
        if not found.loose:
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
        return self._read(lambda: self._days(model, version, set(days).__contains__))

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
        found = self._read(lambda: self._days(model, version, lambda day: since.date() <= day <= until.date()))
        if AT not in found:
            return found
        at = pd.to_datetime(found[AT], utc=True)
        return found[(at >= since) & (at < until)].reset_index(drop=True)

    def _days(self, model: str, version: str, wanted: Callable[[date], bool]) -> "dict[date, _Day]":
        """Returns the files of each wanted day, in order, as one listing shows them."""
        of = defaultdict[date, list[str]](list)
        for file in self._files(model, version):
            if wanted(_day_of(file)):
                of[_day_of(file)].append(file)
        return {day: _Day(files=files) for day, files in sorted(of.items())}

    def _read(self, listed: "Callable[[], dict[date, _Day]]") -> pd.DataFrame:
        for _ in range(_ATTEMPTS):
            try:
                return _frame([file for day in listed().values() for file in (*day.whole, *day.counted())])
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


def _frame(files: Sequence[str]) -> pd.DataFrame:
    joined = _joined(files)
    found: pd.DataFrame = joined.to_pandas(split_blocks=True, self_destruct=True)
    return found


def _joined(files: Sequence[str]) -> pa.Table:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:  # a day may be a file for each minute
        tables = list(threads.map(_table, files))
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _table(file: str) -> pa.Table:
    with reading(file) as opened:
        return opened.read()


def _find_day(file: str) -> date | None:
    try:
        return date.fromisoformat(file.rsplit("/", 2)[-2])
    except ValueError:  # what somebody else put there
        return None


def _day_of(file: str) -> date:
    day = _find_day(file)
    assert day is not None
    return day
