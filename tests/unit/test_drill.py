"""Drills: where they go, how one that was cut off is read off the ledger, how a swap is timed, and what it shows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from release_platform.domain.drill import (
    Answer,
    Drilled,
    Half,
    Outcome,
    Route,
    ago,
    drill_move_id,
    find_drill,
    find_unfinished,
    plan_drill,
    readiness,
    slowest,
    swap_ms,
)
from release_platform.domain.errors import Refused
from release_platform.domain.ledger import LedgerRow, genesis, sealed
from release_platform.domain.lifecycle import Head, Move, advance

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
THERE, BACK = drill_move_id("d1", Half.THERE), drill_move_id("d1", Half.BACK)
BOTH = ((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2"))


def head_of(*moves: tuple[Any, ...]) -> Head:
    head = Head(model="m")
    for move in moves:
        head = advance(head, *move)
    return head


def rows_of(*moves: tuple[Move, str, str]) -> list[LedgerRow]:
    head, last, rows = Head(model="m"), genesis("m"), []
    for move, version, request_id in moves:
        after = advance(head, move, version)
        of: dict[str, Any] = {"model": "m", "epoch": after.epoch, "move": move, "version": version, "actor": "ada"}
        of |= {"reason": "because", "request_id": request_id, "evidence": "", "digest": "sha256:0"}
        of |= {"before": head.to_json(), "after": after.to_json(), "at": NOW.isoformat(), "previous_hash": last}
        rows.append(sealed(LedgerRow(**of)))
        head, last = after, rows[-1].hash
    return rows


def ledger(*more: tuple[Move, str, str]) -> list[LedgerRow]:
    return rows_of(*((move, version, f"q{n}") for n, (move, version) in enumerate(BOTH)), *more)


def drilled(**more: Any) -> Drilled:
    of: dict[str, Any] = {"drill_id": "d1", "model": "m", "home": "2", "away": "1", "at": NOW.isoformat()}
    of |= {"actor": "ada", "outcome": Outcome.READY, "there_ms": 83.6, "back_ms": 20.0}
    return Drilled(**of | {"servers": {"http://one": [83.6, 20.0]}, "n_requests": 40} | more)


# Where it goes


def test_a_drill_goes_to_the_previous_version_and_back_to_the_same_head() -> None:
    head = head_of(*BOTH)
    route = plan_drill(head)
    assert route == Route(home="2", away="1")
    back = advance(advance(head, Move.ROLLED_BACK, route.away), Move.ROLLED_BACK, route.home)
    assert (back.production, back.previous, back.ever) == (head.production, head.previous, head.ever)


def test_no_drill_without_a_previous_version() -> None:
    for moves in (BOTH[:0], BOTH[:2], (*BOTH, (Move.ROLLED_BACK, "1"))):
        with pytest.raises(Refused, match="no previous Production version"):
            plan_drill(head_of(*moves))


def test_no_drill_beside_a_canary_or_a_shadow() -> None:
    for move in (Move.CANARY_SET, Move.SHADOW_SET):
        with pytest.raises(Refused, match="version 3 is asked beside"):
            plan_drill(head_of(*BOTH, (Move.STAGED, "3"), (move, "3", 0.1)))


def test_no_drill_that_would_lose_the_previous_version() -> None:
    twice = (*BOTH, (Move.PROMOTED, "1"), (Move.PROMOTED, "2"))  # previous: 1, 2, 1
    with pytest.raises(Refused, match="version 1 would not be the previous one any more"):
        plan_drill(head_of(*twice))


# What was cut off


def test_a_drill_that_was_cut_off_is_the_last_move_of_production() -> None:
    assert find_unfinished([]) is None
    assert find_unfinished(ledger()) is None
    rows = ledger((Move.ROLLED_BACK, "1", THERE))
    assert find_unfinished(rows) == rows[-1]
    assert find_drill(rows[-1]) == ("d1", Half.THERE)


def test_a_staged_version_hides_no_drill_that_was_cut_off() -> None:
    rows = ledger((Move.ROLLED_BACK, "1", THERE), (Move.STAGED, "3", "q9"))
    assert find_unfinished(rows) == rows[-2]


@pytest.mark.parametrize("request_id", [BACK, "rollback-1"])
def test_a_drill_that_came_back_or_was_overtaken_is_not_cut_off(request_id: str) -> None:
    assert find_unfinished(ledger((Move.ROLLED_BACK, "1", THERE), (Move.ROLLED_BACK, "2", request_id))) is None


def test_only_a_rollback_is_a_move_of_a_drill() -> None:
    rows = ledger((Move.PROMOTED, "1", THERE), (Move.ROLLED_BACK, "2", "d1#drill-sideways"))
    assert [find_drill(row) for row in rows[-2:]] == [None, None]


# How a swap is timed


def answers(*said: tuple[float, str, int]) -> list[Answer]:
    return [
        Answer(url="u", at=NOW + timedelta(milliseconds=ms), version=version, epoch=str(epoch))
        for ms, version, epoch in said
    ]


def test_a_swap_takes_until_the_first_answer_of_the_version() -> None:
    assert swap_ms(answers((10, "2", 4), (84, "1", 5), (150, "1", 5)), "1", 5, NOW) == pytest.approx(84)


def test_a_worker_that_is_late_makes_the_swap_longer() -> None:
    assert swap_ms(answers((84, "1", 5), (90, "2", 4), (130, "1", 5)), "1", 5, NOW) == pytest.approx(130)


def test_a_swap_that_never_came_takes_no_time_at_all() -> None:
    assert swap_ms([], "1", 5, NOW) is None
    assert swap_ms(answers((84, "1", 5), (90, "2", 4)), "1", 5, NOW) is None
    assert swap_ms(answers((84, "1", 3)), "1", 5, NOW) is None, "the same version of an older epoch"


def test_what_is_no_answer_does_not_end_a_swap_and_no_swap_takes_less_than_nothing() -> None:
    gap = Answer(url="u", at=NOW + timedelta(milliseconds=90), problem="does not answer")
    assert swap_ms([*answers((84, "1", 5)), gap], "1", 5, NOW) == pytest.approx(84)
    assert swap_ms(answers((-3, "1", 5)), "1", 5, NOW) == 0


def test_the_slowest_server_counts_and_one_that_never_came_counts_most() -> None:
    assert slowest([1.0, 84.0, 3.0]) == 84
    assert slowest([1.0, None]) is None
    assert slowest([]) is None


# What it shows


def test_a_drill_is_kept_as_it_was() -> None:
    found = drilled(outcome=Outcome.NOT_READY, back_ms=None, problems=("an answer was wrong",))
    assert Drilled.from_json(found.to_json()) == found


def test_a_good_drill_says_how_long_a_rollback_takes_and_when_that_was() -> None:
    shown = readiness(drilled(), head_of(*BOTH), NOW + timedelta(days=2, hours=3))
    assert shown is not None
    assert (shown["ready"], shown["said"]) == (True, "rollback-ready, 84 ms, 2 days ago")


def test_a_bad_drill_says_why() -> None:
    bad = drilled(outcome=Outcome.NOT_READY, problems=("http://one: status 500",))
    shown = readiness(bad, head_of(*BOTH), NOW)
    assert shown is not None
    assert (shown["ready"], shown["said"]) == (False, "not rollback-ready: http://one: status 500, just now")


def test_a_drill_of_other_versions_shows_nothing() -> None:
    later = head_of(*BOTH, (Move.STAGED, "3"), (Move.PROMOTED, "3"))
    for found in (drilled(), None):
        shown = readiness(found, later, NOW)
        assert shown is not None
        assert shown["ready"] is None
        assert shown["said"] == "a rollback from version 3 to 2 was never drilled"
    assert readiness(drilled(), head_of(*BOTH[:2]), NOW) is None


def test_times_are_said_in_a_few_words() -> None:
    for past, said in ((59, "just now"), (60, "1 minute ago"), (7200, "2 hours ago"), (86400, "1 day ago")):
        assert ago(NOW, NOW + timedelta(seconds=past)) == said
