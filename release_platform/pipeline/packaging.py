"""Writes the package of a version: the files that are registered, hashed, and later loaded by `model_package`."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from release_platform.adapters.model_package import FORMAT, ModelPackage, load_package
from release_platform.adapters.skops_archive import load_skops
from release_platform.adapters.skops_types import TRUSTED
from release_platform.domain.errors import TrainingError
from release_platform.domain.features import as_column
from release_platform.domain.identity import FileEntry, Manifest
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import Onnx
from release_platform.pipeline.onnx_graph import to_onnx
from release_platform.pipeline.training import FittedModel, numbered
from release_platform.project import SPEC

ONNX_TOLERANCE = 1e-6
SAMPLE_ROWS = 1_000
"""How many training rows an ONNX conversion is tried on."""
REQUIRED = ("scikit-learn", "numpy", "pandas", "skops")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPackage:
    """A package on disk.

    Attributes:
        manifest: Its files.
        package: The model, loaded again from those files.
        onnx_note: Why there is no ONNX file; empty when there is one.
    """

    manifest: Manifest
    package: ModelPackage
    onnx_note: str


def write_package(
    folder: Path,
    spec: ModelSpec,
    fitted: FittedModel,
    sample: pd.DataFrame,
    golden_inputs: Mapping[str, list[Any]],
) -> WrittenPackage:
    """Writes all files of a package into an empty folder and loads it back.

    Args:
        folder: Where; must not exist.
        spec: The model.
        fitted: The fitted model.
        sample: Some training rows, shape (n, n_features), on which an ONNX conversion is tried.
        golden_inputs: Rows as a client would send them, by input, that the live server will be asked.

    Raises:
        TrainingError: The model cannot be packaged: a type that may not be loaded, or no ONNX where it is required.
    """
    _write_mlflow_model(folder, fitted, sample)
    onnx_note = _write_onnx(folder, spec, fitted, sample)
    release = {
        "format": FORMAT,
        "model": spec.name,
        "task": spec.task.value,
        "classes": list(fitted.classes),
        "plan": spec.plan.to_json(),
        "engine": "skops" if onnx_note else "onnx",
        "spec": SPEC.dump_python(spec, mode="json"),
    }
    _write_json(folder / "release.json", release)
    columns = {c.name: as_column(c, golden_inputs[c.name]) for c in spec.plan.inputs}
    _write_json(folder / "golden.json", {"inputs": dict(golden_inputs), "answers": {}})
    answers = load_package(folder, manifest_of(folder)).predict(columns)
    _write_json(folder / "golden.json", {"inputs": dict(golden_inputs), "answers": answers.to_json()})
    manifest = manifest_of(folder)
    return WrittenPackage(manifest=manifest, package=load_package(folder, manifest), onnx_note=onnx_note)


def manifest_of(folder: Path) -> Manifest:
    """Returns the manifest of the files in a folder."""
    entries = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            entries.append(FileEntry(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return Manifest(files=tuple(sorted(entries, key=lambda entry: entry.path)))


def parity_difference(folder: Path, manifest: Manifest, fitted: FittedModel, features: pd.DataFrame) -> float:
    """Returns the largest difference between the trained pipeline's answers and each packaged format's."""
    columns = {name: features[name].to_numpy() for name in features.columns}
    expected = fitted.predict(columns)
    worst = 0.0
    for entry in manifest.files:
        if entry.path in {"model.skops", "model.onnx"}:
            name = entry.path.removeprefix("model.")
            raw = load_package(folder, manifest, engine=name).engine.predict(columns)
            worst = max(worst, expected.difference(numbered(raw)))
    return worst


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, sort_keys=True, allow_nan=False), encoding="utf-8")


def _write_mlflow_model(folder: Path, fitted: FittedModel, sample: pd.DataFrame) -> None:
    import mlflow.sklearn
    import skops.io as sio
    from mlflow.models import infer_signature

    try:
        load_skops(sio.dumps(fitted.pipeline))
    except ValueError as error:
        raise TrainingError(
            f"the model holds what serving does not load: {error}",
            remedy="choose an estimator whose state is plain data; adapters/skops_types.py lists what is loaded",
        ) from error
    head = sample.head(5)
    predict = fitted.pipeline.predict_proba if fitted.classes else fitted.pipeline.predict
    mlflow.sklearn.save_model(
        fitted.pipeline,
        folder,
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED),
        signature=infer_signature(head, predict(head)),
        pyfunc_predict_fn="predict_proba" if fitted.classes else "predict",
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIRED],
    )
    example = head.to_json(orient="split", index=False, double_precision=15)
    (folder / "input_example.json").write_text(example, encoding="utf-8")


def _write_onnx(folder: Path, spec: ModelSpec, fitted: FittedModel, sample: pd.DataFrame) -> str:
    """Writes model.onnx where the model converts; returns why not otherwise."""
    if spec.onnx is Onnx.OFF:
        return "ONNX is switched off in the model's defs.yaml"
    try:
        data = to_onnx(fitted.pipeline, spec.plan.types)
        _check_onnx(data, spec, fitted, sample)
    except Exception as error:  # whatever a converter or runtime raises means the same: this model stays with skops
        note = f"not in ONNX: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        if spec.onnx is Onnx.REQUIRED:
            raise TrainingError(
                f"{spec.name}: {note}", remedy="set `onnx: auto` in the model's defs.yaml, or choose another estimator"
            ) from error
        return note
    (folder / "model.onnx").write_bytes(data)
    return ""


def _check_onnx(data: bytes, spec: ModelSpec, fitted: FittedModel, sample: pd.DataFrame) -> None:
    from release_platform.adapters.model_package import OnnxEngine

    columns = {name: sample[name].to_numpy() for name in sample.columns}
    difference = fitted.predict(columns).difference(
        numbered(OnnxEngine(data, {"task": spec.task, "plan": spec.plan.to_json()}).predict(columns))
    )
    if not difference <= ONNX_TOLERANCE:
        raise ValueError(f"its answers differ by {difference:.3g}, more than {ONNX_TOLERANCE:g}")
