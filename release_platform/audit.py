"""Looks at one model in every system but Dagster, for `domain.invariants` to judge. Nothing is changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_platform.adapters.mlflow_tracking import SNAPSHOTS_TAG, MlflowTracking
from release_platform.adapters.model_package import load_package
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.serving_client import ServingClient
from release_platform.adapters.signing import TrustedKeys
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.adapters.trust import bundles_in, certified
from release_platform.adapters.version_tags import DIGEST_TAG
from release_platform.domain.assessed import Kept, must_name
from release_platform.domain.attestation import SIGNATURE_TAG, check_version_statement
from release_platform.domain.errors import IntegrityError, NotFound, Refused, ReleaseError
from release_platform.domain.observation import (
    Observation,
    RegistryView,
    RunView,
    ServerView,
    SnapshotView,
    StoreView,
)
from release_platform.domain.ports import Registry
from release_platform.domain.projection import Shown
from release_platform.proofs import FACT as SELFTEST
from release_platform.releases import Releases


def observe(releases: Releases, model: str) -> Observation:
    """Returns what store and registry hold of a model: all that the rules of a release are about.

    Raises:
        Unavailable: One of them does not answer.
    """
    store, registry = observe_store(releases.store, model), _registry(releases, model)
    named = {version: facts.get(SELFTEST) for version, facts in registry.signed.items()}
    return Observation(
        model=model,
        store=store,
        registry=registry,
        files=_files(releases.registry, store, model),
        proofs={version: releases.proofs.fault_of(model, str(proof)) for version, proof in named.items() if proof},
    )


def observe_store(store: ReleaseStore, model: str) -> StoreView:
    """Returns what the release store holds of a model."""
    requests, rows = store.requests(model), store.ledger(model)
    return StoreView(
        head=store.head(model),
        projected_epoch=store.projected_epoch(model),
        rows=rows,
        registrations=store.registrations(model),
        removed=store.removed(model),
        requests=requests,
        approvals=tuple(approval for request in requests for approval in store.approvals(request.request_id)),
        policies=store.policies(),
        tracked=store.tracking(model),
        replays=store.replays.all_of(model),
        assessments={row.evidence: _kept(store, row.evidence) for row in rows if must_name(row) and row.evidence},
    )


def _kept(store: ReleaseStore, digest: str) -> Kept:
    try:
        return Kept(value=store.assessments.find(digest))
    except IntegrityError:
        return Kept(problem="was changed in the release store")


def with_lineage(seen: Observation, tracking: MlflowTracking, snapshots: SnapshotStore) -> Observation:
    """Returns the observation with the MLflow runs and the data that versions come from."""
    runs = {r.mlflow_run_id: _run(tracking, r.mlflow_run_id) for r in seen.store.present}
    uris_of = {r.version: _uris(runs[r.mlflow_run_id]) for r in seen.store.present if not runs[r.mlflow_run_id].problem}
    uris = sorted({uri for of_version in uris_of.values() for uri in of_version.values()})
    return replace(seen, runs=runs, snapshots_of=uris_of, snapshots={uri: _snapshot(snapshots, uri) for uri in uris})


def with_servers(seen: Observation, urls: Sequence[str], api_key: str = "") -> tuple[Observation, tuple[str, ...]]:
    """Returns the observation with the servers that answer, and a sentence for each that does not."""
    servers, away = [], []
    for url in urls:
        try:
            with ServingClient(url, timeout_s=5.0, api_key=api_key) as client:
                servers.append(_server(url, client.status(), seen.model))
        except (ReleaseError, KeyError, TypeError, AttributeError) as error:
            away.append(error.problem if isinstance(error, ReleaseError) else f"{url} gives no status of models")
    return replace(seen, servers=tuple(servers)), tuple(away)


def _server(url: str, status: Mapping[str, Any], model: str) -> ServerView:
    entry = status["models"].get(model) or {}
    version, digest, epoch = (entry.get(name) for name in ("version", "digest", "epoch"))
    if not isinstance(epoch, int | None):
        raise TypeError("an epoch is a number")
    refusal = (entry.get("refusal") or {}).get("reason")
    return ServerView(url=url, version=version, digest=digest, epoch=epoch, refusal=refusal)


def _registry(releases: Releases, model: str) -> RegistryView:
    found = releases.projection.deviations(model)
    shown = releases.registry.shown(model)
    keys = releases.keys.trusted()
    signed, unsigned = _signatures(releases.registry, model, shown, keys)
    return RegistryView(
        shown=shown,
        listed=model in releases.registry.models(),
        deviations=found,
        certificates=certified(model, bundles_in(shown), keys),
        signed=signed,
        unsigned=unsigned,
        platform_tag=DIGEST_TAG,
    )


def _signatures(
    registry: Registry, model: str, shown: Shown, keys: TrustedKeys
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Returns what the signature of each version vouches for, and why those of the others do not verify."""
    signed, unsigned = {}, {}
    for version, tags in shown.tags.items():
        try:
            record = registry.get_version(model, version)
            statement = keys.verify(tags.get(SIGNATURE_TAG, ""))
            check_version_statement(statement, record.manifest, model=model, version=version)
            signed[version] = statement["predicate"]["release"]
        except (IntegrityError, NotFound) as error:
            unsigned[version] = error.problem.removeprefix(f"{model} version {version}: ")
    return signed, unsigned


def _files(registry: Registry, store: StoreView, model: str) -> dict[str, str]:
    return {r.version: _files_problem(registry, model, r.version) for r in store.present}


def _files_problem(registry: Registry, model: str, version: str) -> str:
    with TemporaryDirectory() as folder:
        try:
            load_package(Path(folder), registry.fetch(model, version, Path(folder)).manifest)
        except NotFound:
            return ""  # that it was deleted is told by the projection
        except (IntegrityError, Refused) as error:
            return error.problem.removeprefix(f"{Path(folder).name}: ").removeprefix(f"{model} version {version}: ")
    return ""


def _run(tracking: MlflowTracking, run_id: str) -> RunView:
    try:
        run = tracking.get_run(run_id)
    except NotFound:
        return RunView(run_id=run_id, problem="is gone")
    problem = "was deleted" if run.info.lifecycle_stage != "active" else ""
    return RunView(run_id=run_id, problem=problem, tags=dict(run.data.tags))


def _uris(run: RunView) -> dict[str, str]:
    try:
        return {str(key): str(uri) for key, uri in json.loads(run.tags.get(SNAPSHOTS_TAG, "{}")).items()}
    except (ValueError, AttributeError, RecursionError):  # somebody edited the tag: it names no data
        return {}


def _snapshot(snapshots: SnapshotStore, uri: str) -> SnapshotView:
    try:
        snapshot = snapshots.get(uri)
        snapshots.verify(snapshot)
    except IntegrityError as error:
        return SnapshotView(problem=error.problem)
    return SnapshotView(digest=snapshot.digest)
