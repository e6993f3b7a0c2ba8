"""Every registry keeps the promises of the port: MLflow over SQLite, behind a real server, over REST, and the fake."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.mlflow_rest import RestRegistry, reader_at
from release_platform.adapters.model_package import load_package
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG, PLATFORM_TAG
from release_platform.domain.errors import IntegrityError, NotFound, Unavailable
from release_platform.domain.ports import Registry
from tests.contract.registries import (
    MODEL,
    SPOILT,
    Kept,
    KeptInMemory,
    KeptInMlflow,
    KeptOverRest,
    blank_mlflow,
    mlflow_server,
)
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.fakes.registry import FakeRegistry
from tests.integration.homes import blank_home, free_port

KINDS: dict[str, type[KeptInMlflow]] = {"sqlite": KeptInMlflow, "server": KeptInMlflow, "rest": KeptOverRest}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, str]]]:
    """The folder and the tracking URI of each MLflow."""
    homes = {kind: blank_mlflow(blank_home(), tmp_path_factory.mktemp(kind) / "home") for kind in KINDS}
    with mlflow_server(homes["server"]) as url, mlflow_server(homes["rest"], proxied=True) as proxied:
        yield {
            "sqlite": (homes["sqlite"], f"sqlite:///{homes['sqlite'] / 'mlflow.db'}"),
            "server": (homes["server"], url),
            "rest": (homes["rest"], proxied),
        }


@pytest.fixture(scope="module", params=["fake", *KINDS])
def kept(request: pytest.FixtureRequest, places, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    if request.param == "fake":
        return KeptInMemory(tmp_path_factory.mktemp("fake"))
    return KINDS[request.param](*places[request.param])


@pytest.fixture
def registry(kept: Kept) -> Registry:
    return kept.registry


@pytest.fixture(scope="module", params=KINDS)
def mlflow(request: pytest.FixtureRequest, places) -> KeptInMlflow:
    """An MLflow with another model, whose versions a test may spoil."""
    return KINDS[request.param](*places[request.param], model=SPOILT)


# What every registry promises


def test_the_models_of_this_platform_are_listed_and_no_others(registry: Registry) -> None:
    assert set(registry.models()) <= {MODEL, SPOILT}
    assert MODEL in registry.models()


def test_versions_are_listed_oldest_first(registry: Registry) -> None:
    assert [record.version for record in registry.versions(MODEL)] == ["1", "2"]
    assert list(registry.versions("unknown")) == []


def test_a_version_is_what_was_registered(registry: Registry) -> None:
    first, second = registry.versions(MODEL)
    assert registry.get_version(MODEL, "1") == first
    assert (first.model, first.version) == (MODEL, "1")
    assert first.digest == first.manifest.digest != second.digest
    assert first.run_id
    assert first.created_at.tzinfo is not None


@pytest.mark.parametrize(("model", "version"), [(MODEL, "9"), ("unknown", "1"), (MODEL, "latest"), (MODEL, "")])
def test_what_is_not_there_is_not_found(registry: Registry, tmp_path: Path, model: str, version: str) -> None:
    with pytest.raises(NotFound):
        registry.get_version(model, version)
    with pytest.raises(NotFound):
        registry.fetch(model, version, tmp_path)


def test_an_alias_is_set_moved_and_removed_however_often(registry: Registry) -> None:
    assert registry.find_alias(MODEL, "canary") is None
    for version in ("1", "1", "2", "2", None, None):
        registry.set_alias(MODEL, "canary", version)
        assert registry.find_alias(MODEL, "canary") == version


def test_aliases_stand_beside_each_other(registry: Registry) -> None:
    registry.set_alias(MODEL, "production", "1")
    registry.set_alias(MODEL, "staging", "2")
    assert (registry.find_alias(MODEL, "production"), registry.find_alias(MODEL, "staging")) == ("1", "2")
    registry.set_alias(MODEL, "production", "2")
    assert (registry.find_alias(MODEL, "production"), registry.find_alias(MODEL, "staging")) == ("2", "2")


def test_an_unknown_model_has_no_aliases(registry: Registry) -> None:
    assert registry.find_alias("unknown", "production") is None
    registry.set_alias("unknown", "production", None)


def test_a_version_is_fetched_byte_by_byte_at_the_paths_of_its_manifest(registry: Registry, tmp_path: Path) -> None:
    record = registry.fetch(MODEL, "2", tmp_path)
    assert record == registry.get_version(MODEL, "2")
    assert manifest_of(tmp_path) == record.manifest
    assert load_package(tmp_path, record.manifest).model == MODEL


# What happens behind its back: these come last, for they spoil version 1


def test_a_file_that_is_gone_is_named(kept: Kept, tmp_path: Path) -> None:
    kept.remove_file("1", "golden.json")
    with pytest.raises(IntegrityError, match=r"golden\.json is gone"):
        kept.registry.fetch(MODEL, "1", tmp_path)


# What MLflow alone can do


def test_registering_again_with_the_same_key_gives_the_first_version(mlflow: KeptInMlflow, tmp_path: Path) -> None:
    package = build_linear_classifier(tmp_path / "package", model=SPOILT, n_rows=350)
    made = mlflow.register(package, "third")
    assert mlflow.register(package, "third") == made
    assert [record.version for record in mlflow.registry.versions(SPOILT)] == ["1", "2", "3"]
    assert made.tags["made"] == "third"


def test_an_alias_never_points_to_a_version_that_is_not_there(mlflow: KeptInMlflow) -> None:
    with pytest.raises(NotFound):
        mlflow.registry.set_alias(SPOILT, "shadow", "9")
    assert mlflow.registry.find_alias(SPOILT, "shadow") is None


def test_a_logged_model_that_is_not_complete_is_not_registered(mlflow: KeptInMlflow, tmp_path: Path) -> None:
    run_id, model_id, manifest = mlflow.log(build_linear_classifier(tmp_path / "package", model=SPOILT, n_rows=360))
    mlflow.client.finalize_logged_model(model_id, "FAILED")
    before = mlflow.registry.versions(SPOILT)
    with pytest.raises(IntegrityError, match="is FAILED, not READY"):
        MlflowRegistry(mlflow.tracking.uri).register(
            model=SPOILT, model_id=model_id, run_id=run_id, manifest=manifest, key="x", tags={}
        )
    assert mlflow.registry.versions(SPOILT) == before


@pytest.mark.parametrize(
    ("tag", "value"),
    [(DIGEST_TAG, "sha256:" + "0" * 64), (MANIFEST_TAG, "[]"), (MANIFEST_TAG, "not json"), (MANIFEST_TAG, '{"a": 1}')],
)
def test_an_edited_tag_is_an_integrity_error_and_stops_no_other_version(
    mlflow: KeptInMlflow, tmp_path: Path, tag: str, value: str
) -> None:
    before = mlflow.client.get_model_version(SPOILT, "2").tags[tag]
    mlflow.set_tag("2", tag, value)
    try:
        with pytest.raises(IntegrityError, match="spoilt version 2"):
            mlflow.registry.get_version(SPOILT, "2")
        with pytest.raises(IntegrityError, match="spoilt version 2"):
            mlflow.registry.fetch(SPOILT, "2", tmp_path)
        assert mlflow.registry.get_version(SPOILT, "1").version == "1"
        assert mlflow.register(build_linear_classifier(tmp_path / "package", model=SPOILT, n_rows=370), tmp_path.name)
    finally:
        mlflow.set_tag("2", tag, before)


def test_a_version_of_somebody_else_is_no_version_of_the_platform(mlflow: KeptInMlflow) -> None:
    mlflow.forget("1")
    with pytest.raises(IntegrityError, match="was not registered by this platform"):
        mlflow.registry.get_version(SPOILT, "1")
    assert "1" not in [record.version for record in mlflow.registry.versions(SPOILT)]


# What REST alone must do


def test_rest_reads_what_mlflow_reads(places, tmp_path: Path) -> None:
    home, url = places["rest"]
    model = "many"
    kept = KeptOverRest(home, url, model=model)
    kept.registry.set_alias(model, "production", "2")
    client, (first, _) = kept.client, kept.registry.versions(model)
    source = str(client.get_model_version(model, "1").source)
    for _ in range(201):  # a page holds 200
        client.create_model_version(model, source, model_id=source.removeprefix("models:/"), tags=dict(first.tags))
    rest, mlflow = RestRegistry(url), MlflowRegistry(url)
    assert rest.shown(model) == mlflow.shown(model)
    assert rest.versions(model) == mlflow.versions(model)
    assert len(rest.versions(model)) == 203
    assert rest.models() == mlflow.models()
    for folder, registry in (("rest", rest), ("mlflow", mlflow)):
        (tmp_path / folder).mkdir()
        assert registry.fetch(model, "2", tmp_path / folder) == rest.get_version(model, "2")
    assert manifest_of(tmp_path / "rest") == manifest_of(tmp_path / "mlflow")


def test_more_models_than_a_page_holds_are_all_listed(places) -> None:
    _, url = places["rest"]
    client = MlflowClient(url)
    names = [f"one_of_many_{number:03}" for number in range(101)]
    for name in names:
        client.create_registered_model(name, tags={PLATFORM_TAG: "true"})
    try:
        assert set(names) <= set(RestRegistry(url).models())
    finally:
        for name in names:
            client.delete_registered_model(name)


def test_files_that_the_server_does_not_hand_out_come_from_where_they_lie(places, tmp_path: Path) -> None:
    home, url = places["server"]
    KeptInMlflow(home, url, model="elsewhere")
    record = RestRegistry(url).fetch("elsewhere", "2", tmp_path)
    assert manifest_of(tmp_path) == record.manifest


@pytest.mark.parametrize("fault", ["link", "longer", "gone"])
def test_a_file_that_lies_elsewhere_otherwise_than_registered_is_not_copied(places, tmp_path: Path, fault: str) -> None:
    home, url = places["server"]
    kept = KeptInMlflow(home, url, model=f"elsewhere_{fault}")
    stored = kept.path_of("1", "golden.json")
    content = stored.read_bytes()
    stored.unlink()
    if fault == "link":
        (tmp_path / "secret").write_bytes(content)
        stored.symlink_to(tmp_path / "secret")
    elif fault == "longer":
        stored.write_bytes(content + b" ")
    (tmp_path / "fetched").mkdir()
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        RestRegistry(url).fetch(kept.model, "1", tmp_path / "fetched")
    assert not (tmp_path / "fetched" / "golden.json").exists()


@pytest.mark.parametrize("n_bytes", [-1, 1])
def test_a_stored_file_of_another_size_is_not_fetched(places, tmp_path: Path, n_bytes: int) -> None:
    home, url = places["rest"]
    kept = KeptOverRest(home, url, model=f"changed_{n_bytes}")
    stored = kept.path_of("1", "golden.json")
    stored.write_bytes(stored.read_bytes()[:n_bytes] if n_bytes < 0 else stored.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"golden\.json has .* bytes in the artefact storage"):
        kept.registry.fetch(kept.model, "1", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tracking_uri", ["sqlite:///x.db", "http://127.0.0.1:5000"])
def test_a_server_is_read_over_rest_and_an_embedded_database_by_mlflow(tracking_uri: str) -> None:
    wanted = RestRegistry if tracking_uri.startswith("http") else MlflowRegistry
    assert type(reader_at(tracking_uri)) is wanted


# When it does not answer


@pytest.mark.parametrize("kind", ["fake", "mlflow", "rest"])
def test_a_registry_that_is_down_says_so_within_seconds(kind: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    down = {"fake": FakeRegistry({}, down=True), "mlflow": MlflowRegistry(url), "rest": RestRegistry(url)}[kind]
    for call in (down.models, lambda: down.fetch(MODEL, "1", tmp_path)):
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            call()
        assert time.monotonic() - begun < 10


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"mlflow\.db"):
        MlflowRegistry(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}").models()
