"""trained_model: a fitted, packaged model in an MLflow run of its own."""

import json
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from release_platform.adapters.mlflow_tracking import CODE_TAG, ENV_TAG, SNAPSHOTS_TAG, DatasetInput
from release_platform.defs.naming import asset_key, code_version, link, stage_asset
from release_platform.domain.identity import digest_of_model
from release_platform.domain.records import FeatureTable, TrainedModel
from release_platform.pipeline import features as feature_tables
from release_platform.pipeline.environment import environment, file_digests
from release_platform.pipeline.packaging import SAMPLE_ROWS, parity_difference, write_package
from release_platform.pipeline.training import FittedModel, fit
from release_platform.project import Project
from release_platform.services import Services

CODE = (
    "pipeline/training.py",
    "pipeline/packaging.py",
    "pipeline/onnx_graph.py",
    "pipeline/onnx_imputer.py",
    "pipeline/onnx_one_hot.py",
    "pipeline/onnx_trees.py",
    "pipeline/onnx_writer.py",
    "pipeline/tree_ensemble.py",
    "pipeline/features.py",
    "adapters/model_package.py",
    "adapters/onnx_file.py",
    "adapters/onnx_trees.py",
    "adapters/skops_types.py",
    "domain/features.py",
)
ATTRIBUTES = ("task", "target", "features", "estimator", "search", "onnx", "seed")


def build_trained_model(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of the fitted model. While it fits, MLflow's fluent interface writes into its own run."""
    spec, fluent = project.spec, f"mlflow_{project.spec.name}"
    version = code_version(project, CODE, ATTRIBUTES)

    @stage_asset(
        project,
        "trained_model",
        kinds={"scikitlearn", "mlflow"},
        description="Seeded, deterministic fit; packaged, not yet registered.",
        modules=CODE,
        attributes=ATTRIBUTES,
        ins={"features": dg.AssetIn(key=asset_key(spec.name, "features"))},
        required_resource_keys={"platform", fluent},
    )
    def trained_model(context: dg.AssetExecutionContext, features: Any) -> dg.MaterializeResult[Any]:
        services: Services = context.resources.platform.services
        run_id = services.tracking.open_run(spec.name, context.run.run_id, {"dagster.job": context.job_name})
        surroundings = environment(project.folder)
        table = feature_tables.read_features(services.snapshots.read(features.snapshot))
        training = ~table.held_out
        with getattr(context.resources, fluent)():
            fitted = fit(spec, table.features[training], table.target[training])
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "package"
            written = write_package(
                folder, spec, fitted, table.features[training].head(SAMPLE_ROWS), features.golden_inputs
            )
            difference = parity_difference(folder, written.manifest, fitted, table.features[table.held_out])
            model_id = services.tracking.log_package(
                spec.name, run_id, folder, {"release.digest": written.manifest.digest}
            )
        record = TrainedModel(
            mlflow_run_id=run_id,
            model_id=model_id,
            model_digest=digest_of_model(fitted.pipeline),
            manifest=written.manifest,
            parity_difference=difference,
            onnx_note=written.onnx_note,
            features=features,
            code_version=version,
            dagster_run_id=context.run.run_id,
            environment=surroundings,
        )
        _log(services, context, project, record, fitted)
        return dg.MaterializeResult(
            value=record, data_version=dg.DataVersion(record.model_digest), metadata=_metadata(services, record, fitted)
        )

    return trained_model


def _log(
    services: Services, context: dg.AssetExecutionContext, project: Project, record: TrainedModel, fitted: FittedModel
) -> None:
    spec, tracking, run_id = project.spec, services.tracking, record.mlflow_run_id
    features: FeatureTable = record.features
    tracking.log_input(
        run_id,
        DatasetInput(
            name=f"{spec.name}/raw_data",
            digest=features.raw_fingerprint,
            uri=features.snapshot.uri,
            context="training",
        ),
    )
    tracking.log(
        run_id,
        params={
            "estimator.type": spec.estimator.type,
            "seed": spec.seed,
            **{f"preprocessing.{k}": v for k, v in project.attributes["estimator"]["preprocessing"].items()},
            **{f"estimator.{name}": value for name, value in fitted.parameters.items()},
        },
        metrics={"fit_s": fitted.fit_s, "training_rows": features.n_training_rows},
        tags={
            "release.model": spec.name,
            "release.model_digest": record.model_digest,
            "release.data_fingerprint": features.raw_fingerprint,
            "release.code_version": record.code_version,
            SNAPSHOTS_TAG: json.dumps({key: data.uri for key, data in features.raw.items()}),
            CODE_TAG: json.dumps(file_digests(project.folder)),
            "dagster.asset_key": context.asset_key.to_user_string(),
            "dagster.run_url": f"{services.settings.dagster_url}/runs/{context.run.run_id}",
            **{f"{ENV_TAG}{name}": value for name, value in record.environment.items()},
            "mlflow.source.git.commit": record.environment["git_commit"],
        },
    )


def _metadata(services: Services, record: TrainedModel, fitted: FittedModel) -> dict[str, Any]:
    tried = "\n".join(f"- {candidate}" for candidate in fitted.candidates)
    return {
        "mlflow_run": link(run_url(services, record)),
        "mlflow_run_id": record.mlflow_run_id,
        "mlflow_model_id": record.model_id,
        "model_digest": record.model_digest,
        "package_digest": record.manifest.digest,
        "package_bytes": record.manifest.size_bytes,
        "fit_s": fitted.fit_s,
        "onnx": record.onnx_note or "packaged, double precision",
        "parity_difference": record.parity_difference,
        "environment": dg.MetadataValue.json(dict(record.environment)),
        **({"search": dg.MetadataValue.md(tried)} if tried else {}),
    }


def run_url(services: Services, record: TrainedModel) -> str:
    """Returns the address of the training run in MLflow's web interface."""
    experiment = services.tracking.experiment_of(record.mlflow_run_id)
    return f"{services.settings.mlflow_url}/#/experiments/{experiment}/runs/{record.mlflow_run_id}"
