"""The route table: a live version is only ever replaced by a verified one."""

from datetime import UTC, datetime
from itertools import product
from types import SimpleNamespace

import pytest

from release_platform.adapters.trust import Proof
from serving.errors import ModelNotLoaded, UnknownModel
from serving.models import Confirmed, LoadedModel, Lost, Origin, Reached, Refusal, Refused, RouteTable, Went, advance

AT = datetime(2026, 1, 1, tzinfo=UTC)


def loaded(version, origin=Origin.REGISTRY):
    package = SimpleNamespace(golden={"inputs": {"x": [1]}})
    return LoadedModel(
        model="m",
        epoch=1,
        proof=Proof(signature="", certificate=""),
        version=version,
        digest="d" + version,
        package=package,
        since=AT,
        origin=origin,
    )


def refused(version):
    return Refused(
        refusal=Refusal(model="m", version=version, kind="K", reason="because", at=AT, n_attempts=1, retry_at=AT)
    )


EVENTS = (
    Went(loaded=loaded("1")),
    Went(loaded=loaded("2")),
    Went(loaded=loaded("0", Origin.DISK)),
    Confirmed(model="m"),
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
            if before is not None:
                named = event.loaded if isinstance(event, Went) and event.loaded.origin is Origin.REGISTRY else before
                assert after is named
            elif after is not None:
                assert isinstance(event, Went)


def test_a_refusal_ends_when_the_named_version_is_live():
    table = advance(advance(RouteTable(), Went(loaded=loaded("1"))), refused("2"))
    assert table.troubled == {"m"}
    assert advance(table, Confirmed(model="m")).refusals == {}
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
