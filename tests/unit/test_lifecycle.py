"""The state machine of a model: every sequence of moves up to length five, and what a rollback may do."""

from itertools import product

import pytest

from release_platform.domain.errors import Refused
from release_platform.domain.lifecycle import Alias, Head, Move, advance, rollback_target

VERSIONS = ("1", "2", "3")
EVENTS = tuple(product(Move, VERSIONS))


def moved(*moves: tuple[Move, str]) -> Head:
    head = Head(model="m")
    for move, version in moves:
        head = advance(head, move, version)
    return head


def test_every_sequence_of_five_moves_keeps_the_invariants() -> None:
    states = {Head(model="m")}
    seen = set(states)
    for _ in range(5):
        reached = set()
        for head in states:
            for move, version in EVENTS:
                try:
                    after = advance(head, move, version)
                except Refused:
                    continue
                check_invariants(head, move, version, after)
                reached.add(after)
        states = reached - seen
        seen |= reached
    assert len(seen) > 100


def check_invariants(before: Head, move: Move, version: str, after: Head) -> None:
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
    assert head.aliases == {Alias.STAGING: None, Alias.PRODUCTION: "2", Alias.PREVIOUS: "1"}


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
