"""How often drift alarms are false, how soon they come, and what a run costs, beside other rules on the same days.

`docs/drift.md` has the tables and the plot of a run; `--write` puts new ones there. About half an hour.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.drifting import page  # noqa: E402
from benchmarks.drifting.cost import cost  # noqa: E402
from benchmarks.drifting.experiments import COLUMNS, ROWS, delays, stationary  # noqa: E402
from benchmarks.drifting.peer import agreement  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Runs all of it, prints the tables, and with `--write` puts them and the plot into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=180, help="stationary days, for each number of columns and rows")
    parser.add_argument("--repeats", type=int, default=20, help="streams of each shift")
    parser.add_argument("--rows", type=int, default=1_000_000, help="recorded rows of the run whose cost is measured")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the figures here, or with --read take them from here")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the tables and the plot to docs/")
    options = parser.parse_args(arguments)
    if options.read:
        figures = json.loads(options.json.read_text())
    else:
        figures = measured(options)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    print(page.tables(figures))
    if options.write:
        page.write(figures, ROOT / "docs")


def measured(options: argparse.Namespace) -> dict[str, object]:
    """Returns the figures of a run, as a JSON value."""
    return {
        "stationary": [
            stationary(n_columns, n_rows, n_days=options.days, seed=options.seed)
            for n_rows in ROWS
            for n_columns in COLUMNS
        ],
        "repeats": options.repeats,
        "delays": delays(repeats=options.repeats, seed=options.seed),
        "evidently": agreement(ROOT / ".bench" / "evidently"),
        "cost": cost(options.rows),
    }


if __name__ == "__main__":
    main()
