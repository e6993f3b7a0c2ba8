"""The model registry, in MLflow: versions with their manifest in tags, and aliases."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from release_platform.adapters.mlflow_client import as_mlflow_default, mlflow_client, mlflow_errors
from release_platform.adapters.stored_files import check_files, check_sizes, file_gone, leads_nowhere
from release_platform.adapters.version_tags import (
    DIGEST_TAG,
    KEY_TAG,
    PLATFORM_TAG,
    manifest_tags,
    record_of,
    version_missing,
)
from release_platform.domain.errors import IntegrityError, Refused, ReleaseError, Unavailable
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import VersionRecord
from release_platform.domain.projection import Shown

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class MlflowRegistry:
    """The `Registry` at an MLflow tracking URI. See the port for what each method promises."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def models(self) -> Sequence[str]:
        """See `Registry`."""
        names: list[str] = []
        token: str | None = None
        with mlflow_errors(self._uri):
            while True:  # MLflow gives a hundred at a time
                page = mlflow_client(self._uri).search_registered_models(
                    filter_string=f"tags.`{PLATFORM_TAG}` = 'true'", page_token=token
                )
                names += [model.name for model in page]
                token = page.token
                if not token:
                    return sorted(names)

    def versions(self, model: str) -> Sequence[VersionRecord]:
        """See `Registry`."""
        with mlflow_errors(self._uri):
            found = mlflow_client(self._uri).search_model_versions(f"name = '{model}'")
        ours = [version for version in found if DIGEST_TAG in version.tags]
        return [_record(version) for version in sorted(ours, key=lambda v: int(v.version))]

    def get_version(self, model: str, version: str) -> VersionRecord:
        """See `Registry`."""
        if not version.isdigit():
            raise version_missing(model, version)
        with mlflow_errors(self._uri):
            try:
                return _record(mlflow_client(self._uri).get_model_version(model, version))
            except IntegrityError:
                raise
            except Exception as error:
                if _is_missing(error):
                    raise version_missing(model, version) from None
                raise

    def find_version(self, model: str, key: str) -> VersionRecord | None:
        """Returns the version that was registered under an idempotency key, or None."""
        wanted = f"name = '{model}' AND tags.`{KEY_TAG}` = '{key}'"
        with mlflow_errors(self._uri):
            found = mlflow_client(self._uri).search_model_versions(wanted)
        return _record(found[0]) if found else None

    def shown(self, model: str) -> Shown:
        """See `Registry`."""
        aliases = self._aliases(model)
        with mlflow_errors(self._uri):
            found = mlflow_client(self._uri).search_model_versions(f"name = '{model}'")
        return Shown(aliases=aliases, tags={str(version.version): dict(version.tags) for version in found})

    def find_alias(self, model: str, alias: str) -> str | None:
        """See `Registry`."""
        return self._aliases(model).get(alias)

    def _aliases(self, model: str) -> dict[str, str]:
        with mlflow_errors(self._uri):
            try:
                found = mlflow_client(self._uri).get_registered_model(model).aliases
            except Exception as error:
                if _is_missing(error):
                    return {}
                raise
        return {alias: str(version) for alias, version in found.items()}

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """See `Registry`."""
        try:
            with mlflow_errors(self._uri):
                if version is None:
                    mlflow_client(self._uri).delete_registered_model_alias(model, alias)
                else:
                    mlflow_client(self._uri).set_registered_model_alias(model, alias, version)
        except (Refused, Unavailable):
            if self.find_alias(model, alias) != version:  # else another process was first to say the same
                raise

    def set_tag(self, model: str, version: str, name: str, value: str) -> None:
        """See `Registry`."""
        with mlflow_errors(self._uri):
            mlflow_client(self._uri).set_model_version_tag(model, version, name, value)

    def register(
        self, *, model: str, model_id: str, run_id: str, manifest: Manifest, key: str, tags: Mapping[str, str]
    ) -> VersionRecord:
        """Registers a logged model as a new version; the same key again returns the version it made first.

        Raises:
            IntegrityError: The logged model is not complete, or the registry shows other files than these.
        """
        known = self.find_version(model, key)
        if known is not None:
            return _of_these_files(known, manifest)
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            status = client.get_logged_model(model_id).status
            if str(status) != "READY":
                raise IntegrityError(
                    f"{model}: the logged model {model_id} is {status}, not READY",
                    remedy=f"train again with `release run {model}`",
                )
            self._ensure_model(model)
            with as_mlflow_default(self._uri):
                version = client.create_model_version(
                    name=model,
                    source=f"models:/{model_id}",
                    run_id=run_id,
                    model_id=model_id,
                    tags={**tags, **manifest_tags(manifest), KEY_TAG: key},
                )
        return _of_these_files(_record(version), manifest)

    def discard(self, model: str, version: str) -> None:
        """Deletes a version that the release store does not know; if that fails too, the error is the store's."""
        with suppress(ReleaseError), mlflow_errors(self._uri):
            mlflow_client(self._uri).delete_model_version(model, version)

    def remove(self, model: str, version: str) -> None:
        """See `Registry`. Files that another version was made of as well are kept."""
        with mlflow_errors(self._uri):
            client = mlflow_client(self._uri)
            all_of_it = client.search_model_versions(f"name = '{model}'")
            wanted = next((found for found in all_of_it if str(found.version) == version), None)
            if wanted is None:
                return
            if all(other is wanted or other.source != wanted.source for other in all_of_it):
                delete_files(client.get_model_version_download_uri(model, version), self._uri)
            client.delete_model_version(model, version)

    def fetch(self, model: str, version: str, folder: Path) -> VersionRecord:
        """See `Registry`."""
        record = self.get_version(model, version)
        with mlflow_errors(self._uri):
            uri = mlflow_client(self._uri).get_model_version_download_uri(model, version)
            fetch_files(uri, record.manifest, folder, self._uri, of=f"{model} version {version}")
        return record

    def read_file(self, record: VersionRecord, path: str) -> bytes:
        """Returns one file of a version, without fetching the others.

        Raises:
            IntegrityError: It is gone, or is not the one that was registered.
        """
        one = Manifest(files=tuple(entry for entry in record.manifest.files if entry.path == path))
        with TemporaryDirectory() as folder, mlflow_errors(self._uri):
            uri = mlflow_client(self._uri).get_model_version_download_uri(record.model, record.version)
            fetch_files(uri, one, Path(folder), self._uri, of=f"{record.model} version {record.version}")
            data = (Path(folder) / path).read_bytes() if one.files else b""
        if [sha256(data).hexdigest()] != [entry.sha256 for entry in one.files]:
            raise IntegrityError(
                f"{record.model} version {record.version}: the file {path} is not the one that was registered",
                remedy="restore it from a backup, or register the model again",
            )
        return data

    def _ensure_model(self, model: str) -> None:
        client = mlflow_client(self._uri)
        try:
            client.get_registered_model(model)
        except Exception as error:
            if not _is_missing(error):
                raise
            client.create_registered_model(model, tags={PLATFORM_TAG: "true"})


def fetch_files(uri: str, manifest: Manifest, folder: Path, tracking_uri: str, *, of: str) -> None:
    """Downloads the files of a manifest from an artefact location into a folder.

    Raises:
        IntegrityError: The location is none, or a file is gone or of another size, which is asked before it is fetched.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    check_files(manifest, of=of)
    try:
        repository: Any = get_artifact_repository(uri, tracking_uri=tracking_uri)
    except MlflowException as error:
        raise leads_nowhere(uri, of=of) from error
    check_sizes(manifest, {found.path: found.file_size for found in repository.list_artifacts()}, of=of)
    for entry in manifest.files:
        try:
            repository.download_artifacts(entry.path, str(folder))
        except (MlflowException, FileNotFoundError) as error:
            if isinstance(error, MlflowException) and "No such" not in str(error) and "404" not in str(error):
                raise
            raise file_gone(entry, of=of) from error


def delete_files(uri: str, tracking_uri: str) -> None:
    """Deletes everything at an artefact location; nothing there is no failure."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(uri, tracking_uri=tracking_uri)
    repository.delete_artifacts()


def _of_these_files(record: VersionRecord, manifest: Manifest) -> VersionRecord:
    """Returns the record: what the platform signs is what it made, whatever the registry says of it."""
    if record.manifest != manifest:
        raise IntegrityError(
            f"{record.model} version {record.version} is registered for this evaluation, but with other files",
            remedy="find out who registered or edited it, delete it, then register again",
        )
    return record


def _is_missing(error: Exception) -> bool:
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def _record(version: "ModelVersion") -> VersionRecord:
    return record_of(
        model=version.name,
        version=str(version.version),
        run_id=version.run_id,
        tags=dict(version.tags),
        created_ms=version.creation_timestamp,
    )
