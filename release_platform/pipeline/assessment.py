"""Assesses a trained model: all that its gates judge and its readers look at, from one pass over held-out rows."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.evidence import Baseline, Comparison, EvaluationReport, Measurement, finite_or_none
from release_platform.domain.features import as_column
from release_platform.domain.gates import GateResult
from release_platform.domain.metrics import METRICS
from release_platform.domain.prediction import Predictions
from release_platform.domain.records import TrainedModel
from release_platform.domain.signature import signature_breaks
from release_platform.domain.spec import Against, ModelSpec
from release_platform.pipeline.evaluation import compare, latency_p99_ms, measure, measure_slices
from release_platform.pipeline.features import FeatureRows, plan_columns
from release_platform.pipeline.ingest import read_raw
from release_platform.pipeline.plots import Importance, draw, draw_importance, importance
from release_platform.pipeline.report import render_html
from release_platform.project import Project


@dataclass(frozen=True, kw_only=True)
class Production:
    """The version in Production, loaded to be compared with."""

    version: str
    package: ModelPackage


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What was found, with what people look at.

    Attributes:
        report: The numbers.
        plots: PNG images by name.
        identity: What the report is of, in words, for its head.
    """

    report: EvaluationReport
    plots: Mapping[str, bytes]
    identity: Mapping[str, str]

    @property
    def markdown(self) -> str:
        """The metrics as a Markdown table."""
        lines = ["| metric | value | 95 % interval | meaning |", "|---|---|---|---|"]
        for name, m in self.report.quality.items():
            span = "" if m.lower is None else f"{m.lower:.4g} to {m.upper:.4g}"
            lines.append(f"| {name} | {_said(m)} | {span} | {METRICS[name].meaning} |")
        return "\n".join(lines)

    @property
    def thumbnails(self) -> dict[str, str]:
        """The plots as Markdown images that need no file."""
        return {
            name: f"![{name}](data:image/png;base64,{base64.b64encode(image).decode()})"
            for name, image in self.plots.items()
        }

    def write(self, folder: Path, gates: Sequence[GateResult]) -> None:
        """Writes report.json, report.html and the plots into a folder."""
        (folder / "report.json").write_text(json.dumps(self.report.to_json(), indent=1), encoding="utf-8")
        page = render_html(self.report, gates, self.plots, self.identity)
        (folder / "report.html").write_text(page, encoding="utf-8")
        for name, image in self.plots.items():
            (folder / f"{name}.png").write_bytes(image)


def _said(measurement: Measurement) -> str:
    return "undefined" if measurement.value is None else f"{measurement.value:.4g}"


def assess(
    project: Project,
    trained: TrainedModel,
    package: ModelPackage,
    table: FeatureRows,
    production: Production | None,
    snapshots: SnapshotStore,
) -> Assessment:
    """Returns the assessment of a trained model on the held-out rows of its feature table.

    Args:
        project: The model.
        trained: What was trained.
        package: Its package, loaded as serving would.
        table: The feature table, training and held-out rows.
        production: The version to compare with; None for the first release.
        snapshots: Where the raw data is: a Production version may have another feature plan.
    """
    spec, held_out = project.spec, table.held_out
    features, truth = table.features[held_out], table.target[held_out]
    columns = {name: features[name].to_numpy() for name in features.columns}
    predictions = package.predict_features(columns)
    positive = _positive_index(spec, package)
    of = (truth, predictions, package.classes, positive, spec.seed)
    baseline, notes = _baseline(spec, trained, snapshots, production, package, *of[:2], held_out, positive)
    breaks = signature_breaks(
        production.package.plan if production else None,
        package.plan,
        production.package.classes if production else (),
        package.classes,
    )
    report = EvaluationReport(
        model=spec.name,
        model_digest=trained.model_digest,
        package_digest=trained.manifest.digest,
        data_fingerprint=trained.features.raw_fingerprint,
        n_training_rows=trained.features.n_training_rows,
        n_rows=int(held_out.sum()),
        quality=measure(spec.task, spec.every_metric, *of),
        slices=measure_slices(spec.task, spec.every_metric, table.slices_of(held_out), *of),
        operational={
            "package_bytes": float(trained.manifest.size_bytes),
            "latency_p99_ms": _latency(package),
            "parity_difference": finite_or_none(trained.parity_difference),
            "signature_breaks": float(len(breaks)),
        },
        baseline=baseline,
        notes=tuple(note for note in (trained.onnx_note, *breaks, *notes) if note),
    )
    matters = importance(package.predict_features, columns, spec.task, truth, package.classes, positive, spec.seed)
    plots = draw(spec.task, truth, predictions, package.classes, positive) | _importance_plot(matters)
    return Assessment(report=report, plots=plots, identity=_identity(trained, spec))


def _importance_plot(matters: Importance) -> dict[str, bytes]:
    drawn = draw_importance(matters)
    return {} if drawn is None else {"importance": drawn}


def _positive_index(spec: ModelSpec, package: ModelPackage) -> int | None:
    return None if spec.target.positive_label is None else package.classes.index(spec.target.positive_label)


def _baseline(
    spec: ModelSpec,
    trained: TrainedModel,
    snapshots: SnapshotStore,
    production: Production | None,
    package: ModelPackage,
    truth: npt.NDArray[Any],
    predictions: Predictions,
    held_out: npt.NDArray[np.bool_],
    positive: int | None,
) -> tuple[Baseline | None, tuple[str, ...]]:
    if production is None:
        return None, ()
    wanted = list(dict.fromkeys(gate.metric for gate in spec.gates if gate.against is Against.PRODUCTION))
    comparisons: dict[str, Comparison] = {}
    notes: tuple[str, ...] = ()
    raw = read_raw(snapshots, trained.features.raw)[held_out]
    missing = [column.name for column in production.package.plan.inputs if column.name not in raw.columns]
    if missing:
        notes = (f"Production version {production.version} needs {', '.join(missing)}, which this data does not have",)
    elif wanted:
        theirs = production.package.predict(plan_columns(raw, production.package.plan))
        comparisons = compare(
            spec.task,
            wanted,
            truth,
            predictions,
            theirs,
            package.classes,
            positive,
            spec.seed,
            production_classes=production.package.classes,
        )
    return Baseline(version=production.version, digest=production.package.digest, comparisons=comparisons), notes


def _latency(package: ModelPackage) -> float | None:
    inputs = package.golden["inputs"]
    columns = {column.name: as_column(column, inputs[column.name]) for column in package.plan.inputs}
    n_rows = len(next(iter(columns.values())))
    with threadpool_limits(limits=1):  # as in serving: one row is not worth a second thread
        return latency_p99_ms(lambda row: package.predict({k: v[row : row + 1] for k, v in columns.items()}), n_rows)


def _identity(trained: TrainedModel, spec: ModelSpec) -> dict[str, str]:
    return {
        "model": spec.name,
        "owner": spec.owner,
        "estimator": spec.estimator.type,
        "model digest": trained.model_digest,
        "package digest": trained.manifest.digest,
        "data fingerprint": trained.features.raw_fingerprint,
        "code version": trained.code_version,
        "commit": trained.environment["git_commit"],
        "MLflow run": trained.mlflow_run_id,
        "Dagster run": trained.dagster_run_id,
    }
