"""Whole rollouts on seeded traffic, judged after every minute: how many are aborted wrongly, how soon rightly.

`docs/judging.md` has the tables of a run; `--write` puts new ones there. About half an hour on an idle machine.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.judging import rollouts_page  # noqa: E402
from benchmarks.judging.rollouts import flown  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Runs all of it, prints the tables, and with `--write` puts them into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alike", type=int, default=2000, help="rollouts of a version like the stable one")
    parser.add_argument("--worse", type=int, default=500, help="rollouts of each regression")
    parser.add_argument("--holed", type=int, default=50_000, help="rollouts with a blocking metric missing")
    parser.add_argument("--json", type=Path, help="keep the figures here, or with --read take them from here")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/")
    options = parser.parse_args(arguments)
    if options.read:
        figures = json.loads(options.json.read_text())
    else:
        figures = flown(n_alike=options.alike, n_worse=options.worse, n_holed=options.holed)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    print(rollouts_page.tables(figures))
    if options.write:
        rollouts_page.write(figures, ROOT / "docs")


if __name__ == "__main__":
    main()
