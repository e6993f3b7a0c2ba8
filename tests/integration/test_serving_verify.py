"""A live server is verified against the registry's own model, and what is wrong with it is found."""

import json
from dataclasses import replace

import httpx
import pytest

from release_platform.adapters.model_package import load_package
from release_platform.adapters.serving_client import ServingClient, await_version, verify_live
from release_platform.domain.errors import Unavailable, VerificationFailed
from release_platform.domain.features import Column
from tests.fakes.packages import build_boosted_classifier, build_linear_classifier, build_typed_classifier, manifest_of
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        ("cancer", "1"): build_linear_classifier(root / "1"),
        ("cancer", "2"): build_boosted_classifier(root / "2"),
        ("typed", "1"): build_typed_classifier(root / "3"),
    }


@pytest.fixture(scope="module")
def url(folders, tmp_path_factory):
    registry = FakeRegistry(folders, aliases={("cancer", "production"): "2", ("typed", "production"): "1"})
    with running(settings_for(tmp_path_factory.mktemp("cache")), registry) as address:
        with ServingClient(address) as client:
            await_version(client, "cancer", "2", within_s=10)
            await_version(client, "typed", "1", within_s=10)
        yield address


@pytest.fixture
def client(url):
    with ServingClient(url) as made:
        yield made


def package_of(folders, model, version):
    folder = folders[model, version]
    return load_package(folder, manifest_of(folder))


@pytest.mark.parametrize(("model", "version"), [("cancer", "2"), ("typed", "1")])
def test_a_right_server_is_verified(client, folders, model, version):
    package = package_of(folders, model, version)
    verification = verify_live(client, package, model, version)
    assert (verification.version, verification.digest, verification.engine) == (version, package.digest, "skops")
    assert (verification.n_rows, verification.largest_difference) == (5, 0.0)
    assert verification.latency_ms > 0


def test_a_stale_server_is_found(client, folders):
    with pytest.raises(VerificationFailed, match="version 2, but it should be 1"):
        verify_live(client, package_of(folders, "cancer", "1"), "cancer", "1")


def test_other_bytes_under_the_same_number_are_found(client, folders):
    with pytest.raises(VerificationFailed, match="digest"):
        verify_live(client, package_of(folders, "cancer", "1"), "cancer", "2")


class Nudged:
    """An engine whose answers are off by the last bit."""

    def __init__(self, engine):
        self._engine = engine

    def predict(self, features: dict[str, Column]):
        return self._engine.predict(features) * (1 + 2**-52)


def test_a_difference_in_the_last_bit_is_found(client, folders):
    package = package_of(folders, "cancer", "2")
    with pytest.raises(VerificationFailed, match="largest difference"):
        verify_live(client, replace(package, engine=Nudged(package.engine)), "cancer", "2")


def test_a_changed_preprocessing_step_is_found(client, folders):
    package = package_of(folders, "cancer", "2")
    plan = json.loads(json.dumps(package.plan.to_json()).replace('"divide"', '"multiply"'))
    with pytest.raises(VerificationFailed, match="largest difference"):
        verify_live(client, replace(package, plan=type(package.plan).from_json(plan)), "cancer", "2")


def test_a_model_that_is_not_there_and_a_server_that_is_not_there(client, folders):
    package = package_of(folders, "cancer", "2")
    with pytest.raises(VerificationFailed, match="no model 'nobody'"):
        verify_live(client, package, "nobody", "1")
    with ServingClient("http://127.0.0.1:9", 0.5) as nowhere:
        with pytest.raises(Unavailable, match="cannot be reached"):
            verify_live(nowhere, package, "cancer", "2")
        assert not nowhere.ready()


def test_it_works_beside_a_proxy_of_the_environment(url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ServingClient(url) as client:
        assert client.ready()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/livez", trust_env=True)
