"""Loads the package of a version, default-deny: the one way from registered bytes to a model that predicts.

A package is a folder:

```
release.json     name, task, classes, feature plan, engine          golden.json   inputs and the answers to them
model.skops      the fitted scikit-learn pipeline                   model.onnx    the same in ONNX, where it converts
MLmodel, ...     what MLflow's own tools read; never used here
```

No other file may be there (`package_files`), and every file must be listed in the manifest with its size and digest.
The bytes that were checked are the bytes that are loaded. skops is walked and loaded with our own allow-list
(`skops_archive`), ONNX with ours of operators (`onnx_file`), whatever the package says; pickle is never loaded. Last,
the model must answer its golden rows in the shape that its task has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from release_platform.adapters.bound_row import BoundRow
from release_platform.adapters.onnx_file import check_onnx
from release_platform.adapters.package_files import read_checked
from release_platform.adapters.row_order import row_order
from release_platform.adapters.skops_archive import load_skops
from release_platform.adapters.strict_json import read_json
from release_platform.adapters.trees import check_widths
from release_platform.domain.errors import IntegrityError
from release_platform.domain.features import Column, ColumnType, FeaturePlan, Inputs, as_column
from release_platform.domain.identity import Manifest
from release_platform.domain.metrics import Task
from release_platform.domain.prediction import Predictions

FORMAT = 1
MAXIMUM_CLASSES = 10_000
MAXIMUM_GOLDEN_ROWS = 10_000
MAXIMUM_ONNX_BYTES = 1024**3
MATRIX = "features"
"""The input of an ONNX graph that holds all features that are numbers; a graph without it has an input for each."""


class Engine(Protocol):
    """Computes predictions from features."""

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """Returns probabilities of shape (n_rows, n_classes), or values of shape (n_rows,) for a regression."""

    def predict_matrix(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns the same for features that are all numbers, as one matrix of shape (n_rows, n_features)."""


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A verified version, ready to predict. Equal is only the same object."""

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

    @cached_property
    def golden_inputs(self) -> Inputs:
        """The golden rows, as the plan takes them."""
        return self.inputs_of(self.golden["inputs"])

    def inputs_of(self, columns: Mapping[str, Sequence[Any]]) -> Inputs:
        """Returns rows, given as JSON values by column, as the plan takes them."""
        return self.plan.packed({column.name: as_column(column, columns[column.name]) for column in self.plan.inputs})

    def predict(self, inputs: Inputs) -> Predictions:
        """Returns the predictions for rows given as the plan's inputs (see `FeaturePlan.apply`)."""
        if isinstance(inputs, np.ndarray):
            return self._named(self.engine.predict_matrix(inputs))
        return self.predict_features(self.plan.apply(inputs))

    def predict_features(self, features: Mapping[str, Column]) -> Predictions:
        """Returns the predictions for rows given as the plan's features."""
        return self._named(self.engine.predict(features))

    def _named(self, raw: npt.NDArray[np.float64]) -> Predictions:
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
    try:
        files = read_checked(folder, manifest)
    except (ValueError, OSError) as error:
        raise _refuse(str(error)) from error
    try:
        release = read_json(files["release.json"])
        golden = read_json(files["golden.json"])
        if release["format"] != FORMAT:
            raise IntegrityError(
                f"the package has format {release['format']}, this platform reads {FORMAT}",
                remedy="upgrade the platform, or register the model again",
            )
        name = engine or release["engine"]
        task, plan = Task(release["task"]), FeaturePlan.from_json(release["plan"])
        package = ModelPackage(
            model=release["model"],
            task=task,
            classes=_classes(release["classes"], task),
            plan=plan,
            engine=_load_engine(name, files[f"model.{name}"], release),
            engine_name=name,
            manifest=manifest,
            golden=golden,
        )
        _check_answers(package)
        return package
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"this is no package of this platform ({type(error).__name__}: {error})",
            remedy="register the model again with `release run`",
        ) from error


def _load_engine(name: str, data: bytes, release: Mapping[str, Any]) -> Engine:
    try:
        loaded: Engine = _ENGINES[name](data, release)
    except Exception as error:
        raise _refuse(f"model.{name} cannot be loaded ({type(error).__name__}: {error})") from error
    return loaded


def _refuse(problem: str) -> IntegrityError:
    return IntegrityError(
        problem,
        remedy="its files are not those that were registered: find out who changed them, then register the model again",
    )


def _classes(found: Any, task: Task) -> tuple[Any, ...]:
    classes = tuple(found)
    if any(type(label) not in {str, int, bool} for label in classes) or len(set(classes)) != len(classes):
        raise ValueError("the classes are not plain labels, each once")
    if len(classes) > MAXIMUM_CLASSES or (task is Task.REGRESSION) != (not classes):
        raise ValueError(f"{len(classes):,} classes do not go with the task {task}")
    return classes


def _check_answers(package: ModelPackage) -> None:
    """Refuses a model that does not answer its golden rows, or in another shape than its task has."""
    inputs = package.golden["inputs"]
    if any(len(inputs[column.name]) > MAXIMUM_GOLDEN_ROWS for column in package.plan.inputs):
        raise ValueError(f"more than {MAXIMUM_GOLDEN_ROWS:,} golden rows")
    columns = {column.name: as_column(column, inputs[column.name]) for column in package.plan.inputs}
    n_rows = len(inputs[package.plan.inputs[0].name]) if package.plan.inputs else 0
    shape = (n_rows,) if package.task is Task.REGRESSION else (n_rows, len(package.classes))
    try:
        found = package.engine.predict(package.plan.apply(columns))
    except Exception as error:
        raise _refuse(f"model.{package.engine_name} fails ({type(error).__name__}: {error})") from error
    if not n_rows or found.shape != shape:
        raise ValueError(f"it answers {n_rows} golden rows in shape {found.shape} instead of {shape}")


class SkopsEngine:
    """The scikit-learn pipeline itself."""

    def __init__(self, data: bytes, release: Mapping[str, Any]) -> None:
        self._pipeline = load_skops(data)
        check_widths(self._pipeline)
        self._regression = release["task"] == Task.REGRESSION
        self._names = FeaturePlan.from_json(release["plan"]).features

    def predict_matrix(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See `Engine`."""
        return self.predict({name: features[:, place] for place, name in enumerate(self._names)})

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """See `Engine`."""
        import pandas as pd

        frame = pd.DataFrame(dict(features))
        with np.errstate(all="ignore"):  # linear models may overflow; what comes of it is judged by the answer
            raw = self._pipeline.predict(frame) if self._regression else self._pipeline.predict_proba(frame)
        return np.asarray(raw, dtype=np.float64)


class OnnxEngine:
    """ONNX Runtime, in double precision, one thread per call.

    A graph takes its features one by one, each of shape (n_rows, 1), or those that are numbers as one matrix.
    """

    def __init__(self, data: bytes, release: Mapping[str, Any]) -> None:
        import onnxruntime as ort

        check_onnx(data)
        _bound_onnx_memory()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._session = ort.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
        self._output = self._session.get_outputs()[-1].name
        given = {value.name: (value.type, value.shape[1:]) for value in self._session.get_inputs()}
        types = FeaturePlan.from_json(release["plan"]).types
        self._numbers = [name for name, kind in types.items() if kind is not ColumnType.CATEGORY]
        self._joined = MATRIX in given and MATRIX not in types
        wanted = {name: (_ONNX_TYPES[kind], [1]) for name, kind in types.items()}
        if self._joined:
            wanted = {name: wanted[name] for name in types if name not in self._numbers}
            wanted[MATRIX] = ("tensor(double)", [len(self._numbers)])
        if not given.items() <= wanted.items():
            raise ValueError("its inputs are not the features of the plan")
        self._columns = [name for name in given if name != MATRIX or not self._joined]
        self._takes_matrix = len(self._numbers) == len(types)
        self._regression = release["task"] == Task.REGRESSION
        self._order = row_order(data, MATRIX) if self._joined and not self._columns else None
        self._one = BoundRow(self._session, MATRIX, self._output)

    def predict(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """See `Engine`."""
        feeds = {name: features[name].reshape(-1, 1) for name in self._columns}
        if self._joined:
            feeds[MATRIX] = np.ascontiguousarray(np.array([features[name] for name in self._numbers]).T)
        return self._run(feeds)

    def predict_matrix(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns what `predict` returns, for rows that are a matrix already.

        Args:
            features: Shape (n_rows, n_features), float64, in the plan's order; NaN where missing.

        Raises:
            ValueError: The plan has features that are text, or another number of features.
        """
        if not self._takes_matrix or features.shape[1:] != (len(self._numbers),):
            raise ValueError(f"a matrix of shape {features.shape} does not hold the plan's features")
        if self._joined:
            return self._formed(self._one.through(features)) if len(features) == 1 else self._run({MATRIX: features})
        return self.predict(dict(zip(self._numbers, features.T, strict=True)))

    def _run(self, feeds: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        if self._order is None:
            return self._compute(feeds)
        return self._order.through(feeds[MATRIX], lambda rows: self._compute({MATRIX: rows}))

    def _compute(self, feeds: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        (raw,) = self._session.run([self._output], feeds)
        return self._formed(raw)

    def _formed(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(raw, dtype=np.float64).reshape(-1) if self._regression else np.asarray(raw, dtype=np.float64)


@cache
def _bound_onnx_memory() -> None:
    """Makes all sessions of this process share one arena, whose size has an end."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    limits = {
        "max_mem": MAXIMUM_ONNX_BYTES,
        "arena_extend_strategy": 1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(limits))


_ONNX_TYPES = dict.fromkeys(ColumnType, "tensor(double)") | {ColumnType.CATEGORY: "tensor(string)"}
_ENGINES: dict[str, Any] = {"skops": SkopsEngine, "onnx": OnnxEngine}
