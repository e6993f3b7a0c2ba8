"""Outcomes of predictions that another server may have made, kept until the platform has carried them there.

```
told here, known to nobody behind this port --> held --> carried to who knows it     the platform settles it
                                                   |---> known to no server          the platform settles it
                                                   '---> lost: an hour went by
```
They are in a SQLite file, so that they outlive the process; all workers of a server have the same. Those that were
offered longest ago come first, so that none waits for one whose server is away.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

FORMAT = 1
MOST_HELD = 20_000
"""Most outcomes that are held."""
HELD_S = 3600.0
"""Seconds after which one that nobody knows is lost."""
MOST_LETTERS = 512
"""Most letters of a value that is held; what is longer is the label of no prediction."""
_BUSY_S = 2.0
_TABLE = """create table if not exists held (
    prediction_id text not null, name text not null, value blob not null, at real not null,
    offered real not null default 0, primary key (prediction_id, name)
) without rowid"""
_LOG = logging.getLogger(__name__)


class Held:
    """The outcomes that are held. For any thread; each call may wait for the disk.

    Args:
        path: The file, made when it is needed; None for what goes with the process.
        now: Returns the time in seconds since 1970.
        most: Most outcomes that are held.
        held_s: Seconds after which one is lost.
    """

    def __init__(
        self, path: Path | None, *, now: Callable[[], float], most: int = MOST_HELD, held_s: float = HELD_S
    ) -> None:
        self._path = path
        self._now = now
        self._most = most
        self._held_s = held_s
        self._lock = Lock()
        self._opened: sqlite3.Connection | None = None

    def hold(self, outcomes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Holds outcomes, each a `prediction_id`, `name` and `value`; one that is held already stays as it is.

        Returns:
            How many of them, from the first on, are held now, and how many of these are new.

        Raises:
            sqlite3.Error: The file cannot be written, as with each of the other calls.
        """
        with self._lock, self._connection() as held:
            room = self._most - _count(held)
            rows = [(one["prediction_id"], one["name"], orjson.dumps(one["value"]), self._now()) for one in outcomes]
            before, n_held = held.total_changes, 0
            for row in rows:
                if held.total_changes - before >= room and not _has(held, row):
                    break
                held.execute("insert or ignore into held (prediction_id, name, value, at) values (?, ?, ?, ?)", row)
                n_held += 1
            return n_held, held.total_changes - before

    def offer(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """Returns outcomes, each with its `age_s`, that were offered longest ago, and how many are held in all."""
        if self._is_new():
            return [], 0
        with self._lock, self._connection() as held:
            now = self._now()
            rows = held.execute(
                "select prediction_id, name, value, at from held order by offered, at limit ?", (most,)
            ).fetchall()
            held.executemany(
                "update held set offered = ? where prediction_id = ? and name = ?",
                [(now, prediction_id, name) for prediction_id, name, _, _ in rows],
            )
            told = [
                {
                    "prediction_id": row[0],
                    "name": row[1],
                    "outcome": orjson.loads(row[2]),
                    "age_s": max(0.0, now - row[3]),
                }
                for row in rows
            ]
            return told, _count(held)

    def settle(self, outcomes: Iterable[tuple[str, str]]) -> int:
        """Holds some no longer, each by prediction id and name, and returns how many were held."""
        if self._is_new():
            return 0
        with self._lock, self._connection() as held:
            before = held.total_changes
            held.executemany("delete from held where prediction_id = ? and name = ?", outcomes)
            return held.total_changes - before

    def lose_old(self) -> int:
        """Holds no longer what has been held for too long, and returns how many that were."""
        if self._is_new():
            return 0
        with self._lock, self._connection() as held:
            return held.execute("delete from held where at < ?", (self._now() - self._held_s,)).rowcount

    def __len__(self) -> int:
        """Returns how many are held."""
        if self._is_new():
            return 0
        with self._lock, self._connection() as held:
            return _count(held)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _is_new(self) -> bool:
        """Returns whether nothing can be held, so that no file need be made to look."""
        return self._opened is None and (self._path is None or not self._path.exists())

    def _connection(self) -> sqlite3.Connection:
        """Returns the open file; as a context manager it is one transaction."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            for _ in range(2):
                try:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    return _opened(str(self._path))
                except (sqlite3.OperationalError, OSError) as error:
                    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                        raise
                    _LOG.warning("%s: outcomes for other servers are held in memory only: %s", self._path, error)
                    break
                except sqlite3.DatabaseError as error:
                    _LOG.warning("%s is put aside: %s; what was held in it is lost", self._path, error)
                    _put_aside(self._path)
        return _opened(":memory:")


def _opened(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, timeout=_BUSY_S, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        with connection:
            version = connection.execute("pragma user_version").fetchone()[0]
            if version not in {0, FORMAT}:
                raise sqlite3.DatabaseError(f"it is of format {version}; this server knows {FORMAT}")
            connection.execute(_TABLE)
            connection.execute(f"pragma user_version={FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _put_aside(path: Path) -> None:
    path.replace(path.with_suffix(".aside"))
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).unlink()


def _count(held: sqlite3.Connection) -> int:
    with closing(held.execute("select count(*) from held")) as found:
        return int(found.fetchone()[0])


def _has(held: sqlite3.Connection, row: tuple[Any, ...]) -> bool:
    found = held.execute("select 1 from held where prediction_id = ? and name = ?", row[:2])
    return found.fetchone() is not None
