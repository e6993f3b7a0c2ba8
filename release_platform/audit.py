"""Looks at one model in every system but Dagster, for `domain.invariants` to judge. Nothing is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.adapters.mlflow_registry import PLATFORM_TAG
from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.model_package import load_package
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.serving_client import ServingClient
from release_platform.adapters.signing import TrustedKeys
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.adapters.trust import bundles_in, certified
from release_platform.domain.attestation import SIGNATURE_TAG, check_version_statement
from release_platform.domain.errors import IntegrityError, NotFound, ReleaseError
from release_platform.domain.observation import Observation, RegistryView, RunView, ServerView, StoreView
from release_platform.domain.ports import Registry
from release_platform.domain.projection import Shown
from release_platform.releases import Releases


def observe(releases: Releases, model: str) -> Observation:
    """Returns what store and registry hold of a model: all that the rules of a release are about.

    Raises:
        Unavailable: One of them does not answer.
    """
    store = observe_store(releases.store, model)
    return Observation(
        model=model, store=store, registry=_registry(releases, model), files=_files(releases.registry, store, model)
    )


def observe_store(store: ReleaseStore, model: str) -> StoreView:
    """Returns what the release store holds of a model."""
    requests = store.requests(model)
    return StoreView(
        head=store.head(model),
        projected_epoch=store.projected_epoch(model),
        rows=store.ledger(model),
        registrations=store.registrations(model),
        removed=store.removed(model),
        requests=requests,
        approvals=tuple(approval for request in requests for approval in store.approvals(request.request_id)),
        policies=store.policies(),
        tracked=store.tracking(model),
    )


def with_lineage(seen: Observation, tracking: MlflowTracking, snapshots: SnapshotStore) -> Observation:
    """Returns the observation with the MLflow runs and the data that versions come from."""
    runs = {r.mlflow_run_id: _run(tracking, r.mlflow_run_id) for r in seen.store.present}
    uris_of = {
        r.version: tuple(tracking.snapshots_of(r.mlflow_run_id).values())
        for r in seen.store.present
        if not runs[r.mlflow_run_id].problem
    }
    uris = sorted({uri for of_version in uris_of.values() for uri in of_version})
    return replace(
        seen, runs=runs, snapshots_of=uris_of, snapshots={uri: _snapshot_problem(snapshots, uri) for uri in uris}
    )


def with_servers(seen: Observation, urls: Sequence[str]) -> tuple[Observation, tuple[str, ...]]:
    """Returns the observation with the servers that answer, and a sentence for each that does not."""
    servers, away = [], []
    for url in urls:
        try:
            with ServingClient(url, timeout_s=5.0) as client:
                entry = client.status()["models"].get(seen.model) or {}
        except (ReleaseError, KeyError) as error:
            away.append(error.problem if isinstance(error, ReleaseError) else f"{url} gives no status")
            continue
        servers.append(_server(url, entry))
    return replace(seen, servers=tuple(servers)), tuple(away)


def _server(url: str, entry: Mapping[str, object]) -> ServerView:
    refusal = entry.get("refusal")
    named = {name: entry.get(name) for name in ("version", "digest", "epoch")}
    return ServerView(url=url, refusal=refusal["reason"] if isinstance(refusal, Mapping) else None, **named)  # type: ignore[arg-type]


def _registry(releases: Releases, model: str) -> RegistryView:
    found = releases.projection.deviations(model)
    shown = releases.registry.shown(model)
    keys = releases.keys.trusted()
    return RegistryView(
        shown=shown,
        deviations=found,
        certificates=certified(model, bundles_in(shown), keys),
        unsigned=_unsigned(releases.registry, model, shown, keys),
        platform_tag=PLATFORM_TAG,
    )


def _unsigned(registry: Registry, model: str, shown: Shown, keys: TrustedKeys) -> dict[str, str]:
    found = {}
    for version, tags in shown.tags.items():
        try:
            record = registry.get_version(model, version)
            statement = keys.verify(tags.get(SIGNATURE_TAG, ""))
            check_version_statement(statement, record.manifest, model=model, version=version)
        except (IntegrityError, NotFound) as error:
            found[version] = error.problem
    return found


def _files(registry: Registry, store: StoreView, model: str) -> dict[str, str]:
    return {r.version: _files_problem(registry, model, r.version) for r in store.present}


def _files_problem(registry: Registry, model: str, version: str) -> str:
    with TemporaryDirectory() as folder:
        try:
            load_package(Path(folder), registry.fetch(model, version, Path(folder)).manifest)
        except NotFound:
            return ""  # that it was deleted is told by the projection
        except IntegrityError as error:
            return error.problem.removeprefix(f"{Path(folder).name}: ")
    return ""


def _run(tracking: MlflowTracking, run_id: str) -> RunView:
    try:
        run = tracking.get_run(run_id)
    except NotFound:
        return RunView(run_id=run_id, problem="is gone")
    problem = "was deleted" if run.info.lifecycle_stage != "active" else ""
    return RunView(run_id=run_id, problem=problem, tags=dict(run.data.tags))


def _snapshot_problem(snapshots: SnapshotStore, uri: str) -> str:
    try:
        snapshots.verify(snapshots.get(uri))
    except IntegrityError as error:
        return error.problem
    return ""
