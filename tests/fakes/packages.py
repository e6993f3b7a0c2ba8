"""Real packages of small models, in the layout that `model_package` loads."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from release_platform.domain.features import ColumnType, Derived, FeaturePlan, Input, Operation, as_column
from release_platform.domain.identity import FileEntry, Manifest
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions
from release_platform.pipeline.onnx_graph import to_onnx

CANCER_INPUTS = ("mean radius", "mean texture", "mean area")
ONNX_INPUTS = tuple(name.replace(" ", "_") for name in CANCER_INPUTS)
CANCER_CLASSES = ("malignant", "benign")


def manifest_of(folder: Path) -> Manifest:
    """Returns the manifest of a folder as it is now."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        files.append(FileEntry(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return Manifest(files=tuple(sorted(files, key=lambda entry: entry.path)))


def build_linear_classifier(folder: Path, *, model: str = "cancer", n_rows: int = 569, contrary: bool = False) -> Path:
    """Writes a scaled logistic regression over three numbers, fitted on the first rows of breast_cancer.

    A contrary one is fitted to the opposite labels.
    """
    frame, target = _cancer(n_rows)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, 1 - target if contrary else target)
    return write_package(folder, model, Task.BINARY, fitted, _cancer_plan(nullable=False), frame, CANCER_CLASSES)


def build_onnx_classifier(folder: Path, *, model: str = "cancer", engine: str = "onnx", n_rows: int = 569) -> Path:
    """Writes a scaled logistic regression over three numbers, as skops and as ONNX; `engine` is what answers."""
    frame, target = _cancer(n_rows)
    frame = frame.rename(columns=dict(zip(CANCER_INPUTS, ONNX_INPUTS, strict=True)))
    scale = ColumnTransformer([("scaled", StandardScaler(), list(frame))])
    fitted = make_pipeline(scale, LogisticRegression()).fit(frame, target)
    plan = _plan(tuple(frame), nullable=False)
    write_package(folder, model, Task.BINARY, fitted, plan, frame, CANCER_CLASSES)
    (folder / "model.onnx").write_bytes(to_onnx(fitted, plan.types))
    release = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps(release | {"engine": engine}))
    return folder


def build_boosted_classifier(folder: Path, *, model: str = "cancer", n_rows: int = 569) -> Path:
    """Writes a histogram gradient boosting over three numbers that may be null and one that is derived."""
    frame, target = _cancer(n_rows)
    plan = _cancer_plan(
        nullable=True, derived=(Derived(name="ratio", operation=Operation.DIVIDE, of=("mean area", "mean radius")),)
    )
    features = pd.DataFrame(plan.apply({name: frame[name].to_numpy() for name in CANCER_INPUTS}))
    fitted = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(features, target)
    return write_package(folder, model, Task.BINARY, fitted, plan, frame, CANCER_CLASSES)


def build_regression(folder: Path, *, model: str = "diabetes", overflows: bool = False) -> Path:
    """Writes a linear regression; one that overflows has no finite answer to a `bmi` of 1e30, which the plan allows."""
    data = load_diabetes(as_frame=True)
    frame = data.data[["bmi", "bp"]]
    fitted = LinearRegression().fit(frame, data.target)
    plan = _plan(("bmi", "bp"), nullable=False)
    written = write_package(folder, model, Task.REGRESSION, fitted, plan, frame, ())
    if overflows:
        fitted.coef_ = fitted.coef_ * 1e285
        skops.io.dump(fitted, written / "model.skops")
        _write_golden(written, plan, frame, Predictions(values=fitted.predict(frame.iloc[:5])))
    return written


def build_typed_classifier(folder: Path, *, model: str = "typed", shift: int = 0) -> Path:
    """Writes a classifier with one input of every type; only `weekday`, `flag`, `n` and `x` reach the model.

    With a shift it is fitted to other labels.
    """
    rows = 40
    index = np.arange(rows)
    when = np.datetime64("2013-01-01T05:15:00", "us") + index * np.timedelta64(7, "h")
    columns = {
        "x": index / 7.0,
        "n": (index % 5).astype(np.float64),
        "flag": (index % 2).astype(np.float64),
        "carrier": np.array([f"c:{i % 3}" for i in index], dtype=object),
        "when": when,
    }
    types = {
        "x": ColumnType.NUMBER,
        "n": ColumnType.INTEGER,
        "flag": ColumnType.BOOLEAN,
        "carrier": ColumnType.CATEGORY,
        "when": ColumnType.TIMESTAMP,
    }
    plan = FeaturePlan(
        inputs=tuple(Input(name=name, type=kind) for name, kind in types.items()),
        derived=(
            Derived(name="weekday", operation=Operation.WEEKDAY, of=("when",)),
            Derived(name="no_carrier", operation=Operation.IS_MISSING, of=("carrier",)),
        ),
        features=("x", "n", "flag", "no_carrier", "weekday"),
    )
    features = pd.DataFrame(plan.apply(columns))
    fitted = LogisticRegression().fit(features, (index + shift * (index % 2)) % 3)
    golden = {
        "x": columns["x"][:5].tolist(),
        "n": [int(v) for v in columns["n"][:5]],
        "flag": [bool(v) for v in columns["flag"][:5]],
        "carrier": columns["carrier"][:5].tolist(),
        "when": [str(moment) for moment in when[:5].astype("datetime64[s]")],
    }
    return write_package(folder, model, Task.MULTICLASS, fitted, plan, pd.DataFrame(golden), ("low", "mid", "high"))


def write_package(
    folder: Path,
    model: str,
    task: Task,
    fitted: BaseEstimator,
    plan: FeaturePlan,
    rows: pd.DataFrame,
    classes: tuple[str, ...],
) -> Path:
    """Writes a package whose golden rows are the first five of these, and returns its folder."""
    folder.mkdir(parents=True)
    skops.io.dump(fitted, folder / "model.skops")
    release = {
        "format": 1,
        "model": model,
        "task": task.value,
        "classes": list(classes),
        "plan": plan.to_json(),
        "engine": "skops",
    }
    (folder / "release.json").write_text(json.dumps(release))
    _write_golden(folder, plan, rows, _predict(fitted, task, plan, rows, classes))
    return folder


def _write_golden(folder: Path, plan: FeaturePlan, rows: pd.DataFrame, answers: Predictions) -> None:
    inputs = {column.name: rows[column.name].iloc[:5].tolist() for column in plan.inputs}
    (folder / "golden.json").write_text(json.dumps({"inputs": inputs, "answers": answers.to_json()}))


def _predict(fitted: Any, task: Task, plan: FeaturePlan, rows: pd.DataFrame, classes: tuple[str, ...]) -> Predictions:
    columns = {column.name: as_column(column, rows[column.name].iloc[:5].tolist()) for column in plan.inputs}
    features = pd.DataFrame(plan.apply(columns))
    if task is Task.REGRESSION:
        return Predictions(values=fitted.predict(features))
    probabilities = fitted.predict_proba(features)
    labels = np.array(classes, dtype=object)[probabilities.argmax(axis=1)]
    return Predictions(values=labels, probabilities=probabilities)


def _cancer(n_rows: int) -> tuple[pd.DataFrame, pd.Series]:
    data = load_breast_cancer(as_frame=True)
    return data.data[list(CANCER_INPUTS)].iloc[:n_rows], data.target.iloc[:n_rows]


def _cancer_plan(*, nullable: bool, derived: tuple[Derived, ...] = ()) -> FeaturePlan:
    return _plan(CANCER_INPUTS, nullable=nullable, derived=derived)


def _plan(names: tuple[str, ...], *, nullable: bool, derived: tuple[Derived, ...] = ()) -> FeaturePlan:
    return FeaturePlan(
        inputs=tuple(Input(name=name, type=ColumnType.NUMBER, nullable=nullable) for name in names),
        derived=derived,
        features=(*names, *(step.name for step in derived)),
    )
