"""Proves that a model's gates bite: trains spoilt twins of it and a clean one, and asks the gates about each."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
import pandas as pd

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import DataError, IntegrityError, TrainingError
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.gates import judge_all
from release_platform.domain.identity import digest_of
from release_platform.domain.metrics import PRIMARY
from release_platform.domain.records import FeatureTable, RawData
from release_platform.domain.selftest import TRAINING, Binding, Selftest, Twin, TwinResult
from release_platform.domain.spec import ModelSpec
from release_platform.domain.training_spec import TrainingSpec
from release_platform.pipeline.assessment import answers, evaluate
from release_platform.pipeline.environment import folder_digest, module_digest
from release_platform.pipeline.features import featurize, read_features, split_times, training_age_days
from release_platform.pipeline.ingest import read_raw
from release_platform.pipeline.trial import Trial, read_raw_data, train
from release_platform.pipeline.twins import Skipped, SpoiltRows, spoil_answers, spoil_rows
from release_platform.project import Project

ROWS = 40_000
_PROVEN = (
    *("task", "contract", "target", "split", "features", "estimator", "search"),
    *("slices", "gates", "onnx", "seed"),
)


def binding_of(project: Project) -> Binding:
    """Returns what a selftest of a model proves now.

    It is of the keys of the YAML that make and judge a model, the model's own Python files, the module of its source
    wherever that is, and the platform's version.
    """
    reference = project.spec.source.python
    module = None if reference is None else [reference, module_digest(reference.partition(":")[0])]
    code = [folder_digest(project.folder), module, installed("model-release-platform")]
    return Binding(spec=project.digest_of_parts(*_PROVEN), code=digest_of(code))


def run_selftest(project: Project, rows: int = ROWS) -> Selftest:
    """Returns what the gates say of the twins of a model.

    Args:
        project: The model.
        rows: How many rows of the raw data to use at most, evenly spread.

    Raises:
        DataError: The data cannot be used.
    """
    spec = replace(project.spec, metrics=(PRIMARY[project.spec.task],), training=TrainingSpec())
    with TemporaryDirectory() as folder:
        store = SnapshotStore(str(Path(folder) / "snapshots"))
        raw = read_raw_data(spec, project.folder, store)
        frame = _sampled(read_raw(store, raw.snapshots), rows)
        workshop = _Workshop(project, spec, frame, raw, store, Path(folder))
        return Selftest(
            model=spec.name,
            binding=binding_of(project),
            n_rows=len(frame),
            results=tuple(workshop.judged(twin) for twin in Twin),
        )


def _sampled(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    if len(frame) <= rows:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).round().astype(int)].reset_index(drop=True)


class _Workshop:
    """Where the twins of one model are made; the clean one is trained once."""

    def __init__(
        self, project: Project, spec: ModelSpec, frame: pd.DataFrame, raw: RawData, store: SnapshotStore, folder: Path
    ) -> None:
        self._project, self._spec, self._folder = project, spec, folder
        self._times = split_times(frame, spec)
        self._features, table = featurize(frame, spec, raw, store)
        self._table = read_features(table)
        self._clean: Trial | None = None
        self._latency_ms = 0.0

    def judged(self, twin: Twin) -> TwinResult:
        """Returns what the gates say of a twin; the clean one must be the first."""
        generator = np.random.default_rng([self._spec.seed, crc32(twin.encode())])
        spoilt = spoil_rows(twin, self._spec, self._table, self._times, generator)
        if isinstance(spoilt, Skipped):
            return TwinResult(twin=twin, detail="", stopped_by={}, skipped=spoilt.why)
        try:
            trial = self._trained(twin, spoilt)
        except (DataError, TrainingError, IntegrityError) as error:
            return TwinResult(twin=twin, detail=spoilt.detail, stopped_by={TRAINING: error.problem})
        package, done = spoil_answers(twin, trial.package, self._latency_ms)
        report = evaluate(self._spec, trial.trained, package, spoilt.table, answers(package, spoilt.table))
        if twin is Twin.CLEAN:
            self._latency_ms = report.operational["latency_p99_ms"] or 0.0
        return TwinResult(twin=twin, detail=done or spoilt.detail, stopped_by=_stopped(self._spec, report))

    def _trained(self, twin: Twin, spoilt: SpoiltRows) -> Trial:
        if spoilt.table is self._table and self._clean is not None:
            return self._clean
        folder = self._folder / twin.value
        trial = train(self._spec, self._project.folder, self._features_of(spoilt), spoilt.table, folder)
        if twin is Twin.CLEAN:
            self._clean = trial
        return trial

    def _features_of(self, spoilt: SpoiltRows) -> FeatureTable:
        if spoilt.kept is None or self._times is None:
            return self._features
        return replace(
            self._features,
            n_training_rows=int((~spoilt.table.held_out).sum()),
            training_age_days=training_age_days(self._times[spoilt.kept], spoilt.table.held_out),
        )


def _stopped(spec: ModelSpec, report: EvaluationReport) -> Mapping[str, str]:
    results = judge_all(spec.every_gate, report)
    return {result.gate: result.reason for result in results if result.blocking and not result.passed}
