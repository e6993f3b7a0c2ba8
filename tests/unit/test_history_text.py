"""How `release history` says a row of the ledger."""

from dataclasses import replace
from typing import Any

import pytest

from release_platform.cli.show import said_of
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head, Move

EMPTY = Head(model="churn").to_json()
HEAD = Head(model="churn", epoch=6, production="2", ever=("1", "2")).to_json()
ROW = LedgerRow(
    model="churn",
    epoch=7,
    move=Move.ROLLED_BACK,
    version="1",
    actor="ada",
    reason="errors",
    request_id="q",
    evidence="none",
    digest="sha256:1",
    before=HEAD,
    after=HEAD,
    at="2026-03-01T12:00:00.123+00:00",
    previous_hash="",
    hash="",
)


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({}, "    7  2026-03-01 12:00:00  rolled_back: version 1, after version 2, by ada"),
        ({"before": EMPTY}, "    7  2026-03-01 12:00:00  rolled_back: version 1, by ada"),
        ({"move": Move.STAGED}, "    7  2026-03-01 12:00:00  staged: version 1, by ada"),
        ({"move": Move.CANARY_SET, "weight": 0.05}, "    7  2026-03-01 12:00:00  canary_set 5 %: version 1, by ada"),
    ],
)
def test_a_row_says_what_moved_when_and_by_whom_and_below_it_why(changed: dict[str, Any], first: str) -> None:
    assert said_of(replace(ROW, **changed)).splitlines() == [first, "       errors", "       request q"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028", "\x0b"])
def test_no_actor_and_no_reason_can_look_like_another_row(end: str) -> None:
    forged = f"x{end}    8  2026-03-01 12:00:01  promoted: version 3, by grace"
    for row in (replace(ROW, reason=forged), replace(ROW, actor=forged)):
        first, *others = said_of(row).splitlines()
        assert first.startswith("    7  2026-03-01 12:00:00")
        assert all(line.startswith(" " * 7) for line in others)
