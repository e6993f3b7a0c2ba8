"""What a drift report over many recorded rows takes, as the asset makes it: seconds, and memory of its process.

A model of 30 features is trained, packaged and summarised as at its registration. Rows are recorded in the layout that
`recordings_sensor` writes, a file for each minute, by its own code, and joined by day as it joins them; that is timed
by itself, since the sensor does it day by day. Then a fresh process does what the asset does: it reads package and
reference, looks at all days (`defs.monitoring.monitor`), and draws the page.
"""

import json
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd

from release_platform.adapters.model_package import load_package
from release_platform.adapters.recordings import Recordings
from release_platform.defs.monitoring import MonitoredVersion, monitor
from release_platform.domain.alarms import Budget
from release_platform.pipeline.contract import conform
from release_platform.pipeline.drift_reference import build_reference
from release_platform.pipeline.drift_report import render_drift
from release_platform.pipeline.features import build_feature_table, golden_inputs, read_features
from release_platform.pipeline.kept_reference import read_reference, reference_bytes
from release_platform.pipeline.packaging import manifest_of, write_package
from release_platform.pipeline.training import fit
from release_platform.profiles import Profile
from release_platform.project import parse_spec
from release_platform.services import Services
from release_platform.settings import Settings

NUMBERS, TEXTS, DAYS, TRAINING_ROWS, MINUTES = 20, 10, 30, 200_000, 1440
_FIRST = date(2026, 1, 1)
_NUMBERS = [f"x{i}" for i in range(NUMBERS)]
_TEXTS = [f"c{i}" for i in range(TEXTS)]
_CITIES = np.array([f"category {i}" for i in range(12)], dtype=object)
SPEC = parse_spec(
    {
        "name": "m",
        "task": "binary",
        "owner": "team:benchmarks",
        "source": {"csv": "rows.csv"},
        "contract": {
            "columns": {name: {"type": "number"} for name in _NUMBERS}
            | {name: {"type": "category"} for name in _TEXTS}
            | {"answer": {"type": "category", "allowed": ["no", "yes"]}}
        },
        "target": {"column": "answer", "positive": "yes"},
        "features": [*_NUMBERS, *_TEXTS],
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.6}],
    },
    file=Path("defs.yaml"),
)


def cost(n_rows: int) -> dict[str, Any]:
    """Returns seconds and megabytes of a report over this many rows of 30 features, in a process of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        register(folder)
        recorded = Settings(home=folder, profile=Profile.EMBEDDED).recording_root
        a_minute = -(-n_rows // (DAYS * MINUTES))
        with ProcessPoolExecutor(2) as processes:
            for _ in processes.map(record, [recorded] * DAYS, range(DAYS), [a_minute] * DAYS):
                pass
        started = perf_counter()
        n_files = sum(Recordings(recorded).join_day("m", "1", _FIRST + timedelta(days=place)) for place in range(DAYS))
        joining_s = perf_counter() - started
        command = [sys.executable, "-m", "benchmarks.drifting.cost", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "files": n_files, "joining_s_a_day": joining_s / DAYS}


def main(folder: Path) -> None:
    """Makes the report of what is recorded in a folder and prints what it took."""
    started, used = perf_counter(), process_time()
    services = Services(Settings(home=folder, profile=Profile.EMBEDDED))
    version = MonitoredVersion(
        version="1",
        package=load_package(folder / "package", manifest_of(folder / "package")),
        known=read_reference((folder / "reference.parquet").read_bytes()),
        positive="yes",
    )
    days = [_FIRST + timedelta(days=place) for place in range(DAYS)]
    report = monitor(services, version, Budget(), [], days, now=datetime(2026, 1, 31, 2, 23, tzinfo=UTC))
    page = render_drift(report)
    print(
        json.dumps(
            {
                "rows": report.n_rows,
                "features": len(report.reference.columns),
                "seconds": perf_counter() - started,
                "cpu_seconds": process_time() - used,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "page_bytes": len(page),
                "days": len(report.windows),
                "alarms": len(report.alarms),
            }
        )
    )


def register(folder: Path) -> None:
    """Trains the model and writes its package and its reference, as a release does."""
    raw = conform(training_rows(), SPEC.contract, source="rows")
    table = build_feature_table(raw, SPEC)
    rows = read_features(table)
    fitted = fit(SPEC, rows.features[~rows.held_out], rows.target[~rows.held_out])
    sample = rows.features[rows.held_out].head(1000)
    package = write_package(folder / "package", SPEC, fitted, sample, golden_inputs(raw, table, SPEC)).package
    (folder / "reference.parquet").write_bytes(reference_bytes(build_reference(SPEC, package, raw, version="1")))


def training_rows() -> pd.DataFrame:
    """Returns the rows that the model is trained on."""
    rng = np.random.default_rng(2)
    frame = inputs(rng, TRAINING_ROWS)
    return frame.assign(answer=np.where(rng.random(TRAINING_ROWS) < 1 / (1 + np.exp(-frame["x0"])), "yes", "no"))


def inputs(rng: np.random.Generator, n_rows: int) -> pd.DataFrame:
    """Returns what clients send."""
    columns: dict[str, Any] = {name: rng.normal(size=n_rows) for name in _NUMBERS}
    return pd.DataFrame(columns | {name: _CITIES[rng.integers(12, size=n_rows)] for name in _TEXTS})


def record(root: str, place: int, a_minute: int) -> None:
    """Keeps a day, minute by minute, as the sensor does: without a probability."""
    rng, day, kept = np.random.default_rng([1, place]), _FIRST + timedelta(days=place), Recordings(root)
    for minute in range(MINUTES):
        rows = inputs(rng, a_minute)
        own = {
            "prediction": np.where(rows["x0"] >= 0, "yes", "no").astype(object),
            "prediction_id": [f"a-{place * MINUTES * 1000 + minute * 1000 + n:x}" for n in range(a_minute)],
            "at": pd.Timestamp(day, tz=UTC) + pd.Timedelta(minutes=minute),
        }
        kept.add("m", "1", day, pd.DataFrame({**own, **rows}), name=f"{minute}-a")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
