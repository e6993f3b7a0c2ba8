"""Promotions and rollbacks tell the live servers with a proof that those accept, and never fail because of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.servers import Servers
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.trust import Proof, Trust
from release_platform.domain.identity import Manifest
from release_platform.domain.push import Push
from release_platform.releases import Releases
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until_version
from tests.fakes.servers import FakeServers
from tests.integration.test_releases import FREE, MODEL, promote, stage

ONE, OTHER = "http://one", "http://other"
LATER = "the registry does not answer; its aliases follow when it is back"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2)}


@pytest.fixture
def registry(folders: dict[tuple[str, str], Path]) -> FakeRegistry:
    return FakeRegistry(folders, signs=False)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReleaseStore]:
    made = ReleaseStore(f"sqlite:///{tmp_path / 'release.db'}")
    yield made
    made.close()


@pytest.fixture
def servers() -> FakeServers:
    return FakeServers(ONE, OTHER)


@pytest.fixture
def releases(store: ReleaseStore, registry: FakeRegistry, keys: KeyFolder, servers: FakeServers) -> Releases:
    return Releases(store, registry, keys, servers=servers)


def roll_back(releases: Releases) -> list[str]:
    said: list[str] = []
    releases.rollback(MODEL, to=None, actor="ada", reason="errors", tell=said.append)
    return said


def proven_epoch(push: Push, keys: KeyFolder) -> int:
    proof = Proof(signature=push.signature, certificate=push.certificate)
    manifest = Manifest.from_json(json.loads(push.manifest))
    trust = Trust.in_folder(keys.folder)
    return trust.authorise(proof, manifest, model=MODEL, version=push.version, alias="production").epoch


def test_every_move_of_production_is_pushed_with_its_proof(
    releases: Releases, servers: FakeServers, keys: KeyFolder, registry: FakeRegistry
) -> None:
    stage(releases, "1")
    assert servers.pushed == []
    promote(releases, "1")
    promote(releases, "2")
    registry.down = True
    assert roll_back(releases) == [*(f"{url}: serves version 1 since epoch 5" for url in (ONE, OTHER)), LATER]
    assert [(push.version, push.epoch) for push in servers.pushed] == [("1", 2), ("2", 4), ("1", 5)]
    assert [proven_epoch(push, keys) for push in servers.pushed] == [2, 4, 5]


def test_a_server_that_is_down_is_named_and_the_move_stands(releases: Releases, servers: FakeServers) -> None:
    promote(releases, "1")
    promote(releases, "2")
    servers.down.add(OTHER)
    assert roll_back(releases) == [
        f"{ONE}: serves version 1 since epoch 5",
        f"{OTHER}: does not answer; it follows when it reaches the registry",
    ]
    assert releases.store.head(MODEL).production == "1"


def test_servers_that_fail_in_an_unforeseen_way_do_not_fail_the_move(
    releases: Releases, servers: FakeServers, registry: FakeRegistry
) -> None:
    servers.broken = RuntimeError("no more threads")
    promote(releases, "1")
    promote(releases, "2")
    (said,) = roll_back(releases)
    assert "no more threads" in said
    assert registry.find_alias(MODEL, "production") == "1"


def test_a_signing_key_that_cannot_be_read_does_not_keep_a_rollback_from_being_committed(
    releases: Releases, registry: FakeRegistry, keys: KeyFolder
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    registry.down = True
    (keys.folder / "signing.pem").write_bytes(b"no key")
    said, later = roll_back(releases)
    assert "not a usable key" in said
    assert later == LATER
    assert releases.store.head(MODEL).production == "1"


def test_a_promotion_that_is_repeated_after_a_rollback_pushes_what_is_in_production_now(
    releases: Releases, servers: FakeServers
) -> None:
    promote(releases, "1")
    promote(releases, "2")
    roll_back(releases)
    releases.promote("q2", FREE)
    assert (servers.pushed[-1].version, servers.pushed[-1].epoch) == ("1", 5)


def test_a_live_server_takes_what_is_pushed_while_its_registry_is_down(
    store: ReleaseStore, registry: FakeRegistry, keys: KeyFolder, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "cache", key_folder=keys.folder)
    with running(settings, registry) as url, httpx.Client(base_url=url) as client:
        releases = Releases(store, registry, keys, servers=Servers((url,)))
        promote(releases, "1")
        promote(releases, "2")
        until_version(client, MODEL, "2")
        registry.down = True
        assert roll_back(releases) == [f"{url}: serves version 1 since epoch 5", LATER]
        assert client.get(f"/v1/models/{MODEL}").headers["x-model-epoch"] == "5"
