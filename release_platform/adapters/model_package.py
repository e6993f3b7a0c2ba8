"""Loads the package of a version, default-deny: the one way from registered bytes to a model that predicts.

A package is a folder:

```
release.json     name, task, classes, feature plan, engine          golden.json   inputs and the answers to them
model.skops      the fitted scikit-learn pipeline                   model.onnx    the same in ONNX, where it converts
MLmodel, ...     what MLflow's own tools read; never used here
```

Every file must be listed in the manifest with its size and digest; sizes are compared before a byte is read. The bytes
that were checked are the bytes that are loaded. skops is loaded with our own allow-list, whatever the package says;
pickle is never loaded.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from release_platform.domain.errors import IntegrityError
from release_platform.domain.features import Column, FeaturePlan
from release_platform.domain.identity import Manifest
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions

FORMAT = 1
MAXIMUM_BYTES = 2 * 1024**3
MAXIMUM_EXPANSION = 50

SKOPS_TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.AbsoluteError",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfPoissonLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn._loss.loss.PinballLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.tree._tree.Tree",
)
"""Types beyond skops' own defaults that a package may hold: plain state of scikit-learn estimators, no callables."""


class Engine(Protocol):
    """Computes predictions from features."""

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """Returns probabilities of shape (n_rows, n_classes), or values of shape (n_rows,) for a regression."""


@dataclass(frozen=True)
class ModelPackage:
    """A verified version, ready to predict."""

    model: str
    task: Task
    classes: tuple[Any, ...]
    plan: FeaturePlan
    engine: Engine
    engine_name: str
    manifest: Manifest
    golden: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The digest `D(v)` of the files that this was loaded from."""
        return self.manifest.digest

    @cached_property
    def _labels(self) -> npt.NDArray[Any]:
        return np.array(self.classes, dtype=object)

    def predict(self, columns: Mapping[str, Column]) -> Predictions:
        """Returns the predictions for rows given as the plan's inputs (see `FeaturePlan.apply`)."""
        return self.predict_features(self.plan.apply(columns))

    def predict_features(self, features: Mapping[str, Column]) -> Predictions:
        """Returns the predictions for rows given as the plan's features."""
        raw = self.engine.predict(features)
        if self.task is Task.REGRESSION:
            return Predictions(values=raw)
        return Predictions(values=self._labels[raw.argmax(axis=1)], probabilities=raw)


def load_package(folder: Path, manifest: Manifest, *, engine: str | None = None) -> ModelPackage:
    """Returns the model of a package, after its files were checked against the manifest.

    Args:
        folder: Where the files are.
        manifest: What was registered.
        engine: `skops` or `onnx`; None for the one that the package names.

    Raises:
        IntegrityError: A file is absent, added, changed, too large, a link, or holds what may not be loaded.
    """
    files = _read_checked(folder, manifest)
    try:
        release = json.loads(files["release.json"])
        golden = json.loads(files["golden.json"])
        if release["format"] != FORMAT:
            raise IntegrityError(
                f"{folder}: package format {release['format']}, this platform reads {FORMAT}",
                remedy="upgrade the platform, or register the model again",
            )
        name = engine or release["engine"]
        loaded = _load_engine(name, files[f"model.{name}"], release, folder)
        return ModelPackage(
            model=release["model"],
            task=Task(release["task"]),
            classes=tuple(release["classes"]),
            plan=FeaturePlan.from_json(release["plan"]),
            engine=loaded,
            engine_name=name,
            manifest=manifest,
            golden=golden,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError(
            f"{folder}: not a package of this platform ({type(error).__name__}: {error})",
            remedy="register the model again with `release run`",
        ) from error


def _load_engine(name: str, data: bytes, release: Mapping[str, Any], folder: Path) -> Engine:
    try:
        loaded: Engine = _ENGINES[name](data, release)
    except Exception as error:
        raise _refuse(folder, f"model.{name} cannot be loaded ({type(error).__name__}: {error})") from error
    return loaded


def _refuse(folder: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{folder.name}: {problem}",
        remedy="its files are not those that were registered: find out who changed them, then register the model again",
    )


def _read_checked(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    if manifest.size_bytes > MAXIMUM_BYTES:
        raise _refuse(folder, f"{manifest.size_bytes:,} bytes, more than {MAXIMUM_BYTES:,}")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    wanted = {entry.path: entry for entry in manifest.files}
    for path in found:
        if path not in wanted:
            raise _refuse(folder, f"{path} is not in the manifest")
    files = {}
    for path, entry in wanted.items():
        where = found.get(path)
        if where is None:
            raise _refuse(folder, f"{path} is missing")
        if where.is_symlink() or not where.is_file():
            raise _refuse(folder, f"{path} is not a plain file")
        if where.stat().st_size != entry.size_bytes:
            raise _refuse(folder, f"{path} has {where.stat().st_size:,} bytes instead of {entry.size_bytes:,}")
        data = where.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise _refuse(folder, f"{path} was changed: its digest is not the registered one")
        files[path] = data
    return files


class SkopsEngine:
    """The scikit-learn pipeline itself."""

    def __init__(self, data: bytes, release: Mapping[str, Any]) -> None:
        import skops.io as sio

        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > max(MAXIMUM_EXPANSION * len(data), 10_000_000):
                raise ValueError("the archive expands to far more than its size")
        self._pipeline = sio.loads(data, trusted=list(SKOPS_TRUSTED))
        self._regression = release["task"] == Task.REGRESSION

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """See `Engine`."""
        import pandas as pd

        frame = pd.DataFrame(dict(features))
        raw = self._pipeline.predict(frame) if self._regression else self._pipeline.predict_proba(frame)
        return np.asarray(raw, dtype=np.float64)


class OnnxEngine:
    """ONNX Runtime, in double precision, one thread per call."""

    def __init__(self, data: bytes, release: Mapping[str, Any]) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._output = self._session.get_outputs()[-1].name
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._regression = release["task"] == Task.REGRESSION

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """See `Engine`."""
        feeds = {name: features[name].reshape(-1, 1) for name in self._inputs}
        (raw,) = self._session.run([self._output], feeds)
        return np.asarray(raw, dtype=np.float64).reshape(-1) if self._regression else np.asarray(raw, dtype=np.float64)


_ENGINES: dict[str, Any] = {"skops": SkopsEngine, "onnx": OnnxEngine}
