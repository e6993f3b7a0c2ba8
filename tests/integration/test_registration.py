"""A registration that is repeated, cut off or tampered with: over a real MLflow and a real release store."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from release_platform.adapters.mlflow_client import as_mlflow_default
from release_platform.adapters.version_tags import DIGEST_TAG, KEY_TAG, MANIFEST_TAG
from release_platform.defs.registration import register_version
from release_platform.domain.errors import IntegrityError, ReleaseError
from release_platform.domain.fingerprint import fingerprint
from release_platform.domain.identity import digest_of
from release_platform.domain.records import Evaluated, FeatureTable, TrainedModel
from release_platform.domain.snapshot import Snapshot
from release_platform.services import Services
from release_platform.settings import Settings
from tests.contract.registries import blank_mlflow
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.integration.homes import blank_home
from tests.unit.test_policy import REGISTRATION

MODEL = "cancer"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=blank_mlflow(blank_home(), tmp_path / "home"), mlflow_tracking_uri=""))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("packages")
    return [build_linear_classifier(root / str(n), model=MODEL, n_rows=n) for n in (300, 400)]


def evaluated(services: Services, package: Path) -> Evaluated:
    run_id = services.tracking.open_run(MODEL, "dagster-1", {})
    data = fingerprint((), n_rows=0)
    trained = TrainedModel(
        mlflow_run_id=run_id,
        model_id=services.tracking.log_package(MODEL, run_id, package, {}),
        model_digest=digest_of("model"),
        manifest=manifest_of(package),
        parity_difference=0.0,
        onnx_note="",
        features=FeatureTable(
            snapshot=Snapshot(uri="data.parquet", fingerprint=data, n_rows=0, size_bytes=1),
            raw_fingerprint=data.digest,
            raw={},
            n_training_rows=0,
            n_held_out_rows=0,
            golden_inputs={},
        ),
        code_version=digest_of("code"),
        dagster_run_id="dagster-1",
        environment={"git_commit": "c", "lock": "l"},
    )
    return Evaluated(trained=trained, report={"model": MODEL, "baseline": None}, report_digest=digest_of("report"))


def register(services: Services, of: Evaluated) -> str:
    return register_version(services, "dagster-1", of, REGISTRATION.gates).version


def mlflow(services: Services) -> MlflowClient:
    return MlflowClient(services.settings.tracking_uri)


def in_mlflow(services: Services) -> set[str]:
    return set(services.registry.shown(MODEL).tags)


def show_other_files(services: Services, version: str, package: Path) -> None:
    """Makes a version say that it is of other files, consistently, as anyone with access to MLflow can."""
    manifest = manifest_of(package)
    mlflow(services).set_model_version_tag(MODEL, version, MANIFEST_TAG, json.dumps(manifest.to_json()))
    mlflow(services).set_model_version_tag(MODEL, version, DIGEST_TAG, manifest.digest)


def test_a_recorded_version_outlives_a_repeated_registration_that_cannot_record(
    services: Services, packages: list[Path]
) -> None:
    of = evaluated(services, packages[0])
    version = register(services, of)
    with closing(sqlite3.connect(services.settings.root / "release.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON registrations BEGIN SELECT no_such_function(); END"
        )  # the store answers, and cannot write
        with pytest.raises(ReleaseError):
            register(services, of)
    assert in_mlflow(services) == {version}


def test_a_recorded_version_whose_tags_were_edited_outlives_a_repeated_registration(
    services: Services, packages: list[Path]
) -> None:
    of = evaluated(services, packages[0])
    version = register(services, of)
    show_other_files(services, version, packages[1])
    with pytest.raises(IntegrityError, match="other files"):
        register(services, of)
    assert in_mlflow(services) == {version}


def test_a_version_that_somebody_else_made_under_the_key_is_not_signed(
    services: Services, packages: list[Path]
) -> None:
    of, planted = evaluated(services, packages[0]), manifest_of(packages[1])
    mlflow(services).create_registered_model(MODEL, tags={"release.platform": "true"})
    run_id = services.tracking.open_run(MODEL, "dagster-2", {})
    model_id = services.tracking.log_package(MODEL, run_id, packages[1], {})
    key = digest_of([of.report_digest, of.trained.manifest.digest])
    tags = {KEY_TAG: key, DIGEST_TAG: planted.digest, MANIFEST_TAG: json.dumps(planted.to_json())}
    with as_mlflow_default(services.settings.tracking_uri):
        mlflow(services).create_model_version(
            name=MODEL, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags
        )
    with pytest.raises(IntegrityError, match="other files"):
        register(services, of)
    assert services.store.registrations(MODEL) == ()


def test_a_version_that_could_not_be_signed_is_not_left_behind(services: Services, packages: list[Path]) -> None:
    of = evaluated(services, packages[0])
    services.keys.folder.mkdir(parents=True)
    (services.keys.folder / "signing.pem").write_text("no key")
    with pytest.raises(IntegrityError):
        register(services, of)
    assert in_mlflow(services) == set()


def test_repeating_a_registration_returns_the_first_record(services: Services, packages: list[Path]) -> None:
    of = evaluated(services, packages[0])
    first = register_version(services, "dagster-1", of, REGISTRATION.gates)
    assert register_version(services, "dagster-2", replace(of), REGISTRATION.gates) == first
    assert in_mlflow(services) == {first.version}
