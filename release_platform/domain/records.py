"""What the assets hand on to each other: small frozen values that say where the bytes are and what they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from release_platform.domain.fingerprint import combined
from release_platform.domain.identity import Manifest
from release_platform.domain.snapshot import Snapshot, StoredData


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """Immutable snapshots of the raw data, by partition key; the key is `all` where there are no partitions."""

    snapshots: Mapping[str, Snapshot]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all of it."""
        parts = {key: snapshot.fingerprint.digest for key, snapshot in self.snapshots.items()}
        return next(iter(parts.values())) if len(parts) == 1 else combined(parts)

    @property
    def n_rows(self) -> int:
        """Rows in all partitions."""
        return sum(snapshot.n_rows for snapshot in self.snapshots.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """The features, the target and the split of some raw data.

    Attributes:
        snapshot: The table.
        raw_fingerprint: Fingerprint of the raw data that it was built from.
        raw: Where that raw data is, by partition.
        n_training_rows: Rows to fit on.
        n_held_out_rows: Rows to judge on.
        golden_inputs: Some held-out rows as a client would send them, by input.
        training_age_days: How long before the newest held-out row the newest training row was, in days; None where the
            split is not by a timestamp.
    """

    snapshot: Snapshot
    raw_fingerprint: str
    raw: Mapping[str, StoredData]
    n_training_rows: int
    n_held_out_rows: int
    golden_inputs: Mapping[str, list[Any]]
    training_age_days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A fitted and packaged model, logged to MLflow but not registered.

    Attributes:
        mlflow_run_id: The run that trained it.
        model_id: The logged model.
        model_digest: Canonical digest of the fitted model.
        manifest: The package's files.
        parity_difference: Largest difference between the fitted pipeline and a packaged format on held-out rows.
        onnx_note: Why there is no ONNX file; empty when there is one.
        features: What it was trained on.
        code_version: Digest of code, lock and spec that made it.
        dagster_run_id: The Dagster run that made it.
        environment: Commit, lock, versions, threads.
    """

    mlflow_run_id: str
    model_id: str
    model_digest: str
    manifest: Manifest
    parity_difference: float
    onnx_note: str
    features: FeatureTable
    code_version: str
    dagster_run_id: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A trained model with its evaluation report, as a JSON value (`EvaluationReport.to_json`)."""

    trained: TrainedModel
    report: Mapping[str, Any]
    report_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """A version in the registry."""

    model: str
    version: str
    digest: str
