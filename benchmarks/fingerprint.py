"""The fingerprint of the flights against pandas' own row hash, in turns, in one run.

Usage: python benchmarks/fingerprint.py [ROUNDS]
"""

import statistics
import sys
from pathlib import Path
from time import perf_counter

import pandas as pd

from release_platform.definitions import EXAMPLES, load_projects
from release_platform.domain.fingerprint import fingerprint
from release_platform.pipeline.contract import conform
from release_platform.pipeline.ingest import columns_of
from release_platform.pipeline.sources import read_source


def main(rounds: int) -> None:
    """Prints both medians and their ratio."""
    project = load_projects(EXAMPLES)["flight_delay"]
    spec = project.spec
    types = {name: column.type for name, column in spec.contract.columns.items()}
    read = read_source(spec.source, base=Path(project.folder), columns=types)
    frame = conform(read, spec.contract, source="flights")
    plain = read[list(types)]
    ours, theirs = [], []
    for _ in range(rounds):
        started = perf_counter()
        fingerprint(columns_of(frame), n_rows=len(frame))
        ours.append(perf_counter() - started)
        started = perf_counter()
        pd.util.hash_pandas_object(plain)
        theirs.append(perf_counter() - started)
    mine, pandas_s = statistics.median(ours), statistics.median(theirs)
    print(
        f"{len(frame):,} rows x {len(frame.columns)} columns: fingerprint {mine:.3f} s, "
        f"hash_pandas_object {pandas_s:.3f} s, ratio {mine / pandas_s:.2f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
