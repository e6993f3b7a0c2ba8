"""What replays showed is kept for good, in SQLite and in PostgreSQL."""

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.errors import IntegrityError
from release_platform.domain.replay import Replay, Side


def replay(at: str, *, version: str = "2", model: str = "m") -> Replay:
    one, other = (Side(version=of, digest=f"sha256:{of}", refused={}, latency_ms={"p95": 1.5}) for of in ("1", version))
    return Replay(
        model=model,
        stable=one,
        candidate=other,
        rows_digest="sha256:r",
        n_recorded=1,
        n_rows=1,
        n_answered=1,
        n_refused=0,
        flips=(),
        since="2026-01-01",
        at=f"2026-02-{at}T00:00:00.000000+00:00",
    )


def test_the_last_replay_of_a_version_is_found(store: ReleaseStore) -> None:
    assert store.replays.find_last("m", "2") is None
    for one in (replay("02"), replay("01"), replay("03", version="3"), replay("04", model="other")):
        store.replays.record(one)
    assert store.replays.find_last("m", "2") == replay("02")
    assert store.replays.find_last("m", "3") == replay("03", version="3")


def test_one_that_was_changed_in_the_database_is_named(store: ReleaseStore, url: str) -> None:
    store.replays.record(replay("01"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE replays SET version = '3'"))
    engine.dispose()
    with pytest.raises(IntegrityError, match="the replay of m version 3"):
        store.replays.find_last("m", "3")
