"""The route table: a live version is only ever replaced by a verified one."""

from datetime import UTC, datetime
from itertools import product
from types import SimpleNamespace

import pytest

from release_platform.adapters.trust import Proof
from serving.errors import ModelNotLoaded, UnknownModel
from serving.models import (
    BEHIND,
    Confirmed,
    LoadedModel,
    Lost,
    Origin,
    Reached,
    Refusal,
    Refused,
    RouteTable,
    Went,
    advance,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


def loaded(version, origin=Origin.REGISTRY, epoch=1):
    package = SimpleNamespace(golden={"inputs": {"x": [1]}})
    return LoadedModel(
        model="m",
        epoch=epoch,
        proof=Proof(signature="", certificate=""),
        version=version,
        digest="d" + version,
        package=package,
        since=AT,
        origin=origin,
    )


def refused(version, kind="K"):
    return Refused(
        refusal=Refusal(model="m", version=version, kind=kind, reason="because", at=AT, n_attempts=1, retry_at=AT)
    )


EVENTS = (
    Went(loaded=loaded("1")),
    Went(loaded=loaded("2")),
    Went(loaded=loaded("0", Origin.DISK)),
    Went(loaded=loaded("1", Origin.PUSH, epoch=2)),
    Went(loaded=loaded("2", epoch=3)),
    Confirmed(model="m", epoch=1),
    Confirmed(model="m", epoch=2),
    refused("3"),
    refused(None),
    Reached(models=("m",), at=AT),
    Reached(models=(), at=AT),
    Lost(problem="down"),
)


def test_nothing_but_a_verified_version_takes_the_place_of_a_live_one():
    for events in product(EVENTS, repeat=4):
        table = RouteTable()
        for event in events:
            before = table.loaded.get("m")
            table = advance(table, event)
            after = table.loaded.get("m")
            if before is None:
                assert after is None or isinstance(event, Went)
            elif (
                isinstance(event, Went) and event.loaded.origin is not Origin.DISK and event.loaded.epoch > before.epoch
            ):
                assert after is event.loaded
            else:
                assert after.epoch == before.epoch
                assert after.version == before.version or isinstance(event, Went)


def test_the_accepted_epoch_never_decreases_in_whatever_order_looks_and_pushes_settle():
    for events in product(EVENTS, repeat=4):
        table, epoch = RouteTable(), 0
        for event in events:
            table = advance(table, event)
            now = table.loaded["m"].epoch if "m" in table.loaded else 0
            assert now >= epoch
            epoch = now


def test_a_look_that_began_before_a_push_does_not_undo_it():
    pushed = Went(loaded=loaded("1", Origin.PUSH, epoch=5))
    table = advance(advance(RouteTable(), Went(loaded=loaded("2", epoch=4))), pushed)
    for late in (Went(loaded=loaded("2", epoch=4)), Confirmed(model="m", epoch=4)):
        assert advance(table, late) is table


def test_a_push_that_was_prepared_before_a_later_move_was_seen_does_not_undo_that():
    table = advance(RouteTable(), Went(loaded=loaded("3", epoch=6)))
    assert advance(table, Went(loaded=loaded("1", Origin.PUSH, epoch=5))) is table


def test_what_both_name_is_named_by_the_registry_in_whatever_order_they_come():
    pushed, looked = Went(loaded=loaded("1", Origin.PUSH, epoch=5)), Went(loaded=loaded("1", epoch=5))
    for events in ((pushed, looked), (looked, pushed), (pushed, Confirmed(model="m", epoch=5))):
        table = RouteTable()
        for event in events:
            table = advance(table, event)
        assert (table.loaded["m"].epoch, table.loaded["m"].origin) == (5, Origin.REGISTRY)


def test_a_registry_that_is_behind_a_push_is_shown_but_no_trouble_and_forgotten_when_it_follows():
    table = advance(RouteTable(), Went(loaded=loaded("1", Origin.PUSH, epoch=5)))
    behind = advance(table, refused("2", BEHIND))
    assert (list(behind.refusals), behind.troubled) == (["m"], frozenset())
    assert advance(table, refused("2")).troubled == {"m"}
    assert advance(behind, Confirmed(model="m", epoch=5)).refusals == {}


def test_a_refusal_ends_when_the_named_version_is_live():
    table = advance(advance(RouteTable(), Went(loaded=loaded("1"))), refused("2"))
    assert table.troubled == {"m"}
    assert advance(table, Confirmed(model="m", epoch=1)).refusals == {}
    assert advance(table, Went(loaded=loaded("2"))).refusals == {}


def test_the_table_that_a_request_holds_does_not_change():
    held = advance(RouteTable(), Went(loaded=loaded("1")))
    advance(held, Went(loaded=loaded("2")))
    assert held.get_model("m").version == "1"
    with pytest.raises(TypeError):
        held.loaded["m"] = loaded("2")


def test_before_the_registry_answered_no_model_is_called_unknown():
    with pytest.raises(ModelNotLoaded, match="not answered"):
        RouteTable().get_model("m")
    with pytest.raises(UnknownModel):
        advance(RouteTable(), Reached(models=("other",), at=AT)).get_model("m")
    with pytest.raises(ModelNotLoaded):
        advance(RouteTable(), Reached(models=("m",), at=AT)).get_model("m")
    with pytest.raises(ModelNotLoaded, match="because"):
        advance(RouteTable(), refused("1")).get_model("m")


def test_the_last_contact_is_remembered_when_the_registry_is_lost():
    contact = advance(advance(RouteTable(), Reached(models=(), at=AT)), Lost(problem="down")).contact
    assert (contact.reachable, contact.last_success, contact.problem) == (False, AT, "down")
