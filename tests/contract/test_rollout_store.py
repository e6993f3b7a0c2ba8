"""Rollouts and windows in the release store, on SQLite and on PostgreSQL alike."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.rollout_store import KeptRollout
from release_platform.domain.coverage import Owed
from release_platform.domain.errors import IntegrityError, Refused
from release_platform.domain.rollout import Order, Ordered, Rollout, advance, begin
from release_platform.domain.strategy import RolloutSpec, Strategy
from release_platform.domain.windows import Route, Window, WindowKey
from release_platform.window_history import WindowHistory

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = WindowKey(model="m", version="2", route=Route.CANARY, minute=100)


def begun_rollout(rollout_id: str = "q", at: datetime = START, model: str = "m") -> Rollout:
    plan = RolloutSpec(strategy=Strategy.CANARY)
    return begin(rollout_id=rollout_id, model=model, candidate="2", stable="1", plan=plan, at=at)[0]


def ordered(rollout: Rollout, order: Order) -> Rollout:
    return advance(rollout, Ordered(order=order, actor="ada", reason="why", at=START + timedelta(seconds=9)))[0]


def saved(store: ReleaseStore, kept: KeptRollout, rollout: Rollout) -> KeptRollout:
    found = store.rollouts.save(kept, rollout)
    assert found is not None
    return found


def test_a_rollout_is_kept_as_it_stands(store: ReleaseStore) -> None:
    kept = store.rollouts.open(begun_rollout(), epoch=7)
    assert kept == KeptRollout(rollout=begun_rollout(), epoch=7)
    paused = ordered(kept.rollout, Order.PAUSE)
    assert saved(store, kept, paused) == KeptRollout(rollout=paused, epoch=7, revision=1)
    assert store.rollouts.find_current("m") == store.rollouts.find("q") == store.rollouts.find_last("m")
    assert store.rollouts.find("q") == KeptRollout(rollout=paused, epoch=7, revision=1)
    assert store.rollouts.find("other") is None


def test_beginning_again_finds_where_the_rollout_stands(store: ReleaseStore) -> None:
    kept = store.rollouts.open(begun_rollout(), epoch=7)
    now = saved(store, kept, ordered(kept.rollout, Order.PAUSE))
    assert store.rollouts.open(begun_rollout(at=START + timedelta(days=1)), epoch=9) == now


def test_a_model_has_one_rollout_at_a_time(store: ReleaseStore) -> None:
    first = store.rollouts.open(begun_rollout(), epoch=1)
    with pytest.raises(Refused, match="the rollout of version 2 is under way"):
        store.rollouts.open(begun_rollout("r"), epoch=1)
    store.rollouts.open(begun_rollout("r", model="n"), epoch=1)
    ended = saved(store, first, ordered(first.rollout, Order.ABORT))
    with pytest.raises(Refused, match="under way"):  # its traffic may still be there
        store.rollouts.open(begun_rollout("s"), epoch=1)
    store.rollouts.settle(ended)
    store.rollouts.settle(ended)
    assert store.rollouts.find_current("m") is None
    later = store.rollouts.open(begun_rollout("s", at=START + timedelta(days=1)), epoch=2)
    assert store.rollouts.find_last("m") == later


def test_a_rollout_that_goes_on_is_not_settled(store: ReleaseStore) -> None:
    with pytest.raises(ValueError, match="goes on"):
        store.rollouts.settle(store.rollouts.open(begun_rollout(), epoch=1))


def test_of_many_that_replace_a_rollout_at_once_one_is_first(store: ReleaseStore) -> None:
    kept = store.rollouts.open(begun_rollout(), epoch=1)
    orders = [Order.PAUSE, Order.PROMOTE, Order.ABORT] * 4
    with ThreadPoolExecutor(len(orders)) as pool:
        found = list(pool.map(lambda order: store.rollouts.save(kept, ordered(kept.rollout, order)), orders))
    (first,) = [one for one in found if one is not None]
    assert store.rollouts.find("q") == first


@pytest.mark.parametrize("edit", ["value = '[]'", "value = '{}'", "state = 'completed'", "model = 'n'"])
def test_a_rollout_that_was_edited_in_the_database_is_told(tmp_path: Path, edit: str) -> None:
    url = f"sqlite:///{tmp_path / 'release.db'}"
    store = ReleaseStore(url)
    store.rollouts.open(begun_rollout(), epoch=1)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE rollouts SET {edit}"))
    engine.dispose()
    with pytest.raises(IntegrityError, match="the rollout q of"):
        store.rollouts.find("q")
    store.close()


def window(minute: int = 100, requests: int = 5, **changes: object) -> Window:
    return Window(key=replace(KEY, minute=minute, **changes), requests=requests, errors={"timeout": 1})


def windows(store: ReleaseStore, first: int, last: int) -> tuple[Window, ...]:
    return WindowHistory(store.windows).windows("m", first, last)


def test_what_replicas_counted_is_added_up(store: ReleaseStore) -> None:
    assert store.windows.record("r1", [window(), window(101), window(route=Route.STABLE, version="1")]) == 3
    assert store.windows.record("r2", [window(requests=7), window(model="other")]) == 2
    assert store.windows.record("r2", []) == 0
    found = windows(store, 100, 100)
    assert [(w.key.version, w.requests, w.errors) for w in found] == [
        ("1", 5, {"timeout": 1}),
        ("2", 12, {"timeout": 2}),
    ]
    assert len(windows(store, 100, 101)) == 3
    assert windows(store, 102, 200) == ()


def test_a_window_that_comes_again_changes_nothing(store: ReleaseStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda n: store.windows.record("r1", [window(requests=n)]), range(1, 5)))
    assert sum(new) == 1
    (kept,) = windows(store, 100, 100)
    assert store.windows.record("r1", [window(requests=50)]) == 0
    assert windows(store, 100, 100) == (kept,)


def owed(minute: int = 100, replica: str = "", *, told: bool = False, url: str = "http://one") -> Owed:
    return Owed(minute=minute, url=url, replica=replica, told=told)


def test_a_minute_is_a_hole_until_all_that_is_owed_of_it_was_told(store: ReleaseStore) -> None:
    assert store.windows.holes("m", 100, 101) == {100: [], 101: []}
    store.windows.record_owed("m", [owed(), owed(replica="r1"), owed(101, told=True), owed(101, "r1", told=True)])
    store.windows.record_owed("m", [owed(url="http://two", told=True)])
    store.windows.record_owed("m", [])
    assert store.windows.holes("m", 100, 101) == {100: ["http://one"]}
    store.windows.record_owed("m", [owed(told=True), owed(101), owed(101, "r1")])
    assert store.windows.holes("m", 100, 101) == {100: ["http://one"]}
    store.windows.record_owed("m", [owed(replica="r1", told=True)])
    assert store.windows.holes("m", 100, 101) == {}
    assert store.windows.holes("other", 100, 100) == {100: []}


def test_old_windows_and_what_is_owed_of_their_minutes_are_dropped(store: ReleaseStore) -> None:
    store.windows.record("r1", [window(minute) for minute in range(90, 110)])
    store.windows.record_owed("m", [owed(minute, told=True) for minute in range(90, 110)])
    assert store.windows.drop_before(100) == 10
    assert list(store.windows.holes("m", 90, 110)) == [*range(90, 100), 110]
    assert [w.key.minute for w in windows(store, 0, 200)] == list(range(100, 110))


def test_windows_are_named_and_read_for_each_replica_and_the_oldest_is_known(store: ReleaseStore) -> None:
    assert (store.windows.keys("m", 0, 999), store.windows.oldest("m")) == (frozenset(), None)
    windows = [Window(key=replace(KEY, minute=minute), requests=minute) for minute in (100, 101, 102)]
    for replica in ("a", "b"):
        store.windows.record(replica, windows)
    store.windows.record("a", [Window(key=replace(KEY, model="n", minute=7))])
    names = frozenset(("2", "canary", minute, replica) for minute in (101, 102) for replica in ("a", "b"))
    assert store.windows.keys("m", 101, 102) == names
    found = store.windows.of_replicas("m", 101, 102)
    assert found.keys() == names
    assert found["2", "canary", 101, "b"] == windows[1]
    assert store.windows.oldest("m") == 100
    store.windows.drop_before(102)
    assert store.windows.oldest("m") == 102
