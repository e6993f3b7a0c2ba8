"""A real operators' API over a real store and real packages, on a thread of the test, and keys for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import uvicorn
import yaml
from fastapi import FastAPI

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.key_ring import KeyRing
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.api.app import create_app
from release_platform.definitions import EXAMPLES
from release_platform.domain.api_keys import Scope
from release_platform.domain.policy_spec import PolicySpec
from release_platform.releases import Releases
from release_platform.rollouts import Rollouts
from release_platform.services import Services
from release_platform.settings import Settings
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import on_a_thread
from tests.fakes.servers import FakeServers
from tests.unit.test_policy import REGISTRATION

MODEL = "cancer"
KEYS = {
    "ada": Scope.OPERATOR,
    "grace": Scope.OPERATOR,
    "reader": Scope.READ,
    "client": Scope.PREDICT,
    "admin": Scope.ADMIN,
}
POLICY = PolicySpec(current_baseline=False, approvals=1)


@dataclass(frozen=True)
class Operators:
    """A platform of one model, and the address of its operators' API."""

    folder: Path
    releases: Releases
    app: FastAPI
    url: str = ""
    names: dict[str, str] = field(default_factory=dict)

    @property
    def key_file(self) -> ApiKeyFile:
        return ApiKeyFile(self.folder / "api-keys.json")

    def key(self, name: str, *scopes: Scope, **more: Any) -> str:
        """Returns the key of a name, made on first use; without scopes it is an operator's."""
        if name not in self.names:
            self.names[name] = self.key_file.create(name, scopes or (Scope.OPERATOR,), **more)[1]
        return self.names[name]

    def stage(self, version: str) -> None:
        """Registers a version and moves Staging to it."""
        record = self.releases.registry.get_version(MODEL, version)
        recorded = self.releases.record(
            record,
            replace(REGISTRATION, model=MODEL, version=version, digest=record.digest, registered_at=datetime.now(UTC)),
            {"commit": "c"},
        )
        self.releases.stage(recorded, actor="trainer", reason="gates passed", key=f"sha256:{version}")

    def promote(self, version: str) -> None:
        """Moves a version to Production, as two people and the sensor do."""
        self.stage(version)
        request = self.releases.request(MODEL, version=version, actor="ada", reason="better")
        self.releases.approve(request.request_id, actor="grace", reason="read it", policy=POLICY)
        self.releases.promote(request.request_id, POLICY)

    @property
    def production(self) -> str | None:
        return self.releases.store.head(MODEL).production


def write_model(models: Path, name: str = MODEL) -> None:
    """Writes the `defs.yaml` of a model, with a policy that asks for one approval."""
    described = yaml.safe_load((EXAMPLES / "breast_cancer" / "defs.yaml").read_text())
    described["attributes"] |= {"name": name, "policy": {"approvals": 1, "current_baseline": False}}
    (models / name).mkdir(parents=True, exist_ok=True)
    for package in (models, models / name):
        (package / "__init__.py").touch()
    (models / name / "defs.yaml").write_text(yaml.safe_dump(described))


@contextmanager
def running_api(folder: Path, packages: dict[tuple[str, str], Path]) -> Iterator[Operators]:
    """Yields a platform whose operators' API answers; it knows `KEYS`, and within seconds those that are made later."""
    write_model(folder / "models")
    store = ReleaseStore(f"sqlite:///{folder / 'release.db'}")
    registry = FakeRegistry(packages, signs=False)
    servers = FakeServers("http://replica")
    releases = Releases(store, registry, KeyFolder(folder / "keys"), servers=cast(Any, servers))
    file = ApiKeyFile(folder / "api-keys.json")
    names = {name: file.create(name, [scope])[1] for name, scope in KEYS.items()}
    settings = Settings(home=folder, models=folder / "models")
    rollouts = Rollouts(releases, servers)
    services = SimpleNamespace(
        settings=settings, server_urls=settings.serving_urls, store=store, releases=releases, rollouts=rollouts
    )
    app = create_app(cast(Services, services), KeyRing(folder / "api-keys.json"))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    with on_a_thread(uvicorn.Server(config)) as url:
        yield Operators(folder, releases, app, url, names)
    store.close()


def client_of(operators: Operators, name: str = "") -> httpx.Client:
    """Returns a client that shows the key of a name; of nobody without one."""
    headers = {"authorization": f"Bearer {operators.key(name)}"} if name else {}
    return httpx.Client(base_url=operators.url, headers=headers, timeout=30)


def secret_of(key: str) -> bytes:
    """Returns the secret in the text of a key, `mrp_<id>_<secret>`; an underscore may stand in the secret too."""
    return key.split("_", 2)[2].encode()
