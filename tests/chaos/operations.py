"""What the platform does, as operations that can be cut off and repeated, and the states that they start from."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder, key_id
from release_platform.defs.registration import register_version
from release_platform.domain.fingerprint import fingerprint
from release_platform.domain.identity import Manifest, digest_of
from release_platform.domain.policy import PromotionRequest, Ready, RequestState
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.records import Evaluated, FeatureTable, TrainedModel
from release_platform.domain.snapshot import Snapshot
from release_platform.releases import Releases
from release_platform.settings import Settings
from tests.unit.test_policy import REGISTRATION

MODEL = "cancer"
POLICY = PolicySpec(approvals=1, current_baseline=False)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one platform lives: a folder with the packages that can be registered, and a release store."""

    home: Path
    store_url: str

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def packages(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "packages.json").read_text()))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The outside parts of a platform; a test may wrap them."""

    place: Place
    store: Any
    registry: Any
    keys: Any

    @property
    def releases(self) -> Releases:
        return Releases(self.store, self.registry, self.keys)


def open_parts(place: Place) -> Parts:
    """Returns the real parts."""
    return Parts(
        place=place,
        store=ReleaseStore(place.store_url),
        registry=MlflowRegistry(place.tracking_uri),
        keys=KeyFolder(place.home / "keys"),
    )


def log_package(
    place: Place, store: ReleaseStore, name: str, folder: Path, manifest: Manifest, artifacts: Path
) -> None:
    """Logs a package to MLflow as a training would, and keeps what a registration needs."""
    tracking = MlflowTracking(place.tracking_uri, artifacts.as_uri(), store)
    run_id = tracking.open_run(MODEL, f"dagster-{name}", {})
    logged = {"run_id": run_id, "model_id": tracking.log_package(MODEL, run_id, folder, {})}
    file = place.home / "packages.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, name: {**logged, "manifest": manifest.to_json()}}))


def evaluated(place: Place, name: str) -> Evaluated:
    """Returns the record of an evaluation, as the asset before the registration hands it on."""
    logged = place.packages[name]
    data = fingerprint((), n_rows=0)
    snapshot = Snapshot(uri="data.parquet", fingerprint=data, n_rows=0, size_bytes=1)
    features = FeatureTable(
        snapshot=snapshot,
        raw_fingerprint=data.digest,
        raw={},
        n_training_rows=0,
        n_held_out_rows=0,
        golden_inputs={},
    )
    trained = TrainedModel(
        mlflow_run_id=logged["run_id"],
        model_id=logged["model_id"],
        model_digest=digest_of(name),
        manifest=Manifest.from_json(logged["manifest"]),
        parity_difference=0.0,
        onnx_note="",
        features=features,
        code_version=digest_of("code"),
        dagster_run_id=f"dagster-{name}",
        environment={"git_commit": "c", "lock": "l"},
    )
    return Evaluated(trained=trained, report={"model": MODEL, "baseline": None}, report_digest=digest_of(["r", name]))


def register(parts: Parts, name: str) -> None:
    """Registers and stages what was evaluated, as the asset `registered_version` does."""
    of = evaluated(parts.place, name)
    services: Any = SimpleNamespace(registry=parts.registry, releases=parts.releases, settings=Settings())
    registration = register_version(services, f"dagster-{name}", of, REGISTRATION.gates)
    key = digest_of([registration.report_digest, registration.digest])
    parts.releases.stage(registration, actor="ada", reason="every blocking gate passed", key=key)


def request(parts: Parts, request_id: str, version: str) -> None:
    parts.releases.request(MODEL, version=version, actor="ada", reason="better", request_id=request_id)


def approve(parts: Parts, request_id: str) -> None:
    parts.releases.approve(request_id, actor="grace", reason="read it", policy=POLICY)


def tick(parts: Parts) -> None:
    """Decides and carries out what is open, as the sensor and its runs do."""
    releases = parts.releases
    releases.projection.reconcile(MODEL, undo=True)
    for found in parts.store.requests(MODEL, RequestState.OPEN):
        if isinstance(releases.decide(found, POLICY), Ready):
            releases.promote(found.request_id, POLICY)


def promote(parts: Parts, request_id: str) -> None:
    found = parts.store.get_request(request_id)
    if isinstance(parts.releases.decide(found, POLICY), Ready):
        parts.releases.promote(request_id, POLICY)


def rollback(parts: Parts, request_id: str, to: str | None = None) -> None:
    parts.releases.rollback(MODEL, to=to, actor="ada", reason="it hurts", request_id=request_id)


def refuse(parts: Parts, request_id: str) -> None:
    parts.releases.decide(parts.store.get_request(request_id), POLICY)


def rotate(parts: Parts) -> None:
    """Puts a new key in the place of every other one."""
    mine = key_id(parts.keys.signer().public_key)
    if mine in (parts.place.home / "first-key").read_text():
        mine = key_id(parts.keys.rotate().public_key)
    for other in parts.keys.trusted().ids:
        if other != mine:
            parts.releases.distrust_key(other, [MODEL])


# States


def make_staged(parts: Parts) -> None:
    """Version 1 is in Staging, and its approved request is open."""
    register(parts, "first")
    request(parts, "q1", "1")
    approve(parts, "q1")


def make_grown(parts: Parts) -> None:
    """Production went from 1 to 2, version 3 is in Staging; open: an approved request, one that waits, one too many."""
    promote(parts, "q1")
    for name, version in (("second", "2"), ("third", "3")):
        register(parts, name)
        request(parts, f"q{version}", version)
        approve(parts, f"q{version}")
        if version == "2":
            promote(parts, "q2")
    request(parts, "waits", "3")
    late = PromotionRequest(
        request_id="late", model=MODEL, version="2", actor="ada", reason="again", requested_at=datetime.now(UTC)
    )
    parts.store.open_request(late)
    (parts.place.home / "first-key").write_text(key_id(parts.keys.signer().public_key))


def make_disturbed(parts: Parts) -> None:
    """Somebody moved an alias and edited a tag of the grown state."""
    parts.registry.set_alias(MODEL, "production", "1")
    parts.registry.set_tag(MODEL, "3", "release.git_commit", "forged")


STATES: dict[str, tuple[str, Callable[[Parts], None]]] = {
    "staged": ("blank", make_staged),
    "grown": ("staged", make_grown),
    "disturbed": ("grown", make_disturbed),
}


# Operations


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        name: Its name.
        start: The state that it starts from.
        run: Does it.
        done: Returns whether its effect is there.
    """

    name: str
    start: str
    run: Callable[[Parts], None]
    done: Callable[[Parts], bool]


def _state_of(parts: Parts, request_id: str) -> RequestState:
    return RequestState(parts.store.get_request(request_id).state)


def _is_production(parts: Parts, version: str) -> bool:
    return bool(parts.store.head(MODEL).production == version)


OPERATIONS = (
    Operation(
        name="first registration",
        start="blank",
        run=lambda parts: register(parts, "first"),
        done=lambda parts: parts.store.head(MODEL).staging is not None,
    ),
    Operation(
        name="registration",
        start="grown",
        run=lambda parts: register(parts, "fourth"),
        done=lambda parts: bool(parts.store.head(MODEL).staging not in {None, "3"}),
    ),
    Operation(
        name="request",
        start="grown",
        run=lambda parts: request(parts, "mine", "3"),
        done=lambda parts: _state_of(parts, "mine") is RequestState.OPEN,
    ),
    Operation(
        name="approval",
        start="grown",
        run=lambda parts: approve(parts, "waits"),
        done=lambda parts: len(parts.store.approvals("waits")) >= 1,
    ),
    Operation(
        name="first promotion",
        start="staged",
        run=lambda parts: promote(parts, "q1"),
        done=lambda parts: _is_production(parts, "1") and _state_of(parts, "q1") is RequestState.PROMOTED,
    ),
    Operation(
        name="promotion",
        start="grown",
        run=lambda parts: promote(parts, "q3"),
        done=lambda parts: _is_production(parts, "3") and _state_of(parts, "q3") is RequestState.PROMOTED,
    ),
    Operation(
        name="refusal",
        start="grown",
        run=lambda parts: refuse(parts, "late"),
        done=lambda parts: _state_of(parts, "late") is RequestState.REFUSED,
    ),
    Operation(
        name="sensor",
        start="disturbed",
        run=tick,
        done=lambda parts: _is_production(parts, "3") and _state_of(parts, "waits") is RequestState.REFUSED,
    ),
    Operation(
        name="rollback",
        start="grown",
        run=lambda parts: rollback(parts, "back"),
        done=lambda parts: _is_production(parts, "1"),
    ),
    Operation(
        name="rollback to a version",
        start="grown",
        run=lambda parts: rollback(parts, "back", "1"),
        done=lambda parts: _is_production(parts, "1"),
    ),
    Operation(
        name="key rotation",
        start="grown",
        run=rotate,
        done=lambda parts: len(parts.keys.trusted().ids) == 1,
    ),
)
