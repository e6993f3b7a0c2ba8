"""The rule that stands for Evidently here, beside Evidently itself: do both name the same columns?

Evidently lives in an environment of its own, `.bench/evidently`, which `make bench-install` makes.
"""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.drifting import streams
from benchmarks.drifting.rules import by_evidently
from release_platform.domain.distances import difference
from release_platform.domain.reference import summarised

DAYS, COLUMNS, ROWS = 5, 20, 200
_SCRIPT = Path(__file__).resolve().parents[1] / "peers" / "evidently_drift.py"


def agreement(environment: Path) -> dict[str, Any] | None:
    """Returns of how many columns and days both say the same; None where Evidently is not installed."""
    python = environment / "bin" / "python"
    if not python.exists():
        return None
    rng = np.random.default_rng(3)
    past = [streams.day(rng, COLUMNS, ROWS) for _ in range(streams.REFERENCE_DAYS)]
    before = {name: np.concatenate([one[name] for one in past]) for name in past[0]}
    days = [streams.day(rng, COLUMNS, ROWS) for _ in range(DAYS)]
    with TemporaryDirectory() as folder:
        for name, columns in (("reference", before), *((f"day{i}", day) for i, day in enumerate(days))):
            pd.DataFrame(columns).to_parquet(Path(folder) / f"{name}.parquet")
        command = [str(python), str(_SCRIPT), folder, str(DAYS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    summaries = {name: summarised(values) for name, values in before.items()}
    ours = [by_evidently({name: difference(summaries[name], day[name]) for name in day}) for day in days]
    same = sum(
        (name in one) == (name in set(other))
        for one, other in zip(ours, theirs["days"], strict=True)
        for name in before
    )
    return {"version": theirs["version"], "same": same, "of": DAYS * COLUMNS, "flagged": sum(map(len, theirs["days"]))}
