"""The planted defects of `make mutants` can still be planted, and the tests that they name are there."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.defect import Defect
from tests.mutants.plantation import NO_SLIPS, Phase, Run, Verdict, judged, planted
from tests.mutants.table import DEFECTS

ROOT = Path(__file__).parents[2]


@cache
def functions_of(file: str) -> frozenset[str]:
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        below = node.body if isinstance(node, ast.ClassDef) else []
        for one in (node, *below):
            if isinstance(one, ast.FunctionDef):
                found.add(one.name if one is node else f"{node.name}::{one.name}")
    return frozenset(found)


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 20


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_not_stale(defect: Defect) -> None:
    ast.parse(planted(defect, (ROOT / defect.file).read_text()))  # it is a slip, no typing error
    assert defect.tests
    for test in defect.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in functions_of(file), test


def test_a_defect_whose_text_is_gone_or_there_twice_is_refused() -> None:
    defect = Defect(name="d", file="f", old="a", new="b", tests=("t.py::test",))
    assert planted(defect, "xa") == "xb"
    for text in ("x", "aa"):
        with pytest.raises(ValueError, match="stale"):
            planted(defect, text)


def of(outcome: str, *, test: str = "t.py::test", phase: str = "call", why: str = "assert 1 == 2") -> Phase:
    return Phase(test=test, phase=phase, outcome=outcome, why=why)


@pytest.mark.parametrize(
    ("exit_code", "phases", "verdict"),
    [
        (1, (of("failed"),), Verdict.CAUGHT),
        (1, (of("passed", test="t.py::test[1]"), of("failed", test="t.py::test[2]")), Verdict.CAUGHT),
        (0, (of("passed"),), Verdict.SURVIVED),
        (1, (of("passed"), of("failed", test="t.py::test_other")), Verdict.SURVIVED),
        (1, (of("failed", phase="setup"),), Verdict.BROKEN),
        (1, (of("failed"), of("failed", phase="teardown")), Verdict.BROKEN),
        *((1, (of("failed", why=f"{error}: x"),), Verdict.BROKEN) for error in NO_SLIPS),
        (2, (), Verdict.BROKEN),  # collection
        (4, (), Verdict.BROKEN),  # the test is not there
        (None, (), Verdict.BROKEN),  # it hung
    ],
)
def test_only_a_test_that_failed_by_itself_catches(
    exit_code: int | None, phases: tuple[Phase, ...], verdict: Verdict
) -> None:
    defect = Defect(name="d", file="f", old="a", new="b", tests=("t.py::test",))
    assert judged(defect, Run(exit_code=exit_code, phases=phases, printed="")) is verdict
