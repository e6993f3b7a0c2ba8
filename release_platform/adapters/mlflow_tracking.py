"""MLflow's runs: one for each Dagster run and model, opened before anything is logged and closed with the run's end."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from release_platform.adapters.mlflow_client import mlflow_client, mlflow_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

DAGSTER_RUN_TAG = "dagster_run_id"
SNAPSHOTS_TAG = "release.snapshots"
CODE_TAG = "release.code"
ENV_TAG = "env."
REPORT_DIGEST_TAG = "release.report_digest"
REPORT_FOLDER = "evaluation"
"""Where the artefacts of an evaluation lie: `report.json`, `report.html` and the plots."""


class RunClaims(Protocol):
    """Remembers which MLflow run belongs to a Dagster run and model."""

    def find_tracked_run(self, dagster_run_id: str, model: str) -> str | None:
        """Returns the MLflow run, or None."""

    def claim_tracked_run(self, dagster_run_id: str, model: str, mlflow_run_id: str) -> str:
        """Records the MLflow run unless there is one already; returns the one that holds."""

    def tracked_runs(self, dagster_run_id: str) -> Sequence[tuple[str, str]]:
        """Returns (model, MLflow run) of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInput:
    """A dataset as MLflow shows it among a run's inputs. `digest` is cut to MLflow's 36 characters there."""

    name: str
    digest: str
    uri: str
    context: str


class MlflowTracking:
    """MLflow's tracking at a URI; `claims` makes sure that there is one run for each Dagster run and model."""

    def __init__(self, tracking_uri: str, artifact_root: str | None, claims: RunClaims) -> None:
        self._uri = tracking_uri
        self._artifact_root = artifact_root
        self._claims = claims

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self._uri

    def experiment(self, model: str) -> str:
        """Returns the id of a model's experiment, made on first use."""
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            found = client.get_experiment_by_name(model)
            if found is not None:
                return str(found.experiment_id)
            location = f"{self._artifact_root}/{model}" if self._artifact_root else None
            return str(client.create_experiment(model, artifact_location=location))

    def open_run(self, model: str, dagster_run_id: str, tags: Mapping[str, str]) -> str:
        """Returns the MLflow run of a Dagster run and model; starts it if there is none."""
        known = self._claims.find_tracked_run(dagster_run_id, model)
        if known is not None:
            return known
        experiment = self.experiment(model)
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            run = client.create_run(
                experiment,
                run_name=f"{model}-{dagster_run_id[:8]}",
                tags={**tags, DAGSTER_RUN_TAG: dagster_run_id},
            )
            mine = str(run.info.run_id)
            held = self._claims.claim_tracked_run(dagster_run_id, model, mine)
            if held != mine:
                client.delete_run(mine)
            return held

    def close_runs(self, dagster_run_id: str, status: str) -> None:
        """Ends every MLflow run of a Dagster run as `FINISHED`, `FAILED` or `KILLED`; again is harmless."""
        with mlflow_errors(self._uri):
            for _, run_id in self._claims.tracked_runs(dagster_run_id):
                if mlflow_client(self._uri).get_run(run_id).info.status != status:
                    mlflow_client(self._uri).set_terminated(run_id, status)

    def get_run(self, run_id: str) -> "Run":
        """Returns a run with its params, metrics, tags and inputs."""
        with mlflow_errors(self._uri):
            return mlflow_client(self._uri).get_run(run_id)

    def snapshots_of(self, run_id: str) -> dict[str, str]:
        """Returns the addresses of the raw data that a run was trained on, by partition."""
        found: dict[str, str] = json.loads(self.get_run(run_id).data.tags.get(SNAPSHOTS_TAG, "{}"))
        return found

    def environment_of(self, run_id: str) -> dict[str, str]:
        """Returns the surroundings that were recorded of a training run."""
        tags = self.get_run(run_id).data.tags
        return {name.removeprefix(ENV_TAG): value for name, value in sorted(tags.items()) if name.startswith(ENV_TAG)}

    def code_of(self, run_id: str) -> dict[str, str]:
        """Returns the short digest of each source file of a training run; empty for runs before they were recorded."""
        found: dict[str, str] = json.loads(self.get_run(run_id).data.tags.get(CODE_TAG, "{}"))
        return found

    def experiment_of(self, run_id: str) -> str:
        """Returns the id of a run's experiment."""
        return str(self.get_run(run_id).info.experiment_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Logs params (immutable), metrics and tags in one call."""
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        with mlflow_errors(self._uri):
            mlflow_client(self._uri).log_batch(
                run_id,
                metrics=[Metric(name, value, now_ms, 0) for name, value in (metrics or {}).items()],
                params=[Param(name, str(value)[:6000]) for name, value in (params or {}).items()],
                tags=[RunTag(name, value) for name, value in (tags or {}).items()],
            )

    def log_input(self, run_id: str, dataset: DatasetInput) -> None:
        """Logs a dataset that the run read."""
        from mlflow.entities import Dataset, InputTag
        from mlflow.entities import DatasetInput as MlflowDatasetInput

        entity = Dataset(
            name=dataset.name,
            digest=dataset.digest.removeprefix("sha256:")[:36],
            source_type="local",
            source=dataset.uri,
        )
        with mlflow_errors(self._uri):
            mlflow_client(self._uri).log_inputs(
                run_id, datasets=[MlflowDatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])]
            )

    def log_files(self, run_id: str, folder: Path, under: str) -> None:
        """Uploads a folder's files to the run's artefacts, below `under`."""
        with mlflow_errors(self._uri):
            mlflow_client(self._uri).log_artifacts(run_id, str(folder), under)

    def drop_files(self, run_id: str, folder: str, drops: Callable[[str], bool]) -> int:
        """Removes artefacts of a run from a folder, those whose names `drops` says, and returns how many they were."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            found = [file.path for file in client.list_artifacts(run_id, folder) if not file.is_dir]
            old = [path for path in found if drops(path.rpartition("/")[2])]
            if old:
                repository: Any = get_artifact_repository(
                    client.get_run(run_id).info.artifact_uri, tracking_uri=self._uri
                )
                for path in old:
                    repository.delete_artifacts(path)
            return len(old)

    def find_report(self, model: str, report_digest: str) -> bytes | None:
        """Returns the `report.json` of the evaluation whose report has this digest, or None.

        The digest is what the run's tag says; whoever asked holds the report against it.
        """
        from mlflow.entities import ViewType

        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            experiment = client.get_experiment_by_name(model)
            wanted = f"tags.`{REPORT_DIGEST_TAG}` = '{report_digest}'"
            ids = [] if experiment is None else [str(experiment.experiment_id)]
            found = client.search_runs(ids, wanted, run_view_type=ViewType.ALL, max_results=1) if ids else []
            if not found:
                return None
        return self.find_file(str(found[0].info.run_id), f"{REPORT_FOLDER}/report.json")

    def find_file(self, run_id: str, path: str) -> bytes | None:
        """Returns an artefact of a run, or None; `path` has a folder."""
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            if all(file.path != path for file in client.list_artifacts(run_id, path.rpartition("/")[0])):
                return None
            with TemporaryDirectory() as folder:
                return Path(client.download_artifacts(run_id, path, folder)).read_bytes()

    def log_package(self, model: str, run_id: str, folder: Path, tags: Mapping[str, str]) -> str:
        """Uploads a package as a logged model of the run and returns its id; READY only when all files are there."""
        experiment = self.experiment(model)
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            logged = client.create_logged_model(experiment, name=model, source_run_id=run_id, tags=dict(tags))
            try:
                client.log_model_artifacts(logged.model_id, str(folder))
            except BaseException:
                client.finalize_logged_model(logged.model_id, "FAILED")
                raise
            client.finalize_logged_model(logged.model_id, "READY")
            return str(logged.model_id)

    def package_location(self, model_id: str) -> str:
        """Returns the artefact location of a logged model."""
        with mlflow_errors(self._uri):
            return str(mlflow_client(self._uri).get_logged_model(model_id).artifact_location)
