"""Trains a model where nothing is kept: the stages of a release up to its evaluation, without Dagster and MLflow.

They are the same functions that the assets call. What they write goes to a snapshot store and a folder of the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.identity import digest_of_model
from release_platform.domain.records import FeatureTable, RawData, TrainedModel
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.environment import environment
from release_platform.pipeline.features import FeatureRows, featurize, read_features
from release_platform.pipeline.ingest import ingest, read_raw
from release_platform.pipeline.packaging import SAMPLE_ROWS, parity_difference, write_package
from release_platform.pipeline.training import fit

WHOLE = "all"
"""The key of raw data that has no partitions."""


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """What a model is trained and judged on.

    Attributes:
        raw: The snapshots of the raw data.
        frame: The raw data.
        features: The record of the feature table.
        table: The feature table.
    """

    raw: RawData
    frame: pd.DataFrame
    features: FeatureTable
    table: FeatureRows


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model that was trained and packaged, and is not kept: its record names no run of Dagster or MLflow."""

    trained: TrainedModel
    package: ModelPackage


def read_data(spec: ModelSpec, base: Path, store: SnapshotStore, partitions: Sequence[str] | None = None) -> TrialData:
    """Returns the data of a model, read from its source and held to its contract.

    Args:
        spec: The model.
        base: The folder of its `defs.yaml`.
        store: Where the snapshots go.
        partitions: The months to take; None: all.

    Raises:
        DataError: The data cannot be read, breaks its contract, or no model can be trained on it.
    """
    raw = read_raw_data(spec, base, store, partitions)
    frame = read_raw(store, raw.snapshots)
    features, table = featurize(frame, spec, raw, store)
    return TrialData(raw=raw, frame=frame, features=features, table=read_features(table))


def read_raw_data(
    spec: ModelSpec, base: Path, store: SnapshotStore, partitions: Sequence[str] | None = None
) -> RawData:
    """Returns the snapshots of a model's raw data; see `read_data`."""
    found = ingest(spec, base=base, store=store, partitions=partitions)
    return RawData(snapshots={key or WHOLE: snapshot for key, snapshot in found.items()})


def train(spec: ModelSpec, place: Path, features: FeatureTable, table: FeatureRows, folder: Path) -> Trial:
    """Returns the model fitted on the training rows of a feature table, packaged.

    Args:
        spec: The model.
        place: The folder of its project, for the commit that is checked out there.
        features: The record of the feature table.
        table: The feature table.
        folder: Where the package is written; must not exist.

    Raises:
        TrainingError: The model cannot be fitted or packaged.
    """
    training = ~table.held_out
    fitted = fit(spec, table.features[training], table.target[training])
    sample = table.features[training].head(SAMPLE_ROWS)
    written = write_package(folder, spec, fitted, sample, features.golden_inputs)
    trained = TrainedModel(
        mlflow_run_id="",
        model_id="",
        model_digest=digest_of_model(fitted.pipeline),
        manifest=written.manifest,
        parity_difference=parity_difference(folder, written.manifest, fitted, table.features[table.held_out]),
        onnx_note=written.onnx_note,
        features=features,
        code_version="",
        dagster_run_id="",
        environment=environment(place),
    )
    return Trial(trained=trained, package=written.package)
