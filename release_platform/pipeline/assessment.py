"""Assesses a trained model: all that its gates judge and its readers look at, from one pass over held-out rows."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.evidence import Baseline, Comparison, EvaluationReport, Measurement, finite_or_none
from release_platform.domain.features import as_column
from release_platform.domain.gate_spec import Against
from release_platform.domain.gates import GateResult
from release_platform.domain.metrics import METRICS
from release_platform.domain.prediction import Predictions
from release_platform.domain.records import TrainedModel
from release_platform.domain.signature import signature_breaks
from release_platform.domain.spec import ModelSpec
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


@dataclass(frozen=True, kw_only=True)
class Rival:
    """What a candidate was compared with.

    Attributes:
        baseline: How it came out; None where there is nothing to compare with.
        breaks: A sentence for each change that would break a client of the other one.
        notes: What else is worth reading.
    """

    baseline: Baseline | None = None
    breaks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


ALONE = Rival()


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
    spec = project.spec
    features, truth, predictions = _answered(package, table)
    wanted = compared_by_gates(spec)
    rival = production_rival(spec, trained, package, table, predictions, production, snapshots, wanted)
    report = evaluate(spec, trained, package, table, predictions, rival)
    positive, columns = positive_index(spec, package), {name: features[name].to_numpy() for name in features.columns}
    matters = importance(package.predict_features, columns, spec.task, truth, package.classes, positive, spec.seed)
    plots = draw(spec.task, truth, predictions, package.classes, positive) | _importance_plot(matters)
    return Assessment(report=report, plots=plots, identity=_identity(trained, spec))


def answers(package: ModelPackage, table: FeatureRows) -> Predictions:
    """Returns what a package says of the held-out rows of a feature table."""
    return _answered(package, table)[2]


def _answered(package: ModelPackage, table: FeatureRows) -> tuple[pd.DataFrame, npt.NDArray[Any], Predictions]:
    features = table.features[table.held_out]
    predictions = package.predict_features({name: features[name].to_numpy() for name in features.columns})
    return features, table.target[table.held_out], predictions


def evaluate(
    spec: ModelSpec,
    trained: TrainedModel,
    package: ModelPackage,
    table: FeatureRows,
    predictions: Predictions,
    rival: Rival = ALONE,
) -> EvaluationReport:
    """Returns the evaluation report of a trained model: every number that its gates judge.

    Args:
        spec: The model.
        trained: What was trained.
        package: Its package, loaded as serving would.
        table: The feature table, training and held-out rows.
        predictions: What the package says of the held-out rows.
        rival: What it was compared with.
    """
    held_out = table.held_out
    of = (table.target[held_out], predictions, package.classes, positive_index(spec, package), spec.seed)
    return EvaluationReport(
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
            "signature_breaks": float(len(rival.breaks)),
            **_age(trained),
        },
        baseline=rival.baseline,
        notes=tuple(note for note in (trained.onnx_note, *rival.breaks, *rival.notes) if note),
    )


def _age(trained: TrainedModel) -> dict[str, float]:
    age = trained.features.training_age_days
    return {} if age is None else {"training_age_days": age}


def compared_by_gates(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the metrics that gates compare with Production."""
    return tuple(dict.fromkeys(gate.metric for gate in spec.gates if gate.against is Against.PRODUCTION))


def _importance_plot(matters: Importance) -> dict[str, bytes]:
    drawn = draw_importance(matters)
    return {} if drawn is None else {"importance": drawn}


def positive_index(spec: ModelSpec, package: ModelPackage) -> int | None:
    """Returns which of the package's classes is the positive one; None unless the task is binary."""
    return None if spec.target.positive_label is None else package.classes.index(spec.target.positive_label)


def production_rival(
    spec: ModelSpec,
    trained: TrainedModel,
    package: ModelPackage,
    table: FeatureRows,
    predictions: Predictions,
    production: Production | None,
    snapshots: SnapshotStore,
    metrics: Sequence[str],
) -> Rival:
    """Returns how a candidate does against the version in Production on the same held-out rows.

    Args:
        spec: The model.
        trained: What was trained.
        package: Its package.
        table: The feature table.
        predictions: What the package says of the held-out rows.
        production: The version to compare with; None for the first release.
        snapshots: Where the raw data is: a Production version may have another feature plan.
        metrics: What is compared.
    """
    if production is None:
        return ALONE
    comparisons: dict[str, Comparison] = {}
    notes: tuple[str, ...] = ()
    other = production.package
    raw = read_raw(snapshots, trained.features.raw)[table.held_out]
    missing = [column.name for column in other.plan.inputs if column.name not in raw.columns]
    if missing:
        notes = (f"Production version {production.version} needs {', '.join(missing)}, which this data does not have",)
    elif metrics:
        comparisons = compare(
            spec.task,
            metrics,
            table.target[table.held_out],
            predictions,
            other.predict(plan_columns(raw, other.plan)),
            package.classes,
            positive_index(spec, package),
            spec.seed,
            production_classes=other.classes,
        )
    return Rival(
        baseline=Baseline(version=production.version, digest=other.digest, comparisons=comparisons),
        breaks=signature_breaks(other.plan, package.plan, other.classes, package.classes),
        notes=notes,
    )


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
