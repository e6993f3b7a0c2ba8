"""The hash chain: whatever is edited, deleted, reordered or inserted is found, at its row."""

from dataclasses import replace

import pytest

from release_platform.domain.ledger import LedgerRow, faults, fold, genesis, sealed
from release_platform.domain.lifecycle import Head, Move, advance

MOVES = ((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2"), (Move.ROLLED_BACK, "1"))


@pytest.fixture
def rows() -> list[LedgerRow]:
    head, last, made = Head(model="m"), genesis("m"), []
    for move, version in MOVES:
        after = advance(head, move, version)
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
