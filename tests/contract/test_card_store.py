"""Up to which state cards were written is known, in SQLite and in PostgreSQL."""

from release_platform.adapters.release_store import ReleaseStore


def test_the_last_state_of_each_version_is_known(store: ReleaseStore) -> None:
    assert store.cards.written("m") == {}
    for model, version, state in (("m", "1", "a"), ("m", "2", "b"), ("other", "1", "c"), ("m", "1", "d")):
        store.cards.record(model, version, state)
    assert store.cards.written("m") == {"1": "d", "2": "b"}
