"""What a run over many recorded rows takes, from the files to the page: seconds, and memory of its process."""

import json
import resource
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.recordings import Recordings
from release_platform.domain.alarms import Budget
from release_platform.domain.drift import with_floors
from release_platform.domain.estimation import calibrated
from release_platform.domain.features import ColumnType, FeaturePlan, Input
from release_platform.domain.identity import Manifest
from release_platform.domain.metrics import Task
from release_platform.domain.multivariate import DOMAIN_CLASSIFIER
from release_platform.domain.reference import Reference, summarised
from release_platform.pipeline.domain_classifier import learned
from release_platform.pipeline.drift import run
from release_platform.pipeline.drift_reference import Known, windows_of
from release_platform.pipeline.drift_report import render_drift

NUMBERS, TEXTS, DAYS, TRAINING_ROWS = 20, 10, 30, 200_000
_FIRST = date(2026, 1, 1)


def cost(n_rows: int) -> dict[str, Any]:
    """Returns seconds and megabytes of a run over this many rows of 30 features, in a process of its own."""
    with TemporaryDirectory() as folder:
        rng, recordings = np.random.default_rng(1), Recordings(folder)
        for place in range(DAYS):
            day = _FIRST + timedelta(days=place)
            recordings.add("m", "1", day, _rows(rng, n_rows // DAYS, day), name="part-0")
        command = [sys.executable, "-m", "benchmarks.drifting.cost", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(folder: str) -> None:
    """Runs over what is recorded in a folder and prints what it took."""
    known = _known()
    started, used = perf_counter(), process_time()
    recordings = Recordings(folder)
    frame = recordings.read("m", "1", recordings.days("m", "1"))
    at = datetime(2026, 2, 1, tzinfo=UTC)
    report = run(known, _package(), frame, positive="yes", budget=Budget(), at=at, source="recordings")
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
                "alarms": len(report.alarms),
            }
        )
    )


def _rows(rng: np.random.Generator, n_rows: int, day: date) -> pd.DataFrame:
    names = np.array([f"category {i}" for i in range(12)])
    columns: dict[str, Any] = {f"x{i}": rng.normal(size=n_rows) for i in range(NUMBERS)}
    columns |= {f"c{i}": pd.Categorical(names[rng.integers(12, size=n_rows)]) for i in range(TEXTS)}
    seconds = np.sort(rng.integers(86_400, size=n_rows))
    score = rng.random(n_rows)
    return pd.DataFrame(
        columns
        | {
            "at": pd.Timestamp(day, tz=UTC) + pd.to_timedelta(seconds, unit="s"),
            "prediction": np.where(score >= 0.5, "yes", "no"),
            "probability": score,
            "prediction_id": [f"{day}-{i}" for i in range(n_rows)],
        }
    )


def _known() -> Known:
    rng = np.random.default_rng(2)
    frame = _rows(rng, TRAINING_ROWS, _FIRST)
    features = {name: frame[name].to_numpy(dtype=object if name.startswith("c") else np.float64) for name in _names()}
    outputs = {"label": frame["prediction"].to_numpy(dtype=object), "score": frame["probability"].to_numpy()}
    columns, said = ({name: summarised(one) for name, one in part.items()} for part in (features, outputs))
    windows = windows_of(None, TRAINING_ROWS)
    history = [{name: one[rows] for name, one in features.items()} for rows in windows]
    classifier, together = learned(pd.DataFrame(features), windows, named="m 1")
    reference = Reference(
        model="m",
        version="1",
        columns=columns,
        outputs=said,
        floors=with_floors(columns, history) | {DOMAIN_CLASSIFIER: together},
        n_windows=len(history),
    )
    came = rng.random(TRAINING_ROWS) < outputs["score"]
    return Known(reference=reference, classifier=classifier, calibration=calibrated(outputs["score"], came))


def _names() -> list[str]:
    return [f"x{i}" for i in range(NUMBERS)] + [f"c{i}" for i in range(TEXTS)]


def _package() -> ModelPackage:
    kinds = {name: ColumnType.CATEGORY if name.startswith("c") else ColumnType.NUMBER for name in _names()}
    inputs = tuple(Input(name=name, type=kind) for name, kind in kinds.items())
    never_asked: Any = None
    return ModelPackage(
        model="m",
        task=Task.BINARY,
        classes=("no", "yes"),
        plan=FeaturePlan(inputs=inputs, derived=(), features=tuple(kinds)),
        engine=never_asked,
        engine_name="skops",
        manifest=Manifest(files=()),
        golden={},
    )


if __name__ == "__main__":
    main(sys.argv[1])
