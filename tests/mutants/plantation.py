"""Plants a defect in a copy of the tree and runs its tests there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutants import witness
from tests.mutants.defect import Defect

ROOT = Path(__file__).parents[2]
COPIED = (
    *("release_platform", "serving", "benchmarks", "tests", "requirements"),
    *("pyproject.toml", "dagster.yaml", "workspace.yaml"),
)
TIMEOUT_S = 120
"""For the tests of one defect."""
UNTOUCHED_TIMEOUT_S = 1200
"""For the tests of all of them together, without a defect."""
NO_SLIPS = ("AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError")
"""A test that fails by one of these does not tell the defect, but that it was planted badly."""


class Verdict(StrEnum):
    """What came of a defect."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of one test: `setup`, `call` or `teardown`; `why` is empty when it passed."""

    test: str
    phase: str
    outcome: str
    why: str

    def is_of(self, test: str) -> bool:
        """Whether it is of that test, or of a case of it."""
        return self.test == test or self.test.startswith(f"{test}[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run of pytest came to; `exit_code` is None when it did not end in time."""

    exit_code: int | None
    phases: tuple[Phase, ...]
    printed: str


def copy_tree(folder: Path) -> Path:
    """Copies what the tests need into a folder, without anything compiled, and returns it."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".release"))
        else:
            shutil.copyfile(source, folder / name)
    return folder


def planted(defect: Defect, text: str) -> str:
    """Returns the text of a file with the defect in it.

    Raises:
        ValueError: The right text is not there exactly once.
    """
    if text.count(defect.old) != 1 or defect.new == defect.old:
        raise ValueError(f"'{defect.name}' is stale: its text occurs {text.count(defect.old)} times in {defect.file}")
    return text.replace(defect.old, defect.new)


def run_tests(copy: Path, tests: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Run:
    """Runs tests of a copy with the copy's code. Compiled files are left out: they would outlive a defect."""
    report = copy / "report.jsonl"
    report.unlink(missing_ok=True)
    given = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", witness.FILE: str(report)}
    options = ["-q", "--tb=short", "--timeout=60", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", witness.__name__]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(copy), *tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, **given},
            timeout=timeout_s,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return Run(exit_code=None, phases=(), printed=f"not at its end after {timeout_s:g} s")
    lines = report.read_text().splitlines() if report.exists() else []
    phases = tuple(Phase(**json.loads(line)) for line in lines)
    return Run(exit_code=done.returncode, phases=phases, printed=done.stdout)


def try_defect(defect: Defect, copy: Path) -> tuple[Verdict, Run]:
    """Plants a defect, runs its tests, takes it out again, and returns whether every one of them told it."""
    file = copy / defect.file
    right = file.read_text()
    file.write_text(planted(defect, right))
    try:
        run = run_tests(copy, defect.tests)
    finally:
        file.write_text(right)
    return judged(defect, run), run


def judged(defect: Defect, run: Run) -> Verdict:
    """Returns `caught` when each named test failed where it asserts; an error elsewhere proves nothing."""
    if run.exit_code not in {0, 1} or any(p.outcome == "failed" and p.phase != "call" for p in run.phases):
        return Verdict.BROKEN
    failed = [phase for phase in run.phases if phase.outcome == "failed"]
    if any(phase.why.startswith(NO_SLIPS) for phase in failed):
        return Verdict.BROKEN
    told = all(any(phase.is_of(test) for phase in failed) for test in defect.tests)
    return Verdict.CAUGHT if told else Verdict.SURVIVED
