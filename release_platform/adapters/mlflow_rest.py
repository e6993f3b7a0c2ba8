"""The model registry, read over MLflow's REST API: for a process that must start fast and stay small."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, Field

from release_platform.adapters.mlflow_http import MlflowHttp
from release_platform.adapters.stored_files import check_files, check_sizes, file_gone, leads_nowhere, other_size
from release_platform.adapters.version_tags import DIGEST_TAG, PLATFORM_TAG, record_of, version_missing
from release_platform.domain.errors import NotFound, Unavailable
from release_platform.domain.ports import RegistryReader, VersionRecord
from release_platform.domain.projection import Shown

API = "/api/2.0/mlflow"
ARTEFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_VERSIONS_A_PAGE = 200
_END_OF_TIME_MS = 253_402_300_800_000  # the year 10,000


def reader_at(tracking_uri: str) -> RegistryReader:
    """Returns the registry at a URI, to be read: over REST where a server is asked as it is documented.

    For an embedded database, or where the environment names an authentication that is a plug-in of MLflow, it is
    MLflow's own client.
    """
    plugged_in = os.environ.get("MLFLOW_TRACKING_AUTH") or os.environ.get("MLFLOW_TRACKING_AWS_SIGV4")
    if tracking_uri.startswith(("http://", "https://")) and not plugged_in:
        return RestRegistry(tracking_uri)
    return _mlflow_registry(tracking_uri)


class RestRegistry:
    """The `RegistryReader` at the address of an MLflow server.

    The server hands files out itself where it proxies its artefacts (`mlflow-artifacts:`). Where it does not, it says
    where they lie: a folder of this machine is copied from, and from elsewhere (`s3://`, another server) MLflow's own
    client fetches them: only then is it imported.

    Raises:
        Unavailable: The address is none.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._http = MlflowHttp(tracking_uri)

    def models(self) -> Sequence[str]:
        """See `RegistryReader`."""
        names: list[str] = []
        token = ""
        while True:
            page = self._http.read(
                f"{API}/registered-models/search",
                _Models,
                {"filter": f"tags.`{PLATFORM_TAG}` = 'true'", "page_token": token},
            )
            names += [model.name for model in page.registered_models]
            token = page.next_page_token
            if not token:
                return sorted(names)

    def versions(self, model: str) -> Sequence[VersionRecord]:
        """See `RegistryReader`."""
        ours = [version for version in self._versions(model) if DIGEST_TAG in version.all_tags]
        return [version.to_record() for version in sorted(ours, key=lambda v: int(v.version))]

    def get_version(self, model: str, version: str) -> VersionRecord:
        """See `RegistryReader`."""
        if not version.isdigit():
            raise version_missing(model, version)
        try:
            found = self._http.read(f"{API}/model-versions/get", _OneVersion, {"name": model, "version": version})
        except NotFound:
            raise version_missing(model, version) from None
        return found.model_version.to_record()

    def shown(self, model: str) -> Shown:
        """See `RegistryReader`."""
        aliases = self._aliases(model)
        return Shown(aliases=aliases, tags={version.version: version.all_tags for version in self._versions(model)})

    def find_alias(self, model: str, alias: str) -> str | None:
        """See `RegistryReader`."""
        return self._aliases(model).get(alias)

    def fetch(self, model: str, version: str, folder: Path) -> VersionRecord:
        """See `RegistryReader`. No more bytes of a file are written than its manifest says."""
        of = f"{model} version {version}"
        record = self.get_version(model, version)
        check_files(record.manifest, of=of)
        uri = self._http.read(
            f"{API}/model-versions/get-download-uri", _Location, {"name": model, "version": version}
        ).artifact_uri
        place = urlsplit(uri)
        if place.scheme in {"", "file"} and place.netloc in {"", "localhost"} and place.path.startswith("/"):
            _copy(record, Path(unquote(place.path)), folder, of=of)
            return record
        if place.scheme != "mlflow-artifacts" or place.netloc not in {"", self._http.netloc}:
            return _mlflow_registry(self._uri).fetch(model, version, folder)
        self._download(record, _plain_path(uri, place.path, of=of), folder, of=of)
        return record

    def _download(self, record: VersionRecord, root: str, folder: Path, *, of: str) -> None:
        stored = self._http.read(ARTEFACTS, _Files, {"path": root}).files
        check_sizes(record.manifest, {file.path: file.file_size for file in stored}, of=of)
        try:
            for entry in record.manifest.files:
                n_bytes = self._http.download(
                    f"{ARTEFACTS}/{quote(f'{root}/{entry.path}')}", folder / entry.path, most_bytes=entry.size_bytes
                )
                if n_bytes is None:
                    raise file_gone(entry, of=of)
                if n_bytes != entry.size_bytes:
                    raise other_size(entry, n_bytes, of=of)
        except OSError as error:
            raise Unavailable(
                f"{of}: its files cannot be written to {folder}: {error}", remedy="check that the disk has room"
            ) from error

    def _aliases(self, model: str) -> dict[str, str]:
        try:
            found = self._http.read(f"{API}/registered-models/get", _OneModel, {"name": model}).registered_model.aliases
        except NotFound:
            return {}
        return {entry.alias: entry.version for entry in found}

    def _versions(self, model: str) -> Iterator["_Version"]:
        token = ""
        while True:
            page = self._http.read(
                f"{API}/model-versions/search",
                _Versions,
                {"filter": f"name = '{model}'", "max_results": _VERSIONS_A_PAGE, "page_token": token},
            )
            yield from page.model_versions
            token = page.next_page_token
            if not token:
                return


def _copy(record: VersionRecord, root: Path, folder: Path, *, of: str) -> None:
    """Copies files from a folder of this machine; whether they are the registered ones is the loader's question."""
    for entry in record.manifest.files:
        try:
            found = (root / entry.path).lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size_bytes:
                raise other_size(entry, found.st_size, of=of)
            shutil.copyfile(root / entry.path, folder / entry.path)
        except FileNotFoundError:
            raise file_gone(entry, of=of) from None
        except OSError as error:
            raise Unavailable(
                f"{of}: {entry.path} cannot be copied from {root}: {error}",
                remedy="check that this user may read the artefacts, and that the disk has room",
            ) from error


def _mlflow_registry(tracking_uri: str) -> RegistryReader:
    # MLflow takes seconds to import, and a hundred megabytes.
    from release_platform.adapters.mlflow_registry import MlflowRegistry

    return MlflowRegistry(tracking_uri)


def _plain_path(uri: str, path: str, *, of: str) -> str:
    """Returns the path of a proxied artefact location, of plain segments; one that leads elsewhere is refused."""
    plain = unquote(path).strip("/")
    segments = plain.split("/")
    if not plain.isprintable() or any(part in {"", ".", ".."} or set(part) & set("\\%?#") for part in segments):
        raise leads_nowhere(uri, of=of)
    return plain


class _Tag(BaseModel):
    key: str
    value: str = ""


class _Version(BaseModel):
    name: str
    version: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
    creation_timestamp: Annotated[int, Field(ge=0, lt=_END_OF_TIME_MS)]
    run_id: str = ""
    tags: tuple[_Tag, ...] = ()

    @property
    def all_tags(self) -> Mapping[str, str]:
        return {tag.key: tag.value for tag in self.tags}

    def to_record(self) -> VersionRecord:
        return record_of(
            model=self.name,
            version=self.version,
            run_id=self.run_id,
            tags=self.all_tags,
            created_ms=self.creation_timestamp,
        )


class _OneVersion(BaseModel):
    model_version: _Version


class _Versions(BaseModel):
    model_versions: tuple[_Version, ...] = ()
    next_page_token: str = ""


class _Alias(BaseModel):
    alias: str
    version: str


class _Model(BaseModel):
    name: str
    aliases: tuple[_Alias, ...] = ()


class _OneModel(BaseModel):
    registered_model: _Model


class _Models(BaseModel):
    registered_models: tuple[_Model, ...] = ()
    next_page_token: str = ""


class _Location(BaseModel):
    artifact_uri: str


class _File(BaseModel):
    path: str
    file_size: int | None = None


class _Files(BaseModel):
    files: tuple[_File, ...] = ()
