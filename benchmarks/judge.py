"""How often the judge is wrong, and how soon it is right, beside other rules on the same streams.

`docs/judging.md` has the table and the plot of a run; `--write` puts new ones there. About a quarter of an hour.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.judging import page  # noqa: E402
from benchmarks.judging.experiments import (  # noqa: E402
    CASES,
    alike,
    at_margin,
    holes,
    late_labels,
    regressions,
    strictness,
    to_pass,
)


def main(arguments: list[str] | None = None) -> None:
    """Runs all of it, prints the tables, and with `--write` puts them and the plot into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alike", type=int, default=2000, help="A/A streams, and streams at each margin")
    parser.add_argument("--worse", type=int, default=500, help="streams of each regression")
    parser.add_argument("--holed", type=int, default=50_000, help="streams with a blocking metric missing")
    parser.add_argument("--json", type=Path, help="keep the figures here, or with --read take them from here")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the tables and the plot to docs/")
    options = parser.parse_args(arguments)
    if options.read:
        figures = json.loads(options.json.read_text())
    else:
        figures = measured(n_alike=options.alike, n_worse=options.worse, n_holed=options.holed)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    print(page.tables(figures))
    if options.write:
        page.write(figures, ROOT / "docs")


def measured(*, n_alike: int, n_worse: int, n_holed: int) -> dict[str, object]:
    """Returns the figures of a run, as a JSON value."""
    return {
        "n": {"alike": n_alike, "worse": n_worse, "holed": n_holed},
        "alike": alike(n_alike),
        "at_margin": {case.name: at_margin(case, n_alike) for case in CASES if case.at_margin is not None},
        "worse": {case.name: regressions(case, n_worse) for case in CASES},
        "late": late_labels(n_alike, n_worse),
        "to_pass": to_pass(n_worse),
        "strictness": strictness(n_worse),
        "holes": holes(n_holed),
    }


if __name__ == "__main__":
    main()
