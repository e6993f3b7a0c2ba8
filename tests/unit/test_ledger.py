"""The hash chain: whatever is edited, deleted, reordered or inserted is found, at its row."""

from dataclasses import replace
from typing import Any

import pytest

from release_platform.domain.ledger import (
    LedgerRow,
    certificate_of,
    faults,
    fold,
    genesis,
    last_moves,
    request_of,
    rollout_move_id,
    sealed,
    standing,
)
from release_platform.domain.lifecycle import Head, Move, advance

MOVES = ((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2"), (Move.ROLLED_BACK, "1"))
SHARES = (
    (Move.SHADOW_SET, "2", 1.0),
    (Move.CANARY_SET, "2", 0.25),
    (Move.SHADOW_SET, "2", 0.0),
    (Move.CANARY_SET, "2", 0.0),
)


@pytest.fixture
def rows() -> list[LedgerRow]:
    return rows_of(*MOVES)


def rows_of(*moves: tuple[Any, ...]) -> list[LedgerRow]:
    head, last, made = Head(model="m"), genesis("m"), []
    for move, version, *weight in moves:
        after = advance(head, move, version, *weight)
        row = sealed(
            LedgerRow(
                model="m",
                epoch=after.epoch,
                move=move,
                version=version,
                actor="ada",
                reason="because",
                request_id=f"q{after.epoch}",
                evidence="",
                digest="sha256:0",
                before=head.to_json(),
                after=after.to_json(),
                at="2026-01-01T00:00:00+00:00",
                previous_hash=last,
                weight=weight[0] if weight else None,
            )
        )
        made.append(row)
        head, last = after, row.hash
    return made


def test_an_untouched_ledger_has_no_fault(rows: list[LedgerRow]) -> None:
    assert faults("m", rows) == ()


def test_the_head_is_the_fold_of_the_ledger(rows: list[LedgerRow]) -> None:
    assert fold("m", rows).to_json() == rows[-1].after


@pytest.mark.parametrize("field", ["actor", "reason", "at", "digest", "evidence", "request_id"])
def test_an_edited_field_is_found_at_its_row(rows: list[LedgerRow], field: str) -> None:
    rows[2] = replace(rows[2], **{field: "edited"})
    assert faults("m", rows) == ("m, ledger row 3: was edited",)


def test_an_edit_that_is_sealed_again_breaks_the_chain(rows: list[LedgerRow]) -> None:
    rows[2] = sealed(replace(rows[2], actor="mallory"))
    assert faults("m", rows) == ("m, ledger row 4: does not follow the row before it",)


def test_a_deleted_row_is_found(rows: list[LedgerRow]) -> None:
    del rows[1]
    assert any("ledger row 3: follows row 1" in fault for fault in faults("m", rows))


def test_swapped_rows_are_found(rows: list[LedgerRow]) -> None:
    rows[1], rows[2] = rows[2], rows[1]
    assert any("ledger row 3: follows row 1" in fault for fault in faults("m", rows))


def test_a_row_of_another_model_is_found(rows: list[LedgerRow]) -> None:
    assert faults("other", rows)


def test_what_was_hashed_before_there_were_weights_is_what_is_hashed_now(rows: list[LedgerRow]) -> None:
    assert "weight" not in rows[0].to_json()
    assert rows[0].hash == "sha256:34adb7c0613ca6804e8c8a5746a4d94f70778862a676d43db7d197505dee13e6"


def test_shares_of_the_traffic_are_rows_with_their_weight() -> None:
    rows = rows_of(*MOVES, *SHARES)
    assert faults("m", rows) == ()
    assert LedgerRow.from_json(rows[6].to_json()) == rows[6]
    assert [certificate_of(row).alias for row in standing(rows[:7])] == ["production", "shadow", "canary"]
    assert certificate_of(rows[6]).weight == 0.25
    assert certificate_of(rows[4]).weight is None


def test_a_share_that_was_taken_away_keeps_a_certificate_that_says_so() -> None:
    kept = [certificate_of(row) for row in last_moves(rows_of(*MOVES, *SHARES))]
    assert [(one.alias, one.weight) for one in kept if one.weight is not None] == [("shadow", 0.0), ("canary", 0.0)]


def test_an_edited_weight_is_found_at_its_row() -> None:
    rows = rows_of(*MOVES, *SHARES)
    rows[6] = sealed(replace(rows[6], weight=0.9))
    assert any("ledger row 7: its heads are not the fold" in fault for fault in faults("m", rows))


@pytest.mark.parametrize("weight", [None, True, "0.5"])
def test_a_share_without_a_weight_is_no_row(weight: Any) -> None:
    with pytest.raises(ValueError, match="has the weight"):
        replace(rows_of(*MOVES, *SHARES)[6], weight=weight)


def test_the_moves_of_a_rollout_are_of_its_promotion_request(rows: list[LedgerRow]) -> None:
    share = rows_of(*MOVES, *SHARES)[6]
    assert request_of(replace(share, request_id=rollout_move_id("ticket#4", "canary-0"))) == "ticket#4"
    assert request_of(replace(rows[3], request_id="odd#rollout-1")) == "odd#rollout-1"
    assert request_of(replace(rows[4], request_id="rollback-1")) == "rollback-1"
