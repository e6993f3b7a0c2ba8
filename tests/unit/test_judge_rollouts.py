"""What the judge promises, through the rollout; `benchmarks/judge_rollouts.py` shows it on thousands."""

import shutil
from pathlib import Path

import pytest

from benchmarks.judging import rollouts_page
from benchmarks.judging.experiments import CASES, GATES, Case
from benchmarks.judging.rollouts import alike_flown, flight, flown, fly, holes_flown, rollout_for, worse_flown
from benchmarks.judging.streams import Traffic, Version, stream

DOCS = Path(__file__).parents[2] / "docs"


def test_versions_that_are_alike_are_promoted_after_sixty_looks() -> None:
    found = alike_flown(3)
    assert (found["failed"], found["promoted"]) == (0, 3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_regression_is_promoted_and_its_traffic_is_back(case: Case) -> None:
    found = worse_flown(case, 5)
    assert found["promoted"] == 0
    assert found["back"] == 5
    assert found["failed"] >= 4
    assert found["median"] <= found["most"] <= found["last"] <= 61


def test_a_version_that_the_judge_cannot_tell_is_taken_back_by_the_clock() -> None:
    few = Traffic(per_minute=4, minutes=5)
    found = flight(1, Version(), traffic=few)
    assert (found.promoted, found.failed, found.back_after) == (False, False, 6)


def test_an_abort_is_the_candidates_traffic_at_zero() -> None:
    windows = [window for pair in stream(2, Version(slower=4.0), traffic=Traffic(minutes=10)) for window in pair]
    found = fly(rollout_for(GATES, minutes=10), windows, looks=range(10))
    assert found.failed
    assert found.back_after is not None
    assert found.back_after < 10


def test_nothing_is_promoted_with_a_blocking_metric_missing_and_the_same_streams_whole_are() -> None:
    found = holes_flown(60)
    assert found["holed"] == 0
    assert found["whole"] >= 54


def test_the_page_gets_a_row_for_each_regression(tmp_path: Path) -> None:
    shutil.copy(DOCS / "judging.md", tmp_path)
    figures = flown(n_alike=1, n_worse=1, n_holed=2)
    rollouts_page.write(figures, tmp_path)
    text = (tmp_path / "judging.md").read_text()
    assert all(f"| {case.name}: {case.said} | " in text.split("judge_rollouts.py -->")[1] for case in CASES)
    assert "**2 rollouts of a good version with a blocking metric missing**: 0 promoted." in text
    rollouts_page.write(figures, tmp_path)
    assert (tmp_path / "judging.md").read_text() == text
