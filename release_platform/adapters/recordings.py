"""Recorded requests: what a version was asked and what it answered, as Parquet files by model, version and day.

```
<root>/<model>/<version>/<YYYY-MM-DD>/<name>.parquet
```

A file's columns are the version's inputs, `prediction`, `prediction_id`, `at` (UTC), and `probability` where there is
one. A file appears whole or not at all, and is never changed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

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

    def _folder(self, model: str, version: str) -> str:
        return f"{self._root}/{model}/{version}"

    def _file(self, model: str, version: str, day: date, name: str) -> str:
        return f"{self._folder(model, version)}/{day.isoformat()}/{name}{SUFFIX}"

    def _files(self, model: str, version: str) -> list[str]:
        return [file for file in list_parquet(self._folder(model, version)) if _find_day(file) is not None]


def _rows(files: Sequence[str]) -> pd.DataFrame:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:  # a day may be a file for each minute
        tables = list(threads.map(_table, files))
    joined = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    del tables
    found: pd.DataFrame = joined.to_pandas(split_blocks=True, self_destruct=True)
    return found


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
