"""Versions of one model whose answers to the same rows are far apart, and those answers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from release_platform.adapters.model_package import load_package
from release_platform.domain.features import ColumnType
from release_platform.pipeline.onnx_graph import to_onnx
from tests.fakes.packages import build_regression, manifest_of

MODEL = "diabetes"
VERSIONS = ("1", "2", "3", "4", "5")
BODIES = tuple(
    json.dumps({"rows": [{"bmi": 0.01 * number, "bp": 0.001 * row} for row in range(1 + number % 3)]}).encode()
    for number in range(24)
)


def build_versions(root: Path) -> dict[str, Path]:
    """Writes each version in ONNX, with an intercept of its own, and returns their folders."""
    return {version: _build(root / version, 1000.0 * int(version)) for version in VERSIONS}


def _build(folder: Path, shift: float) -> Path:
    build_regression(folder, model=MODEL)
    data = load_diabetes(as_frame=True)
    frame = data.data[["bmi", "bp"]]
    columns = ColumnTransformer([("scale", StandardScaler(), list(frame))])
    fitted = make_pipeline(columns, LinearRegression()).fit(frame, data.target + shift)
    (folder / "model.skops").unlink()
    (folder / "model.onnx").write_bytes(to_onnx(fitted, dict.fromkeys(frame, ColumnType.NUMBER)))
    release, golden = (json.loads((folder / name).read_text()) for name in ("release.json", "golden.json"))
    (folder / "release.json").write_text(json.dumps(release | {"engine": "onnx"}))
    golden["answers"]["predictions"] = fitted.predict(frame.iloc[:5]).tolist()
    (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def answers_of(folder: Path) -> Sequence[Sequence[float]]:
    """Returns what the package itself predicts for each body."""
    package = load_package(folder, manifest_of(folder))
    rows = [np.array([[row["bmi"], row["bp"]] for row in json.loads(body)["rows"]]) for body in BODIES]
    return [package.predict(matrix).values.tolist() for matrix in rows]
