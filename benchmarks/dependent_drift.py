"""How often drift alarms are false where rows are not independent, before and after a model's days have taught them.

`docs/drift.md` has the table of a run; `--write` puts a new one there. About a quarter of an hour.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.drifting import dependent_page  # noqa: E402
from benchmarks.drifting.dependent import TRAFFIC, dependent  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Runs all histories, prints the table, and with `--write` puts it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=40, help="of each kind of traffic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the figures here, or with --read take them from here")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the table to docs/drift.md")
    options = parser.parse_args(arguments)
    if options.read:
        figures = json.loads(options.json.read_text())
    else:
        figures = [dependent(one, histories=options.histories, seed=options.seed) for one in TRAFFIC]
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    print(dependent_page.table(figures))
    if options.write:
        dependent_page.write(figures, ROOT / "docs")


if __name__ == "__main__":
    main()
