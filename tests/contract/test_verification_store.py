"""Verifications in the release store, on SQLite and on PostgreSQL alike."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.errors import IntegrityError
from release_platform.domain.verified import LONGEST, MOST_PROBLEMS, Found, Verified

VERIFIED = Verified(
    model="m",
    version="2",
    digest="sha256:d",
    epoch=4,
    at="2026-03-01T12:00:00+00:00",
    found=Found.FAILED,
    servers=("http://one",),
    problems=("http://one, rows: row 4: 0.1 instead of 0.2",),
)
LATER = replace(VERIFIED, at="2026-03-01T12:00:00.500000+00:00", found=Found.PASSED, problems=())


def test_those_of_a_model_since_a_moment_are_found_in_order(store: ReleaseStore) -> None:
    other = replace(VERIFIED, model="other")
    for one in (LATER, VERIFIED, other, VERIFIED):
        store.verifications.record(one)
    assert store.verifications.since("m", "") == (VERIFIED, LATER)
    assert store.verifications.since("m", LATER.at) == (LATER,)
    assert store.verifications.since("m", "2026-03-02") == ()


def test_old_ones_are_dropped(store: ReleaseStore) -> None:
    store.verifications.record(VERIFIED)
    store.verifications.record(LATER)
    assert store.verifications.drop_before(LATER.at) == 1
    assert store.verifications.since("m", "") == (LATER,)


def test_of_many_long_problems_the_beginnings_of_the_first_are_kept(store: ReleaseStore) -> None:
    store.verifications.record(replace(VERIFIED, problems=("x" * 10_000,) * 100))
    (kept,) = store.verifications.since("m", "")
    assert kept.problems == ("x" * LONGEST,) * MOST_PROBLEMS


def test_one_that_was_changed_in_the_database_is_named(store: ReleaseStore, url: str) -> None:
    store.verifications.record(VERIFIED)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE verifications SET model = 'n'"))
    engine.dispose()
    with pytest.raises(IntegrityError, match="a verification of n"):
        store.verifications.since("n", "")
