"""The state machine of a model: every sequence of moves up to length five, and what a rollback may do."""

from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest

from release_platform.domain.errors import Refused
from release_platform.domain.lifecycle import Alias, Head, Move, Share, advance, rollback_target

VERSIONS = ("1", "2", "3")
WEIGHTS = (0.0, 0.5)
Event = tuple[Move, str, float | None]
EVENTS: tuple[Event, ...] = tuple(
    (move, version, weight)
    for move, version in product(Move, VERSIONS)
    for weight in (WEIGHTS if move.weighted else (None,))
)


def moved(*moves: tuple[Move, str] | Event) -> Head:
    head = Head(model="m")
    for move in moves:
        head = advance(head, *move)
    return head


def test_every_sequence_of_five_moves_keeps_the_invariants() -> None:
    states = {Head(model="m")}
    seen = set(states)
    for _ in range(5):
        reached = set()
        for head in states:
            for event in EVENTS:
                try:
                    after = advance(head, *event)
                except Refused:
                    continue
                check_invariants(head, event, after)
                reached.add(after)
        states = reached - seen
        seen |= reached
    assert len(seen) > 100


def check_invariants(before: Head, event: Event, after: Head) -> None:
    move, version, weight = event
    assert len(after.beside) <= 1, "two versions are asked beside Production"
    assert after.production not in after.beside
    assert after.beside <= after.reachable
    if move.weighted:
        kept = {"epoch", "canary", "shadow"}
        assert all(getattr(after, f.name) == getattr(before, f.name) for f in fields(Head) if f.name not in kept)
        assert before.production is not None
        share = after.canary if move is Move.CANARY_SET else after.shadow
        assert share == (Share(version=version, weight=weight) if weight else None)
    elif move is not Move.STAGED:
        assert after.beside == frozenset(), "a share outlives the Production that it was beside"
    assert after.epoch == before.epoch + 1
    assert after.production is None or after.production in after.ever
    assert set(after.previous) <= set(after.ever)
    assert before.ever == after.ever[: len(before.ever)]
    if move is Move.STAGED:
        assert (after.production, after.previous) == (before.production, before.previous)
        assert after.staging == version
    if move is Move.PROMOTED and before.production is not None:
        assert after.previous[-1] == before.production
    if move is Move.ROLLED_BACK:
        assert version in before.ever
        kept = (*before.previous, before.production)
        if version in before.previous:
            last = max(place for place, standing in enumerate(before.previous) if standing == version)
            kept = before.previous[:last]
        assert after.previous == kept
    assert Head.from_json(after.to_json()) == after


def test_a_promotion_keeps_the_version_that_it_replaces() -> None:
    head = moved((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2"))
    assert head.aliases == dict.fromkeys(Alias) | {Alias.PRODUCTION: "2", Alias.PREVIOUS: "1"}


def test_the_alias_previous_is_where_a_plain_rollback_goes() -> None:
    head = moved(*((Move.PROMOTED, v) for v in ("1", "2", "3")))
    assert head.aliases[Alias.PREVIOUS] == rollback_target(head) == "2"


def test_rollbacks_go_back_to_any_depth() -> None:
    head = moved(*((Move.PROMOTED, v) for v in ("1", "2", "3")))
    head = advance(head, Move.ROLLED_BACK, rollback_target(head))
    assert (head.production, head.previous) == ("2", ("1",))
    head = advance(head, Move.ROLLED_BACK, rollback_target(head))
    assert (head.production, head.previous) == ("1", ())
    with pytest.raises(Refused, match="no previous"):
        rollback_target(head)


def test_a_rollback_may_name_any_former_production_version() -> None:
    head = moved(*((Move.PROMOTED, v) for v in ("1", "2", "3")))
    back = advance(head, Move.ROLLED_BACK, "1")
    assert (back.production, back.previous) == ("1", ())
    forward = advance(back, Move.ROLLED_BACK, "3")
    assert (forward.production, forward.previous) == ("3", ("1",))


def test_a_rollback_to_what_never_was_in_production_is_refused() -> None:
    head = moved((Move.PROMOTED, "1"), (Move.STAGED, "2"))
    with pytest.raises(Refused, match="never was in Production"):
        advance(head, Move.ROLLED_BACK, "2")


def test_promoting_what_is_in_production_is_refused() -> None:
    with pytest.raises(Refused, match="already is in Production"):
        moved((Move.PROMOTED, "1"), (Move.PROMOTED, "1"))


def test_nothing_that_stands_somewhere_is_unreachable() -> None:
    head = moved((Move.PROMOTED, "1"), (Move.PROMOTED, "2"), (Move.ROLLED_BACK, "1"), (Move.STAGED, "3"))
    assert head.reachable == {"1", "2", "3"}


SERVED = moved((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"))


def test_a_canary_and_a_shadow_stand_behind_aliases_of_their_own() -> None:
    head = advance(advance(SERVED, Move.SHADOW_SET, "2", 1.0), Move.CANARY_SET, "2", 0.1)
    assert (head.aliases[Alias.CANARY], head.aliases[Alias.SHADOW]) == ("2", "2")
    assert advance(head, Move.SHADOW_SET, "2", 0).shadow is None
    assert advance(head, Move.CANARY_SET, "2", 0.25).canary == Share(version="2", weight=0.25)


@pytest.mark.parametrize(("move", "version"), [(Move.PROMOTED, "2"), (Move.ROLLED_BACK, "0")])
def test_a_move_of_production_takes_the_shares_away(move: Move, version: str) -> None:
    head = replace(SERVED, ever=("0", "1"), previous=("0",))
    head = advance(advance(head, Move.SHADOW_SET, "2", 1.0), Move.CANARY_SET, "2", 0.1)
    assert advance(head, move, version).beside == frozenset()


@pytest.mark.parametrize(
    ("head", "version", "weight", "said"),
    [
        (moved((Move.STAGED, "2")), "2", 0.1, "beside version None in Production"),
        (SERVED, "1", 0.1, "beside version 1 in Production"),
        (SERVED, "2", 1.1, "is 0 to 1"),
        (SERVED, "2", -0.1, "is 0 to 1"),
        (SERVED, "2", float("nan"), "is 0 to 1"),
        (SERVED, "2", None, "says no share"),
        (SERVED, "2", 0.0, "is no canary"),
        (advance(SERVED, Move.CANARY_SET, "2", 0.1), "2", 0.1, "has this share"),
        (advance(SERVED, Move.SHADOW_SET, "2", 0.1), "3", 0.1, "version 2 is asked beside Production already"),
    ],
)
def test_a_share_that_makes_no_sense_is_refused(head: Head, version: str, weight: float | None, said: str) -> None:
    with pytest.raises(Refused, match=said):
        advance(head, Move.CANARY_SET, version, weight)


def test_a_head_without_shares_is_written_as_before_there_were_any() -> None:
    assert set(SERVED.to_json()) == {"model", "epoch", "staging", "production", "previous", "ever"}
    head = advance(SERVED, Move.CANARY_SET, "2", 0.1)
    assert head.to_json()["canary"] == {"version": "2", "weight": 0.1}
    assert Head.from_json(head.to_json()) == head


@pytest.mark.parametrize(
    "share", [None, {}, {"version": "2"}, {"version": 2, "weight": 0.1}, {"version": "2", "weight": 2}]
)
def test_a_head_with_a_share_that_is_none_is_not_read(share: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Head.from_json({**SERVED.to_json(), "canary": share})
