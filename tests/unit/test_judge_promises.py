"""What the judge promises, on few streams; `benchmarks/judge.py` shows it on thousands."""

import shutil
from pathlib import Path

import pytest

from benchmarks.judging import page
from benchmarks.judging.experiments import (
    CASES,
    GATES,
    Case,
    alike,
    at_margin,
    at_most,
    holes,
    late_labels,
    regressions,
    requests_to_pass,
    strictness,
    to_pass,
)

DOCS = Path(__file__).parents[2] / "docs"


def test_versions_that_are_alike_are_not_aborted_where_others_abort_some() -> None:
    found = alike(30)
    assert all(one["judge"] == 0 for one in found.values())
    assert found["any"]["naive"] + found["any"]["kayenta"] > 0


@pytest.mark.parametrize("case", [case for case in CASES if case.at_margin is not None], ids=lambda case: case.name)
def test_at_the_margin_few_pass_and_none_are_aborted(case: Case) -> None:
    found = at_margin(case, 40, seed=500)
    assert found["judge"] == 0
    assert found["passed"] <= 6  # more has a probability below 1 % at the level of 5 %


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_regression_is_found_and_does_not_pass(case: Case) -> None:
    found = regressions(case, 20, seed=700)
    assert found["judge"]["found"] >= 0.85
    assert found["passed"]["found"] <= 0.1
    assert found["judge"]["median"] is not None


def test_alike_versions_pass_every_gate_after_about_as_many_requests_as_foretold() -> None:
    found = to_pass(12)
    assert set(found) == {*(gate.name for gate in GATES), "disagreement"}
    assert all(one["found"] == 1.0 for one in found.values())
    median = found["errors"]["median"]
    assert median is not None
    assert 0.5 <= median / requests_to_pass(0.01, 0.01) <= 2


def test_nothing_passes_with_a_blocking_metric_missing_and_the_same_streams_whole_do() -> None:
    found = holes(100)
    assert found["holed"] == 0
    assert found["whole"] >= 90


@pytest.mark.parametrize(("k", "n", "upper"), [(0, 2000, 0.0015), (5, 100, 0.1023), (7, 7, 1.0)])
def test_the_upper_bound_of_a_rate_is_clopper_and_pearsons(k: int, n: int, upper: float) -> None:
    assert at_most(k, n) == pytest.approx(upper, abs=5e-5)


def test_labels_that_come_late_abort_no_good_version_and_pass_no_bad_one() -> None:
    assert late_labels(30, 20) == {"aborted": 0, "passed": 0, "found": 20}


def test_the_page_gets_a_row_and_a_mark_for_each_gate_and_each_regression(tmp_path: Path) -> None:
    figures = {
        "n": {"alike": 2, "worse": 2, "holed": 3},
        "alike": alike(2),
        "at_margin": {case.name: at_margin(case, 2) for case in CASES if case.at_margin is not None},
        "worse": {case.name: regressions(case, 2) for case in CASES},
        "late": late_labels(2, 2),
        "to_pass": to_pass(2),
        "strictness": strictness(2),
        "holes": holes(3),
    }
    shutil.copy(DOCS / "judging.md", tmp_path)
    page.write(figures, tmp_path)
    text, plot = (tmp_path / "judging.md").read_text(), (tmp_path / page.PLOT).read_text()
    for named in (*(f"| `{gate.name}` |" for gate in GATES), *(f"| {case.name}: {case.said} |" for case in CASES)):
        assert named in text
    assert "of 2 A/A streams 0 were aborted; of 2 of a version that is" in text
    assert "**3 streams of a good version with a blocking metric missing**: 0 passed." in text
    assert all(f">{case.name}: " in plot for case in CASES)
    page.write(figures, tmp_path)
    assert (text, plot) == ((tmp_path / "judging.md").read_text(), (tmp_path / page.PLOT).read_text())
