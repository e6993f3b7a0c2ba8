"""What selftests found is kept for good, in SQLite and in PostgreSQL."""

from release_platform.adapters.release_store import ReleaseStore
from release_platform.domain.selftest import Binding, Selftest, Twin, TwinResult


def selftest(*stopped_by: str, model: str = "m") -> Selftest:
    gates = dict.fromkeys(stopped_by, "too low")
    result = TwinResult(twin=Twin.CONSTANT, detail="all alike", stopped_by=gates)
    return Selftest(model=model, binding=Binding(spec="sha256:s", code="sha256:c"), n_rows=9, results=(result,))


def test_the_newest_selftest_of_a_model_is_found_and_each_by_what_it_found(store: ReleaseStore) -> None:
    assert store.selftests.find_last("m") is None
    for day, one in ((2, selftest("a")), (1, selftest("b")), (3, selftest("a", model="other"))):
        store.selftests.record(one, at=f"2026-01-0{day}T00:00:00+00:00", signature=f"signed on {day}")
    last = store.selftests.find_last("m")
    assert last is not None
    assert (last.selftest, last.signature) == (selftest("a"), "signed on 2")
    assert [one.selftest for one in store.selftests.all_of("m")] == [selftest("a"), selftest("b")]
    assert [one.signature for one in store.selftests.all_of("m", selftest("b").digest)] == ["signed on 1"]


def test_only_its_signature_can_be_replaced(store: ReleaseStore) -> None:
    store.selftests.record(selftest("a"), at="2026-01-01T00:00:00+00:00", signature="of the key before")
    (kept,) = store.selftests.all_of("m")
    store.selftests.replace_signature(kept.selftest_id, "of the next key")
    (after,) = store.selftests.all_of("m")
    assert (after.selftest, after.signature) == (kept.selftest, "of the next key")
