"""The release store keeps its promises on SQLite and on PostgreSQL alike."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.store_database import SCHEMA, SQLITE_WAITS_S, open_engine, store_url, upgrade
from release_platform.domain.asked_rollout import NOTHING_ASKED, asked_in_words
from release_platform.domain.coverage import Owed
from release_platform.domain.errors import NotFound, Refused, StaleEpoch, Unavailable
from release_platform.domain.ledger import LedgerRow, faults, fold, standing_at
from release_platform.domain.lifecycle import Move
from release_platform.domain.messages import Delivery, State
from release_platform.domain.policy import Approval, PromotionRequest, RequestState
from release_platform.domain.rollout import Order, Ordered, advance
from release_platform.domain.windows import Window
from tests.contract.test_rollout_store import KEY, begun_rollout
from tests.contract.test_verification_store import VERIFIED
from tests.unit.test_drift_day import DRIFTED, LIFT
from tests.unit.test_policy import REGISTRATION, REQUEST

AT = "2026-03-01T12:00:00+00:00"


def move(
    store: ReleaseStore, kind: Move, version: str, epoch: int, request_id: str = "", weight: float | None = None
) -> LedgerRow:
    return store.commit_move(
        model="m",
        weight=weight,
        move=kind,
        version=version,
        expected_epoch=epoch,
        actor="ada",
        reason="because",
        request_id=request_id or f"{kind}-{version}-{epoch}",
        evidence="sha256:e",
        digest="sha256:d",
    )


def test_who_reads_does_not_wait_for_who_writes(store: ReleaseStore, url: str) -> None:
    move(store, Move.STAGED, "1", 0)
    other = open_engine(store_url(url), read_json=str)
    try:
        with other.begin() as connection:
            connection.execute(sa.text("UPDATE heads SET projected_epoch = 1"))
            begun = time.monotonic()
            assert store.head("m").epoch == 1
            assert len(store.ledger("m")) == 1
            ReleaseStore(url).close()
            assert time.monotonic() - begun < SQLITE_WAITS_S
    finally:
        other.dispose()


def test_moves_are_kept_in_a_ledger_without_fault(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    rows = store.ledger("m")
    assert faults("m", rows) == ()
    assert fold("m", rows) == store.head("m")
    assert store.head("m").production == "1"
    assert store.models() == ("m",)


def test_a_stale_epoch_is_told_who_won_and_changes_nothing(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    with pytest.raises(
        StaleEpoch, match=r"the head is at epoch 1: another transition was first: version 1 was staged by ada"
    ):
        move(store, Move.STAGED, "2", 0)
    assert len(store.ledger("m")) == 1


def test_one_request_moves_once_however_often_it_is_sent(store: ReleaseStore) -> None:
    first = move(store, Move.STAGED, "1", 0, "q")
    assert move(store, Move.STAGED, "1", 0, "q") == first
    assert store.head("m").epoch == 1


def test_a_request_id_cannot_be_used_for_another_move(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0, "q")
    with pytest.raises(Refused, match="already did something else"):
        move(store, Move.STAGED, "2", 1, "q")


def test_of_many_concurrent_moves_one_wins_each_round(store: ReleaseStore) -> None:
    def attempt(round_and_number: tuple[int, int]) -> bool:
        epoch, number = round_and_number
        try:
            move(store, Move.PROMOTED, f"{epoch}{number}", epoch)
        except StaleEpoch:
            return False
        return True

    for epoch in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, [(epoch, number) for number in range(8)]))
        assert won.count(True) == 1
    assert faults("m", store.ledger("m")) == ()
    assert store.head("m").epoch == 5


def test_a_head_that_another_transaction_moves_meanwhile_is_not_overwritten(postgresql_url: str) -> None:
    store = ReleaseStore(postgresql_url)
    move(store, Move.STAGED, "1", 0)
    engine = sa.create_engine(postgresql_url)
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = :lock")
    with ThreadPoolExecutor(1) as pool, engine.connect() as other, engine.connect() as onlooker:
        other.execute(sa.text("UPDATE heads SET epoch = 7, state = jsonb_set(state::jsonb, '{epoch}', '7')::json"))
        late = pool.submit(move, store, Move.STAGED, "2", 1)
        while not onlooker.scalar(waiting, {"lock": "transactionid"}):
            onlooker.rollback()  # a transaction sees the activity of its beginning
            assert not late.done()
        other.commit()
        with pytest.raises(StaleEpoch):
            late.result()
    assert len(store.ledger("m")) == 1
    store.close()
    engine.dispose()


def test_a_head_never_moves_without_its_ledger_row(store: ReleaseStore, url: str) -> None:
    move(store, Move.STAGED, "1", 0)
    engine = sa.create_engine(url)
    with engine.begin() as connection:  # no row more has room in this ledger
        connection.execute(sa.text("CREATE UNIQUE INDEX full_ledger ON ledger (model)"))
    engine.dispose()
    with pytest.raises(StaleEpoch):
        move(store, Move.STAGED, "2", 1)
    assert (store.head("m").epoch, len(store.ledger("m"))) == (1, 1)


@pytest.mark.parametrize("statement", ["UPDATE ledger SET actor = 'mallory'", "DELETE FROM ledger"])
def test_ledger_rows_cannot_be_changed(store: ReleaseStore, url: str, statement: str) -> None:
    move(store, Move.STAGED, "1", 0)
    engine = sa.create_engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


@pytest.mark.parametrize("kept", [("model", "epoch"), ("request_id",), ("hash",)])
def test_a_ledger_row_cannot_be_replaced(tmp_path: Path, kept: tuple[str, ...]) -> None:
    url = f"sqlite:///{tmp_path / 'release.db'}"  # PostgreSQL has no INSERT OR REPLACE
    store = ReleaseStore(url)
    row = move(store, Move.STAGED, "1", 0)
    forged = {**row.to_json(), "actor": "mallory", "before": "{}", "after": "{}"}
    others = {"model": "m2", "epoch": 2, "request_id": "q2", "hash": "h2"}
    values = forged | {name: other for name, other in others.items() if name not in kept}
    columns = ", ".join(f'"{name}"' for name in values)
    statement = f"INSERT OR REPLACE INTO ledger ({columns}) VALUES ({', '.join(f':{name}' for name in values)})"
    engine = sa.create_engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()
    assert store.ledger("m") == (row,)
    store.close()


def test_the_ledger_cannot_be_truncated(store: ReleaseStore, url: str) -> None:
    if url.startswith("sqlite"):
        return  # SQLite has no TRUNCATE
    move(store, Move.STAGED, "1", 0)
    engine = sa.create_engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE ledger"))
    engine.dispose()


@pytest.fixture
def as_role(postgresql_url: str) -> Iterator[str]:
    """Yields the address of a store for a role that may only do what the platform does."""
    role = f"releaser_{uuid.uuid4().hex[:8]}"
    owner = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
    store = ReleaseStore(postgresql_url)
    store.grant(role)
    store.close()
    yield sa.make_url(postgresql_url).set(username=role).render_as_string(hide_password=False)
    with owner.connect() as connection:
        connection.execute(sa.text(f"DROP OWNED BY {role}"))
        connection.execute(sa.text(f"DROP ROLE {role}"))
    owner.dispose()


def test_a_role_of_its_own_can_do_everything_that_the_platform_does(as_role: str) -> None:
    store = ReleaseStore(as_role)
    store.record_registration(REGISTRATION)
    store.replace_tag("m", "2", "t", "v")
    store.record_registration(replace(REGISTRATION, version="7"))
    store.record_removal("m", "7", actor="ada", reason="old")
    store.record_policy("sha256:p", {})
    store.open_request(REQUEST)
    approval = Approval(request_id="q", actor="grace", binding="b", reason="read it", approved_at=datetime.now(UTC))
    store.record_approval(approval)
    store.close_request("q", RequestState.REFUSED, "no")
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    store.mark_projected("m", 2)
    assert store.claim_tracked_run("d", "m", "r") == "r"
    kept = store.rollouts.open(begun_rollout(), epoch=2)
    ended = advance(kept.rollout, Ordered(order=Order.ABORT, actor="ada", reason="no", at=datetime.now(UTC)))[0]
    saved = store.rollouts.save(kept, ended)
    assert saved is not None
    store.rollouts.settle(saved)
    assert store.windows.record("r1", [Window(key=KEY)]) == 1
    for told in (False, True):
        store.windows.record_owed(KEY.model, [Owed(minute=KEY.minute, url="http://one", told=told)])
    assert store.windows.drop_before(KEY.minute + 1) == 1
    (posted,) = store.outbox.find(State.WAITING)
    store.outbox.record(posted.message.id, "one", Delivery(n_attempts=1))
    assert store.outbox.settle(posted.message.id, []) is State.UNWANTED
    assert store.outbox.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    store.verifications.record(VERIFIED)
    assert store.verifications.drop_before("2026-03-02") == 1
    assert store.drift.record(DRIFTED) == store.drift.record(DRIFTED)
    assert store.drift.lift(DRIFTED, LIFT).lift == LIFT
    assert (store.head("m").production, faults("m", store.ledger("m"))) == ("1", ())
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET actor = 'mallory'",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "ALTER TABLE ledger DISABLE TRIGGER ALL",
        "DROP TABLE ledger",
        "DELETE FROM heads",
        "UPDATE outbox SET value = '{}'",
        "UPDATE registrations SET digest = 'd'",
        "DELETE FROM approvals",
        "UPDATE requests SET actor = 'mallory'",
        "UPDATE rollouts SET rollout_id = 'other'",
        "DELETE FROM rollouts",
        "UPDATE live_windows SET value = '{}'",
        "UPDATE live_minutes SET url = 'http://other'",
        "UPDATE drills SET value = '{}'",
        "UPDATE verifications SET value = '{}'",
        "DELETE FROM drift_days",
        "UPDATE drift_days SET day = '2026-03-02'",
        "UPDATE replays SET value = '{}'",
        "SET session_replication_role = replica",
    ],
)
def test_a_role_of_its_own_can_do_nothing_else(as_role: str, statement: str) -> None:
    engine = sa.create_engine(as_role)
    with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_a_role_that_may_not_bring_the_schema_up_to_date_is_told_who_may(as_role: str, postgresql_url: str) -> None:
    owner = sa.create_engine(postgresql_url)
    with owner.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    owner.dispose()
    with pytest.raises(Refused, match="this role may not"):
        ReleaseStore(as_role)


def test_a_schema_of_a_newer_version_is_refused(store: ReleaseStore, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Refused, match="does not know"):
        ReleaseStore(url)


def test_a_role_that_does_not_exist_is_named(url: str) -> None:
    store = ReleaseStore(url)
    with pytest.raises(Refused, match=r"no role nobody|SQLite has no roles"):
        store.grant("nobody")
    store.close()


def test_the_projected_epoch_never_goes_back(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    store.mark_projected("m", 2)
    store.mark_projected("m", 1)
    assert store.projected_epoch("m") == 2


def test_a_registration_is_recorded_once_and_never_changes(store: ReleaseStore) -> None:
    store.record_registration(REGISTRATION)
    store.record_registration(REGISTRATION)
    assert store.find_registration("m", "2") == REGISTRATION
    assert store.find_registration("m", "9") is None
    with pytest.raises(Refused, match="another digest"):
        store.record_registration(replace(REGISTRATION, digest="sha256:x"))


def test_versions_are_listed_by_number(store: ReleaseStore) -> None:
    for version in ("10", "9"):
        store.record_registration(replace(REGISTRATION, version=version))
    assert [r.version for r in store.registrations("m")] == ["9", "10"]


def test_requests_open_once_and_close_for_good(store: ReleaseStore) -> None:
    assert store.open_request(REQUEST) == REQUEST
    assert store.open_request(replace(REQUEST, actor="grace")) == REQUEST
    with pytest.raises(Refused, match="already asks for"):
        store.open_request(replace(REQUEST, version="3"))
    store.close_request("q", RequestState.REFUSED, "gate failed")
    store.close_request("q", RequestState.PROMOTED, "too late")
    closed: PromotionRequest = store.get_request("q")
    assert (closed.state, closed.outcome) == (RequestState.REFUSED, "gate failed")
    assert store.requests("m", RequestState.OPEN) == ()
    assert store.requests("m") == (closed,)


def test_what_a_request_says_of_its_rollout_is_kept_with_it(store: ReleaseStore) -> None:
    said = asked_in_words(["5%:2000:10m"], bake="2h", gates=["errors:0.5%"])
    store.open_request(replace(REQUEST, strategy="canary", asked=said))
    assert (store.get_request("q").strategy, store.get_request("q").asked) == ("canary", said)
    store.open_request(replace(REQUEST, request_id="r"))
    assert store.get_request("r").asked == NOTHING_ASKED


def test_an_unknown_request_is_not_found(store: ReleaseStore) -> None:
    with pytest.raises(NotFound, match="no promotion request nope"):
        store.get_request("nope")


def test_approvals_are_kept_once_each(store: ReleaseStore) -> None:
    given = Approval(request_id="q", actor="grace", binding="b", reason="read it", approved_at=datetime.now(UTC))
    store.record_approval(given)
    store.record_approval(given)
    assert store.approvals("q") == (given,)


def test_an_approval_may_be_given_again_later(store: ReleaseStore) -> None:
    first = Approval(request_id="q", actor="grace", binding="b", reason="read it", approved_at=datetime.now(UTC))
    again = replace(first, approved_at=first.approved_at + timedelta(days=1))
    store.record_approval(first)
    store.record_approval(again)
    assert store.approvals("q") == (first, again)


def test_the_tags_of_a_version_are_kept(store: ReleaseStore) -> None:
    store.record_registration(replace(REGISTRATION, tags={"release.digest": "d", "release.signature": "s"}))
    store.replace_tag("m", "2", "release.signature", "t")
    assert store.recorded_tags("m") == {"2": {"release.digest": "d", "release.signature": "t"}}
    assert store.find_registration("m", "2") == replace(
        REGISTRATION, tags={"release.digest": "d", "release.signature": "t"}
    )


def test_a_store_of_the_first_schema_is_brought_up_to_date(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, "0001")
        connection.execute(sa.text("INSERT INTO approvals VALUES ('q', 'grace', 'b', 'read it', :at)"), {"at": AT})
        connection.execute(
            sa.text("INSERT INTO registrations VALUES ('m', '2', 'd', 'd', 'd', 'd', '[]', NULL, 'r', 'r', 'c', :at)"),
            {"at": AT},
        )
    engine.dispose()
    store = ReleaseStore(url)
    assert [(a.actor, a.reason, a.approved_at.isoformat()) for a in store.approvals("q")] == [("grace", "read it", AT)]
    assert store.recorded_tags("m") == {"2": {}}
    store.close()


def test_a_store_from_before_there_were_rollouts_keeps_its_ledger(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, "0003")
        connection.execute(
            sa.text("INSERT INTO requests VALUES ('q', 'm', '1', 'ada', 'why', :at, 'open', '')"), {"at": AT}
        )
    engine.dispose()
    store = ReleaseStore(url)
    assert store.get_request("q").actor == "ada"
    move(store, Move.STAGED, "1", 0, request_id="x" * 150)
    assert faults("m", store.ledger("m")) == ()
    assert store.rollouts.find_last("m") is None
    store.close()


def test_a_dagster_run_and_model_have_one_mlflow_run(store: ReleaseStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        held = set(pool.map(lambda n: store.claim_tracked_run("d", "m", f"run{n}"), range(8)))
    assert len(held) == 1
    assert store.tracked_runs("d") == (("m", held.pop()),)


def test_a_second_process_finds_the_same_state(store: ReleaseStore, url: str) -> None:
    move(store, Move.STAGED, "1", 0)
    other = ReleaseStore(url)
    assert other.head("m") == store.head("m")
    other.close()


def test_the_schema_is_the_newest_migration(store: ReleaseStore, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == SCHEMA
    engine.dispose()


def test_a_database_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        ReleaseStore("postgresql+psycopg2://user:secret@127.0.0.1:1/nothing")
    assert "secret" not in str(caught.value)


def test_a_removed_version_can_neither_move_nor_be_asked_for(store: ReleaseStore) -> None:
    store.record_registration(REGISTRATION)
    store.record_removal("m", "2", actor="ada", reason="old")
    store.record_removal("m", "2", actor="grace", reason="again")
    assert store.removed("m") == {"2"}
    assert store.recorded_tags("m") == {}
    with pytest.raises(Refused, match="was removed by ada"):
        move(store, Move.STAGED, "2", 0)
    with pytest.raises(Refused, match="was removed by ada"):
        store.open_request(REQUEST)
    assert (store.head("m").epoch, store.ledger("m")) == (0, ())


def test_what_something_reaches_is_not_removed(store: ReleaseStore) -> None:
    store.record_registration(REGISTRATION)
    move(store, Move.STAGED, "2", 0)
    with pytest.raises(Refused, match="it is in Staging"):
        store.record_removal("m", "2", actor="ada", reason="old")
    move(store, Move.STAGED, "3", 1)
    store.open_request(REQUEST)
    with pytest.raises(Refused, match="request q asks for it"):
        store.record_removal("m", "2", actor="ada", reason="old")
    with pytest.raises(NotFound, match="no version 9"):
        store.record_removal("m", "9", actor="ada", reason="old")


def test_of_a_removal_and_a_move_at_the_same_time_one_is_refused(store: ReleaseStore, url: str) -> None:
    for number in range(10, 22):
        store.record_registration(replace(REGISTRATION, version=str(number)))
    move(store, Move.STAGED, "9", 0)

    def remove(version: str) -> bool:
        try:
            store.record_removal("m", version, actor="ada", reason="old")
        except Refused:
            return False
        return True

    def promote(version: str) -> bool:
        other = ReleaseStore(url)
        try:
            move(other, Move.PROMOTED, version, other.head("m").epoch)
        except Refused:
            return False
        finally:
            other.close()
        return True

    for number in range(10, 22):
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(act, str(number)) for act in (remove, promote)]
        assert [future.result() for future in done].count(True) == 1
    assert store.removed("m").isdisjoint(store.head("m").ever)


def asked(store: ReleaseStore, request_id: str = "q") -> PromotionRequest:
    return store.open_request(replace(REQUEST, model="m", version="1", request_id=request_id))


def test_a_request_that_was_refused_moves_nothing(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    asked(store)
    store.close_request("q", RequestState.REFUSED, "the version was changed")
    with pytest.raises(Refused, match="the version was changed"):
        move(store, Move.PROMOTED, "1", 1, "q")
    assert store.head("m").production is None


def test_a_request_that_moved_production_is_never_said_to_be_refused(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    asked(store)
    move(store, Move.PROMOTED, "1", 1, "q")
    store.close_request("q", RequestState.REFUSED, "3 promotion runs failed")
    found = store.get_request("q")
    assert (found.state, found.outcome) == (RequestState.PROMOTED, "epoch 2")


def test_a_request_is_promoted_or_refused_but_never_both(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    for n in range(20):
        epoch = store.head("m").epoch
        store.open_request(replace(REQUEST, model="m", version=f"{n + 2}", request_id=f"q{n}"))

        def promote(n: int = n, epoch: int = epoch) -> bool:
            try:
                move(store, Move.PROMOTED, f"{n + 2}", epoch, f"q{n}")
            except Refused:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            moved = pool.submit(promote)
            pool.submit(store.close_request, f"q{n}", RequestState.REFUSED, "late").result()
        state = store.get_request(f"q{n}").state
        assert (state is RequestState.REFUSED) is not moved.result()


def test_the_same_request_sent_twice_at_once_gets_the_same_row_twice(store: ReleaseStore) -> None:
    for epoch in range(20):
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(lambda _, e=epoch: move(store, Move.PROMOTED, f"{e + 1}", e, f"q{e}"), range(2)))
        assert rows[0] == rows[1]


class BackwardClock:
    """A `Clock` that goes back by an hour each time that it is read."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.moment -= timedelta(hours=1)
        return self.moment


def test_rows_stay_in_order_of_time_although_the_clock_goes_back(url: str) -> None:
    store = ReleaseStore(url, BackwardClock())
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    first, second = store.ledger("m")
    assert first.at <= second.at
    assert standing_at([first, second], datetime.fromisoformat(first.at)) == second
    store.close()


def test_a_share_of_the_traffic_is_kept_with_its_weight(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    row = move(store, Move.CANARY_SET, "2", 2, weight=1)
    move(store, Move.SHADOW_SET, "2", 3, weight=0.1 + 0.2)
    move(store, Move.CANARY_SET, "2", 4, weight=0)
    kept = store.ledger("m")
    assert kept[2] == row
    assert [of.weight for of in kept] == [None, None, 1.0, 0.1 + 0.2, 0.0]
    assert faults("m", kept) == ()
    assert store.head("m") == fold("m", kept)


def test_a_closed_request_gets_no_traffic_and_loses_what_it_has(store: ReleaseStore) -> None:
    move(store, Move.STAGED, "1", 0)
    move(store, Move.PROMOTED, "1", 1)
    store.open_request(REQUEST)
    move(store, Move.CANARY_SET, "2", 2, "q#rollout-canary-0", weight=0.1)
    store.close_request("q", RequestState.CANCELLED, "by ada")
    with pytest.raises(Refused, match="is cancelled: by ada"):
        move(store, Move.CANARY_SET, "2", 3, "q#rollout-canary-1", weight=0.5)
    move(store, Move.CANARY_SET, "2", 3, "q#rollout-canary-off", weight=0)
    assert store.head("m").canary is None
