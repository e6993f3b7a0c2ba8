"""Garbage collection: removes versions, their files and data snapshots that nothing reaches, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.adapters.version_tags import find_manifest
from release_platform.domain.attestation import SIGNATURE_TAG
from release_platform.domain.errors import IntegrityError, NotFound
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.retention import expendable, paths
from release_platform.releases import Releases


class Kind(StrEnum):
    """What a piece of garbage is."""

    VERSION = "version"
    UNFINISHED = "unfinished removal"
    UNRECORDED = "unrecorded version"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One thing to remove.

    Attributes:
        kind: What it is.
        model: The model; empty for a snapshot, which may belong to several.
        name: The version's number, or the snapshot's address.
        why: Why nothing keeps it.
        size_bytes: How much room it takes.
    """

    kind: Kind
    model: str
    name: str
    why: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What garbage collection would remove, and why it leaves snapshots alone, if it does."""

    garbage: tuple[Garbage, ...]
    snapshots_kept: str = ""


class Collector:
    """Plans and removes.

    Args:
        releases: Store and registry.
        tracking: MLflow's runs, which name the data of each version.
        snapshots: The data.
        policies: The policy of each model; a model without one keeps all of its versions.
    """

    def __init__(
        self,
        releases: Releases,
        tracking: MlflowTracking,
        snapshots: SnapshotStore,
        policies: Mapping[str, PolicySpec],
    ) -> None:
        self._releases = releases
        self._tracking = tracking
        self._snapshots = snapshots
        self._policies = policies

    def plan(self, *, needed: frozenset[str] | None, now: datetime) -> Plan:
        """Returns what nothing reaches now; changes nothing.

        Args:
            needed: The addresses of the snapshots that Dagster's newest materializations name; None while runs are
                under way, whose snapshots are not known yet: then no snapshot is removed.
            now: The present moment.

        Raises:
            Unavailable: A system does not answer.
            IntegrityError: The registry holds a signed version that the release store does not know: one of the two is
                of another platform, or lost something. Nothing is garbage then.
        """
        garbage: list[Garbage] = []
        for model, policy in sorted(self._policies.items()):
            garbage += self._versions(model, policy, now)
            garbage += self._strays(model, now - timedelta(days=policy.keep_days))
        if needed is None:
            return Plan(
                garbage=tuple(garbage), snapshots_kept="Dagster runs are under way, their data is not known yet"
            )
        gone = {(one.model, one.name) for one in garbage}
        try:
            needed |= self._data_of_versions(gone)
        except NotFound as error:
            return Plan(garbage=tuple(garbage), snapshots_kept=f"a version's data is not known: {error.problem}")
        days = max((policy.keep_days for policy in self._policies.values()), default=0.0)
        return Plan(garbage=(*garbage, *self._unneeded(needed, now - timedelta(days=days))))

    def collect(self, one: Garbage, *, actor: str) -> None:
        """Removes one piece; again does nothing.

        Raises:
            Refused: Something reaches it by now.
        """
        match one.kind:
            case Kind.SNAPSHOT:
                self._snapshots.delete(one.name)
            case Kind.UNRECORDED | Kind.UNFINISHED:
                self._releases.registry.remove(one.model, one.name)
            case Kind.VERSION:
                self._releases.remove(one.model, one.name, actor=actor, reason=f"garbage collection: {one.why}")

    def _versions(self, model: str, policy: PolicySpec, now: datetime) -> list[Garbage]:
        store = self._releases.store
        removed = store.removed(model)
        present = [r for r in store.registrations(model) if r.version not in removed]
        reached = paths(store.head(model), store.requests(model))
        why = f"never in Production, older than {policy.keep_days:g} days and {policy.keep_versions} newer versions"
        return [
            Garbage(kind=Kind.VERSION, model=model, name=r.version, why=why, size_bytes=_size(r.tags))
            for r in expendable(present, reached, policy, now)
        ]

    def _strays(self, model: str, since: datetime) -> list[Garbage]:
        store = self._releases.store
        removed = store.removed(model)
        known = {registration.version for registration in store.registrations(model)}
        found = []
        for version, tags in sorted(self._releases.registry.shown(model).tags.items(), key=lambda item: int(item[0])):
            if version in removed:
                kind, why = Kind.UNFINISHED, "its removal was cut off"
            elif version not in known and SIGNATURE_TAG in tags:
                raise IntegrityError(
                    f"{model}: version {version} is signed, but the release store does not know it",
                    remedy="check that RELEASE_STORE_URL is the store of this registry; restore what it lost",
                )
            elif version not in known and find_manifest(tags) is not None and self._made(model, version) < since:
                kind, why = Kind.UNRECORDED, "its registration was cut off; the release store does not know it"
            else:
                continue
            found.append(Garbage(kind=kind, model=model, name=version, why=why, size_bytes=_size(tags)))
        return found

    def _made(self, model: str, version: str) -> datetime:
        return self._releases.registry.get_version(model, version).created_at

    def _data_of_versions(self, gone: set[tuple[str, str]]) -> frozenset[str]:
        found: set[str] = set()
        store = self._releases.store
        for model in store.models():
            removed = store.removed(model)
            for registration in store.registrations(model):
                if registration.version not in removed and (model, registration.version) not in gone:
                    found |= set(self._tracking.snapshots_of(registration.mlflow_run_id).values())
        return frozenset(found)

    def _unneeded(self, needed: frozenset[str], since: datetime) -> list[Garbage]:
        return [
            Garbage(
                kind=Kind.SNAPSHOT, model="", name=file.uri, why="no version was made of it", size_bytes=file.size_bytes
            )
            for file in self._snapshots.files()
            if file.uri not in needed and file.written_at < since
        ]


def _size(tags: Mapping[str, str]) -> int:
    manifest = find_manifest(tags)
    return 0 if manifest is None else manifest.size_bytes
