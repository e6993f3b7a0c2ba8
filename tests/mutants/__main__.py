"""Plants each defect in a copy of the tree; ends with 1 when one of them is not caught by the tests that it names.

Words after the command choose the defects whose names hold one of them.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.defect import Defect
from tests.mutants.plantation import ROOT, UNTOUCHED_TIMEOUT_S, Verdict, copy_tree, planted, run_tests, try_defect
from tests.mutants.table import DEFECTS

SHOWN_LINES = 40


def main(words: Sequence[str]) -> int:
    """Returns the exit code."""
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.name for word in words)]
    for defect in chosen:
        planted(defect, (ROOT / defect.file).read_text())
    begun = time.perf_counter()
    with TemporaryDirectory(prefix="mutants-") as folder:
        copy = copy_tree(Path(folder))
        if not _passes_untouched(copy, chosen):
            return 1
        verdicts = [_tried(defect, copy) for defect in chosen]
    n_caught = verdicts.count(Verdict.CAUGHT)
    print(f"{n_caught} of {len(chosen)} defects caught in {time.perf_counter() - begun:.0f} s")
    return 0 if chosen and n_caught == len(chosen) else 1


def _passes_untouched(copy: Path, chosen: Sequence[Defect]) -> bool:
    tests = sorted({test for defect in chosen for test in defect.tests})
    begun = time.perf_counter()
    run = run_tests(copy, tests, timeout_s=UNTOUCHED_TIMEOUT_S)
    missing = [test for test in tests if not any(p.is_of(test) and p.outcome == "passed" for p in run.phases)]
    if run.exit_code != 0 or missing:
        print(
            f"{run.printed}\nwithout a defect {len(missing)} named test(s) do not run and pass:", *missing, sep="\n  "
        )
        return False
    print(f"without a defect: {len(tests)} named tests pass ({time.perf_counter() - begun:.1f} s)", flush=True)
    return True


def _tried(defect: Defect, copy: Path) -> Verdict:
    begun = time.perf_counter()
    verdict, run = try_defect(defect, copy)
    seconds = time.perf_counter() - begun
    for i, test in enumerate(defect.tests):
        first = (defect.name, verdict.value, f"{seconds:.1f} s") if i == 0 else ("", "", "")
        print("{:<74} {:<8} {:>7}  {}".format(*first, test), flush=True)
    if verdict is not Verdict.CAUGHT:
        print("\n".join(run.printed.splitlines()[-SHOWN_LINES:]), flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
