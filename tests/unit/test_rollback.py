"""When a version is taken back by itself: on evidence against the record, to the one before, never in circles."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pytest

from release_platform.domain.drill import Half, drill_move_id
from release_platform.domain.ledger import LedgerRow, fold, genesis, sealed
from release_platform.domain.lifecycle import Head, Move, advance
from release_platform.domain.rollback import (
    POLICY,
    Taken,
    Watched,
    find_taken_back,
    find_watched,
    judge_verified,
    judge_watched,
)
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.strategy import LiveGateSpec, LiveMetric
from release_platform.domain.verified import COUNTS_S, Found, Verified, is_due
from release_platform.domain.windows import Route, Window, WindowKey, number_bucket

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = int(START.timestamp() // 60)
SPEC = RollbackSpec(gates=(LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.02),), record_minutes=20)


def ledger(*moves: tuple[Move, str] | tuple[Move, str, str], at: tuple[int, ...] = ()) -> tuple[LedgerRow, ...]:
    """Returns the rows of these moves, by ada or who is named, at so many seconds after the start; else long before."""
    head, rows = Head(model="m"), list[LedgerRow]()
    for number, (move, version, *actor) in enumerate(moves):
        after = advance(head, move, version)
        seconds = at[number] if number < len(at) else 0
        row = LedgerRow(
            model="m",
            epoch=after.epoch,
            move=move,
            version=version,
            actor=actor[0] if actor else "ada",
            reason="why",
            request_id=actor[1] if len(actor) > 1 else f"q{number}",
            evidence="",
            digest="sha256:d",
            before=head.to_json(),
            after=after.to_json(),
            at=(START + timedelta(seconds=seconds)).isoformat(),
            previous_hash=rows[-1].hash if rows else genesis("m"),
        )
        rows.append(sealed(row))
        head = after
    return tuple(rows)


PROMOTED = ((Move.PROMOTED, "1"), (Move.PROMOTED, "2"))


def watched(*moves: Any, at: tuple[int, ...] = (), after_s: float = 60, spec: RollbackSpec = SPEC) -> Watched | str:
    rows = ledger(*moves, at=at)
    return find_watched(spec, fold("m", rows), rows, START + timedelta(seconds=after_s))


def test_a_promoted_version_is_watched_against_the_one_before() -> None:
    found = watched(*PROMOTED, at=(-9000, 30))
    assert isinstance(found, Watched)
    assert (found.row.version, found.before, found.since) == ("2", "1", MINUTE + 1)


def test_of_several_former_versions_it_is_the_last_one_that_it_goes_back_to() -> None:
    found = watched(*PROMOTED, (Move.PROMOTED, "3"))
    assert isinstance(found, Watched)
    assert (found.row.version, found.before) == ("3", "2")


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        ((), "nothing is in Production"),
        (PROMOTED[:1], "no version before"),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", "grace")), "version 1 was brought back by grace: a person decides"),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", POLICY)), f"version 1 was brought back by {POLICY}: a person decides"),
    ],
)
def test_where_there_is_no_way_back_or_somebody_went_it_nothing_is_done(moves: Any, said: str) -> None:
    found = watched(*moves)
    assert isinstance(found, str)
    assert said in found


@pytest.mark.parametrize(("after_s", "acts"), [(99, True), (100, True), (101, False)])
def test_a_version_is_watched_for_a_time(after_s: float, acts: bool) -> None:
    found = watched(*PROMOTED, after_s=after_s, spec=replace(SPEC, watch_s=100))
    assert isinstance(found, Watched) is acts


@pytest.mark.parametrize(("after_s", "acts"), [(99, False), (100, True)])
def test_it_holds_off_after_its_own_rollback_so_that_it_cannot_flap(after_s: float, acts: bool) -> None:
    moves = (*PROMOTED, (Move.ROLLED_BACK, "1", POLICY), (Move.PROMOTED, "3"))
    found = watched(*moves, after_s=after_s, spec=replace(SPEC, hold_off_s=100))
    assert isinstance(found, Watched) is acts
    by_person = (*PROMOTED, (Move.ROLLED_BACK, "1", "grace"), (Move.PROMOTED, "3"))
    assert isinstance(watched(*by_person, after_s=after_s, spec=replace(SPEC, hold_off_s=100)), Watched)


@pytest.mark.parametrize(
    ("moves", "taken"),
    [
        ((), None),
        (PROMOTED, None),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", "grace")), None),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", POLICY)), "2"),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", POLICY), (Move.STAGED, "3")), "2"),
        ((*PROMOTED, (Move.ROLLED_BACK, "1", POLICY), (Move.PROMOTED, "3")), None),
    ],
)
def test_what_the_policy_took_back_is_known_until_somebody_moves_on(moves: Any, taken: str | None) -> None:
    assert find_taken_back(ledger(*moves)) == taken


def window(version: str, minute: int, requests: int = 100, errors: int = 0, route: Route = Route.STABLE) -> Window:
    key = WindowKey(model="m", version=version, route=route, minute=MINUTE + minute)
    return Window(key=key, requests=requests, errors={"timeout": errors} if errors else {})


def record(errors: int = 1, n: int = 30) -> list[Window]:
    return [window("1", -minute, errors=errors) for minute in range(n + 2, 2, -1)]


WATCHED = watched(*PROMOTED, at=(-9000, 0))


def judged(windows: list[Window], minutes: int = 200, spec: RollbackSpec = SPEC) -> Taken | tuple[str, ...]:
    assert isinstance(WATCHED, Watched)
    return judge_watched(spec, WATCHED, windows, START + timedelta(minutes=minutes))


def test_a_version_that_fails_more_is_taken_back_with_the_numbers() -> None:
    found = judged([*record(), *(window("2", minute, errors=20) for minute in range(1, 10))])
    assert isinstance(found, Taken)
    assert found.watched.before == "1"
    assert found.reason == "errors: 20 % of 900 bad, 1 % of 900 in the record of version 1: +19 points, 2 accepted"


def test_a_version_that_fails_as_before_stays() -> None:
    assert judged([*record(), *(window("2", minute, errors=1) for minute in range(1, 60))]) == (
        "errors: 1 % of 1,900 bad, 1 % of 1,900 in the record of version 1: +0 points, 2 accepted",
    )


def test_a_version_that_begins_to_fail_after_hours_is_taken_back_too() -> None:
    later = [window("2", minute, errors=20 if minute > 150 else 1) for minute in range(1, 180)]
    assert isinstance(judged([*record(), *later]), Taken)


def with_ten_in_a_hundred(after_periods: int, spec: RollbackSpec = SPEC) -> Taken | tuple[str, ...]:
    """Judges five minutes of ten errors each, which come after so many good periods of the record's length."""
    first = 20 * after_periods + 1
    windows = [window("2", minute, errors=1 if minute < first else 10) for minute in range(1, first + 5)]
    return judged([*record(), *windows], minutes=first + 6, spec=spec)


@pytest.mark.parametrize(("after_periods", "taken"), [(0, True), (4, False)])
def test_the_same_evidence_says_less_each_time_that_the_record_is_used_again(after_periods: int, taken: bool) -> None:
    assert isinstance(with_ten_in_a_hundred(after_periods), Taken) is taken


@pytest.mark.parametrize(("n_more", "taken"), [(1, True), (19, False)])
def test_of_several_gates_each_needs_more_evidence(n_more: int, taken: bool) -> None:
    more = (LiveGateSpec(metric=LiveMetric.OUTCOME, outcome=f"o{n}", limit=1.0) for n in range(n_more))
    several = replace(SPEC, gates=(*SPEC.gates, *more))
    assert isinstance(with_ten_in_a_hundred(0, several), Taken) is taken
    advisory = (replace(gate, blocking=gate.metric is LiveMetric.ERRORS) for gate in several.gates)
    assert isinstance(with_ten_in_a_hundred(0, replace(several, gates=tuple(advisory))), Taken)


@pytest.mark.parametrize(
    "windows",
    [
        [],
        record(),
        [window("2", minute, errors=100) for minute in range(1, 30)],
        [*record(), *(window("2", minute, requests=0) for minute in range(1, 30))],
        [*record(), *(window("2", minute, errors=100, route=Route.CANARY) for minute in range(1, 30))],
        [*record(), *(window("2", minute, errors=100) for minute in range(300, 330))],  # to come
        [*record(), *(window("2", -minute, errors=100) for minute in range(1, 30))],  # before it was promoted
        [*record(), *(window("3", minute, errors=100) for minute in range(1, 30))],
    ],
)
def test_without_a_record_or_requests_nothing_is_taken_back(windows: list[Window]) -> None:
    assert not isinstance(judged(windows), Taken)


def test_an_advisory_gate_takes_nothing_back() -> None:
    gates = (
        LiveGateSpec(metric=LiveMetric.ERRORS, margin=0.02, blocking=False),
        LiveGateSpec(metric=LiveMetric.LATENCY),
    )
    found = judged([*record(), *(window("2", m, errors=50) for m in range(1, 20))], spec=replace(SPEC, gates=gates))
    assert isinstance(found, tuple)
    assert "errors: 50 % of 1,900 bad" in found[0]


def streams(rate: float, n: int) -> Iterator[list[Window]]:
    chance = np.random.default_rng(7)
    for _ in range(n):
        before = [window("1", -minute, errors=int(chance.binomial(100, 0.02))) for minute in range(22, 2, -1)]
        yield before + [window("2", minute, errors=int(chance.binomial(100, rate))) for minute in range(1, 61)]


def looks(windows: list[Window]) -> bool:
    """Whether it is taken back at any look at the end of a period, in which evidence never falls."""
    return any(isinstance(judged([w for w in windows if w.key.minute <= MINUTE + end]), Taken) for end in (20, 40, 60))


def test_of_100_versions_that_are_as_good_none_is_taken_back() -> None:
    assert sum(map(looks, streams(0.02, 100))) == 0  # at most 0.001 of them each


def test_of_50_versions_that_fail_five_times_as_often_all_are_taken_back() -> None:
    assert sum(map(looks, streams(0.10, 50))) == 50


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gates": (), "failed_verifications": 0}, "no blocking rollback gate"),
        ({"gates": SPEC.gates * 2}, "two rollback gates judge 'errors'"),
        ({"gates": (*SPEC.gates, LiveGateSpec(metric=LiveMetric.DISAGREEMENT))}, "has no pairs"),
        ({"record_minutes": 4}, "5 to 1440"),
        ({"failed_verifications": 11}, "0 to 10"),
        ({"failed_verifications": -1}, "0 to 10"),
        ({"watch_s": 0}, "watch_s is above 0"),
        ({"hold_off_s": float("nan")}, "hold_off_s 0 or more"),
        ({"false_rollback": 0.2}, "up to 0.1"),
    ],
)
def test_each_mistake_of_a_policy_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SPEC, **changes)


def test_a_drill_is_no_decision_of_a_person_and_is_left_alone() -> None:
    there = (Move.ROLLED_BACK, "1", "drill", drill_move_id("d", Half.THERE))
    back = (Move.ROLLED_BACK, "2", "drill", drill_move_id("d", Half.BACK))
    assert watched(*PROMOTED, there) == "a drill of the rollback is under way"
    found = watched(*PROMOTED, there, back)
    assert isinstance(found, Watched)
    assert (found.row.version, found.before) == ("2", "1")


# Labels that come later


LABELS = replace(SPEC, gates=(LiveGateSpec(metric=LiveMetric.LABEL_QUALITY, margin=0.05),), record_minutes=5)


def labelled(version: str, minute: int, wrong: int, of: int = 200, requests: int = 0, age: int = 0) -> Window:
    """A minute in which labels came of predictions of some minutes ago."""
    counts = {number_bucket(0.0): of - wrong, number_bucket(1.0): wrong}
    outcomes = {"label": {age: {bucket: n for bucket, n in counts.items() if n}}}
    return replace(window(version, minute, requests=requests), outcomes=outcomes)


def quiet_minutes(version: str, first: int, last: int) -> list[Window]:
    """Minutes with requests of which nobody knows yet what would have been right."""
    return [window(version, minute) for minute in range(first, last)]


def test_labels_that_come_once_a_day_are_held_against_labels_that_came_so() -> None:
    before = [labelled("1", -120, 10), labelled("1", -119, 10), *quiet_minutes("1", -118, -2)]
    good, bad = ([labelled("2", m, wrong) for m in (150, 151)] for wrong in (10, 100))
    since = quiet_minutes("2", 1, 150)
    assert isinstance(judged([*before, *since, *bad], spec=LABELS), Taken)
    assert not isinstance(judged([*before, *since, *good], spec=LABELS), Taken)


def test_of_the_record_only_labels_that_came_as_soon_are_compared() -> None:
    soon = [labelled("1", -minute, 60, age=1) for minute in range(3, 8)]
    late = [labelled("1", -minute, 2, age=60) for minute in range(3, 8)]
    both = [one.merge(other) for one, other in zip(soon, late, strict=True)]
    since = [labelled("2", minute, 60, age=1) for minute in range(2, 30)]
    assert not isinstance(judged([*both, *since], spec=LABELS), Taken)
    worse = [labelled("2", minute, 120, age=1) for minute in range(2, 30)]
    assert isinstance(judged([*both, *worse], spec=LABELS), Taken)


def test_labels_of_the_version_before_that_come_after_it_change_nothing() -> None:
    before = [labelled("1", -minute, 10) for minute in range(3, 8)]
    late = [labelled("1", minute, 200) for minute in range(1, 20)]
    assert isinstance(judged([*before, *late, labelled("2", 20, 150), labelled("2", 21, 150)], spec=LABELS), Taken)
    assert not isinstance(judged([*before, *late, *quiet_minutes("2", 1, 20)], spec=LABELS), Taken)


@pytest.mark.parametrize("before", [[], quiet_minutes("1", -60, -2)])
def test_without_labels_in_the_record_labels_take_nothing_back(before: list[Window]) -> None:
    found = judged([*before, *(labelled("2", minute, 150) for minute in range(1, 20))], spec=LABELS)
    assert found == ("label_quality: no minute of version 1 was measured",)


# Verifications of the live servers


def verified(found: Found, after_s: float, version: str = "2", epoch: int = 2) -> Verified:
    at = (START + timedelta(seconds=after_s)).isoformat()
    problems = (
        ("http://one, rows: it is version 1", "http://two, rows: it is version 1") if found is Found.FAILED else ()
    )
    of = {"model": "m", "digest": "sha256:d", "servers": ("http://one", "http://two"), "problems": problems}
    return Verified(version=version, epoch=epoch, at=at, found=found, **of)  # type: ignore[arg-type]


def by_verification(*kept: Verified, after_s: float = 300, spec: RollbackSpec = SPEC) -> Taken | tuple[str, ...]:
    assert isinstance(WATCHED, Watched)
    return judge_verified(spec, WATCHED, kept, START + timedelta(seconds=after_s))


FAILED, PASSED, UNANSWERED = Found.FAILED, Found.PASSED, Found.UNANSWERED


def test_two_verifications_in_a_row_that_failed_take_a_version_back_and_say_what_was_wrong() -> None:
    last = verified(FAILED, 60)
    found = by_verification(last, verified(FAILED, 20))
    assert isinstance(found, Taken)
    assert found.watched.before == "1"
    assert found.reason == (
        "verification: 2 in a row failed, 2026-03-01T12:00:20+00:00 to 2026-03-01T12:01:00+00:00: "
        f"http://one, rows: it is version 1 (and 1 more) ({last.verification_id})"
    )


@pytest.mark.parametrize(
    "kept",
    [
        (),
        (verified(FAILED, 20),),
        (verified(PASSED, 20), verified(FAILED, 60)),
        (verified(FAILED, 20), verified(PASSED, 40), verified(FAILED, 60)),
        (verified(FAILED, 20), verified(FAILED, 60), verified(PASSED, 90)),
        (verified(UNANSWERED, 20), verified(UNANSWERED, 60)),
        (verified(FAILED, 9.9), verified(FAILED, 60)),  # a move was under way
        (verified(FAILED, 20, version="1"), verified(FAILED, 60)),
        (verified(FAILED, 20, epoch=1), verified(FAILED, 60)),
    ],
)
def test_less_than_that_takes_nothing_back(kept: tuple[Verified, ...]) -> None:
    assert not isinstance(by_verification(*kept), Taken)


def test_a_verification_that_nobody_answered_does_not_hide_one_that_failed() -> None:
    kept = (verified(FAILED, 20), verified(UNANSWERED, 40), verified(FAILED, 60))
    assert isinstance(by_verification(*kept), Taken)


@pytest.mark.parametrize(("after_s", "taken"), [(60 + COUNTS_S, True), (60 + COUNTS_S + 1, False)])
def test_a_verification_that_is_old_is_no_evidence(after_s: float, taken: bool) -> None:
    assert isinstance(by_verification(verified(FAILED, 20), verified(FAILED, 60), after_s=after_s), Taken) is taken


def test_one_that_failed_is_told_while_it_takes_nothing_back() -> None:
    (said,) = cast(tuple[str, ...], by_verification(verified(FAILED, 20)))
    assert said.startswith("verification: failed at 2026-03-01T12:00:20+00:00: http://one, rows: it is version 1")
    assert said.endswith("2 in a row take it back")


def test_a_policy_may_ask_for_more_or_leave_verifications_out() -> None:
    kept = [verified(FAILED, seconds) for seconds in (20, 60, 90)]
    assert isinstance(by_verification(*kept, spec=replace(SPEC, failed_verifications=3)), Taken)
    assert not isinstance(by_verification(*kept, spec=replace(SPEC, failed_verifications=4)), Taken)
    assert by_verification(*kept, spec=replace(SPEC, failed_verifications=0)) == ()


def test_a_policy_of_verifications_alone_judges_no_windows() -> None:
    alone = replace(SPEC, gates=())
    assert isinstance(by_verification(verified(FAILED, 20), verified(FAILED, 60), spec=alone), Taken)
    assert judged([*record(), *(window("2", m, errors=50) for m in range(1, 20))], spec=alone) == ()


@pytest.mark.parametrize(
    ("kept", "after_s", "due"),
    [
        ((), 9, False),
        ((), 10, True),
        ((verified(PASSED, 15),), 1000, False),
        ((verified(UNANSWERED, 15),), 1000, False),
        ((verified(FAILED, 15),), 44, False),
        ((verified(FAILED, 15),), 45, True),
        ((verified(FAILED, 15), verified(UNANSWERED, 40)), 69, False),
        ((verified(FAILED, 15), verified(UNANSWERED, 40)), 70, True),
        ((verified(FAILED, 15), verified(FAILED, 50)), 1000, False),
        ((verified(FAILED, 5),), 15, True),  # a move was under way
    ],
)
def test_a_promotion_is_verified_once_and_again_after_a_failure(
    kept: tuple[Verified, ...], after_s: float, due: bool
) -> None:
    assert isinstance(WATCHED, Watched)
    assert is_due(WATCHED.row, kept, START + timedelta(seconds=after_s), wanted=2) is due
