"""Drills in the release store, on SQLite and on PostgreSQL alike."""

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.drill import Drilled, Outcome
from release_platform.domain.errors import IntegrityError


def drilled(drill_id: str, at: str, model: str = "m", outcome: Outcome = Outcome.READY) -> Drilled:
    of = {"home": "2", "away": "1", "actor": "ada", "there_ms": 84.0, "servers": {"http://one": [84.0, None]}}
    return Drilled(drill_id=drill_id, model=model, at=f"2026-03-{at}T12:00:00+00:00", outcome=outcome, **of)  # type: ignore[arg-type]


def test_the_last_drill_of_a_model_is_found(store: ReleaseStore) -> None:
    assert store.drills.find_last("m") is None
    first, last, other = drilled("a", "01"), drilled("b", "02"), drilled("c", "03", model="other")
    for one in (last, first, other):
        assert store.drills.record(one) == one
    assert store.drills.find_last("m") == last
    assert store.drills.find("a") == first
    assert store.drills.find("z") is None


def test_what_a_drill_showed_never_changes(store: ReleaseStore) -> None:
    first = store.drills.record(drilled("a", "01"))
    assert store.drills.record(drilled("a", "02", outcome=Outcome.CUT_OFF)) == first


def test_a_drill_that_was_changed_in_the_database_is_named(store: ReleaseStore, url: str) -> None:
    store.drills.record(drilled("a", "01"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE drills SET value = '{}'"))
    engine.dispose()
    with pytest.raises(IntegrityError, match="the drill a of m"):
        store.drills.find("a")
