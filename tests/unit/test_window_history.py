"""What is read of the live traffic bit by bit is what a whole reading finds, whatever came in between."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.rollback import Watched, judge_watched
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.strategy import LiveGateSpec, LiveMetric
from release_platform.domain.windows import Route, Window, WindowKey, merged
from release_platform.window_history import OPEN_MINUTES, ReplicaKey, WindowHistory

MODEL, START = "m", 29_000_000
SPEC = RollbackSpec(gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.02),), record_minutes=30)


@dataclass
class Store:
    """Windows as the release store keeps them: each once, never changed, dropped when they are old."""

    kept: dict[ReplicaKey, Window] = field(default_factory=dict)
    n_read: int = 0

    def record(self, replica: str, window: Window) -> None:
        self.kept.setdefault((window.key.version, window.key.route.value, window.key.minute, replica), window)

    def drop_before(self, minute: int) -> None:
        self.kept = {key: window for key, window in self.kept.items() if key[2] >= minute}

    def keys(self, model: str, first: int, last: int) -> frozenset[ReplicaKey]:
        return frozenset(key for key in self.kept if first <= key[2] <= last)

    def of_replicas(self, model: str, first: int, last: int) -> dict[ReplicaKey, Window]:
        found = {key: window for key, window in self.kept.items() if first <= key[2] <= last}
        self.n_read += len(found)
        return found

    def oldest(self, model: str) -> int | None:
        return min((key[2] for key in self.kept), default=None)

    def whole(self, first: int, last: int) -> tuple[Window, ...]:
        return merged(window for key, window in self.kept.items() if first <= key[2] <= last)


def window(version: str, minute: int, n: int = 100, failed: int = 0) -> Window:
    key = WindowKey(model=MODEL, version=version, route=Route.STABLE, minute=minute)
    return Window(key=key, requests=n, errors={"timeout": failed} if failed else {})


def watched(since: int) -> Watched:
    at = datetime.fromtimestamp(since * 60, UTC).isoformat()
    row = LedgerRow(
        model=MODEL,
        epoch=2,
        move=Move.PROMOTED,
        version="2",
        actor="ada",
        reason="why",
        request_id="q",
        evidence="",
        digest="d",
        before=Head(model=MODEL).to_json(),
        after=Head(model=MODEL).to_json(),
        at=at,
        previous_hash="",
    )
    return Watched(row=row, before="1", since=since)


LATE = st.lists(
    st.tuples(
        st.sampled_from("12"), st.integers(0, 110), st.sampled_from("abc"), st.integers(1, 300), st.integers(0, 100)
    ),
    max_size=8,
)
"""Windows that come: version, how many minutes late, replica, requests, and how many in a hundred failed."""

ROUNDS = st.lists(
    st.tuples(
        LATE,
        st.one_of(st.integers(0, 3), st.integers(0, 200)),  # minutes that pass
        st.one_of(st.just(0), st.just(0), st.integers(-50, 300)),  # by how much the first minute moves
        st.one_of(st.none(), st.none(), st.none(), st.integers(0, 400)),  # how far back all older ones are dropped
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200)
@given(rounds=ROUNDS)
def test_it_finds_what_a_whole_reading_finds_and_the_policy_says_the_same(
    rounds: list[tuple[list[tuple[str, int, str, int, int]], int, int, int | None]],
) -> None:
    store = Store()
    history, now, first = WindowHistory(store), START + 300, START
    for come, passed, moved, dropped in rounds:
        now, first = now + passed, max(0, first + moved)
        for version, late, replica, n, share in come:
            store.record(replica, window(version, now - late, n, n * share // 100))
        if dropped is not None:
            store.drop_before(now - dropped)
        found = history.windows(MODEL, first, now)
        assert found == store.whole(first, now)
        at = datetime.fromtimestamp((now + 1) * 60 + 20, UTC)
        of = watched(now - 20)
        assert judge_watched(SPEC, of, found, at) == judge_watched(SPEC, of, store.whole(first, now), at)


def test_a_round_in_which_nothing_came_reads_nothing_and_one_window_is_read_alone() -> None:
    store = Store()
    for minute in range(5000):
        store.record("a", window("1", START + minute))
    history, last = WindowHistory(store), START + 4999
    assert len(history.windows(MODEL, START, last)) == 5000
    read = store.n_read
    assert len(history.windows(MODEL, START, last)) == 5000
    assert store.n_read == read
    store.record("a", window("2", last + 1))
    assert len(history.windows(MODEL, START, last + 1)) == 5001
    assert store.n_read == read + 1


def test_a_clock_that_is_put_back_reads_anew() -> None:
    store = Store()
    store.record("a", window("1", START))
    store.record("a", window("1", START + 5))
    history = WindowHistory(store)
    assert len(history.windows(MODEL, START, START + 5)) == 2
    assert [w.key.minute for w in history.windows(MODEL, START, START + 4)] == [START]
    assert len(history.windows(MODEL, START, START + OPEN_MINUTES)) == 2
