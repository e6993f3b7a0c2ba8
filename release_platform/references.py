"""The drift reference of a version: made once from its training data, and kept with it in MLflow.

The file lies among the artefacts of the version's training run, and is named by its digest. The signature of the
version vouches for that digest, so neither the data nor MLflow need be trusted when it is read again. A version that
was registered without one is compared with a reference that is made anew, and whoever asks is told so.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.version_tags import find_manifest
from release_platform.domain.attestation import SIGNATURE_TAG, check_version_statement
from release_platform.domain.errors import IntegrityError
from release_platform.domain.identity import PREFIX, digest_of_bytes
from release_platform.domain.policy import Registration
from release_platform.domain.spec import ModelSpec
from release_platform.pipeline.drift_reference import Known, build_reference
from release_platform.pipeline.kept_reference import read_reference, reference_bytes
from release_platform.pipeline.recorded_data import read_recorded
from release_platform.pipeline.reproduction import recorded_spec
from release_platform.services import Services

FOLDER = "drift"
"""Where it lies among the artefacts of the training run; the signed package is not touched."""
FACT = "drift_reference"
"""What the signature of a version calls its digest."""


@dataclass(frozen=True, kw_only=True)
class KnownVersion:
    """A version, loaded, with its reference.

    Attributes:
        package: The version.
        spec: The spec that it was trained by.
        known: Its reference.
        made_anew: Why the reference was made anew; empty for the one that is kept with the version.
    """

    package: ModelPackage
    spec: ModelSpec
    known: Known
    made_anew: str = ""


def keep_reference(services: Services, registration: Registration) -> str:
    """Makes the reference of a version and keeps it with the artefacts of its run; returns its digest.

    Raises:
        IntegrityError: The version's files or its data are not what was registered.
        DataError: The data cannot be split as it was.
        Unavailable: An outside system does not answer.
    """
    package, spec = _load(services, registration)
    data = reference_bytes(_made(services, registration, package, spec))
    digest = digest_of_bytes(data)
    with TemporaryDirectory() as folder:
        (Path(folder) / _name(digest)).write_bytes(data)
        services.tracking.log_files(registration.mlflow_run_id, Path(folder), FOLDER)
    return digest


def load_known(services: Services, registration: Registration) -> KnownVersion:
    """Returns a version with the reference that is kept with it; one without is compared with one that is made anew.

    Raises:
        IntegrityError: The version, its reference, or where that is missing its data, is not what was registered.
        Unavailable: An outside system does not answer.
    """
    package, spec = _load(services, registration)
    kept, problem = _find_kept(services, registration)
    if kept is not None:
        return KnownVersion(package=package, spec=spec, known=kept)
    made = _made(services, registration, package, spec)
    return KnownVersion(package=package, spec=spec, known=made, made_anew=problem)


def _find_kept(services: Services, registration: Registration) -> tuple[Known | None, str]:
    """Returns the kept reference, or None and why there is none."""
    of = f"version {registration.version}"
    digest = _signed_digest(services, registration)
    if not digest:
        return None, f"{of} was registered without its drift reference; it was made anew from the training data"
    data = services.tracking.find_file(registration.mlflow_run_id, f"{FOLDER}/{_name(digest)}")
    if data is None:
        return None, f"the drift reference of {of} is gone from MLflow; it was made anew from the training data"
    if digest_of_bytes(data) != digest:
        raise IntegrityError(
            f"{registration.model} {of}: its drift reference in MLflow is not the one that was registered",
            remedy=f"find out who changed {FOLDER}/{_name(digest)} of the run {registration.mlflow_run_id} and restore "
            "it from a backup; where it is deleted, it is made anew from the training data",
        )
    try:
        return read_reference(data), ""
    except ValueError as error:
        return None, f"the drift reference of {of} is of another release ({error}); it was made anew"


def _signed_digest(services: Services, registration: Registration) -> str:
    """Returns the digest that the version's signature vouches for; empty where it names none."""
    manifest = find_manifest(registration.tags)
    if SIGNATURE_TAG not in registration.tags or manifest is None:
        return ""
    statement = services.keys.trusted().verify(registration.tags[SIGNATURE_TAG])
    check_version_statement(statement, manifest, model=registration.model, version=registration.version)
    return str(statement["predicate"]["release"].get(FACT, ""))


def _load(services: Services, registration: Registration) -> tuple[ModelPackage, ModelSpec]:
    with TemporaryDirectory() as folder:
        record = services.releases.fetch_registered(registration, Path(folder))
        return load_package(Path(folder), record.manifest), recorded_spec(Path(folder) / "release.json")


def _made(services: Services, registration: Registration, package: ModelPackage, spec: ModelSpec) -> Known:
    uris = services.tracking.snapshots_of(registration.mlflow_run_id)
    raw = read_recorded(services.snapshots, uris, registration.fingerprint)
    return build_reference(spec, package, raw, version=registration.version)


def _name(digest: str) -> str:
    return f"reference-{digest.removeprefix(PREFIX)[:16]}.parquet"
