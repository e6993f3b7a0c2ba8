"""What was seen of one model in every system, for the invariants to be checked on. None: it was not looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from release_platform.domain.assessed import Kept
from release_platform.domain.attestation import Certificate
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head
from release_platform.domain.policy import Approval, PromotionRequest, Registration
from release_platform.domain.projection import Deviation, Shown
from release_platform.domain.replay import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """The release store.

    Attributes:
        head: Where the versions stand.
        projected_epoch: The epoch that the aliases were last moved to.
        rows: The ledger, by epoch.
        registrations: What was recorded of each version.
        removed: The versions that were removed through the platform.
        requests: All promotion requests.
        approvals: All approvals of these requests.
        policies: The terms of each policy that something was promoted under, by its digest.
        tracked: The Dagster run of each MLflow run that the platform opened.
        replays: What every replay of the model showed, in the order in which they were made.
        assessments: What aborts and rollbacks by policy were decided on, by what their rows name as evidence.
    """

    head: Head
    projected_epoch: int
    rows: tuple[LedgerRow, ...]
    registrations: tuple[Registration, ...]
    removed: frozenset[str]
    requests: tuple[PromotionRequest, ...]
    approvals: tuple[Approval, ...]
    policies: Mapping[str, Mapping[str, Any]]
    tracked: Mapping[str, str]
    replays: tuple[Replay, ...] = ()
    assessments: Mapping[str, Kept] = field(default_factory=dict)

    @property
    def present(self) -> tuple[Registration, ...]:
        """The registrations of versions that were not removed."""
        return tuple(r for r in self.registrations if r.version not in self.removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryView:
    """The model registry.

    Attributes:
        shown: Aliases and tags.
        listed: Whether the model is among those that servers look for.
        deviations: Where they are not what the store says.
        certificates: Every certificate whose signature is valid.
        signed: What the signature of each version vouches for beside its files, by version.
        unsigned: Why the signature of a version does not verify, by version.
        platform_tag: The tag that a version of this platform has.
    """

    shown: Shown
    listed: bool
    deviations: tuple[Deviation, ...]
    certificates: tuple[Certificate, ...]
    signed: Mapping[str, Mapping[str, Any]]
    unsigned: Mapping[str, str]
    platform_tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run in MLflow or Dagster, as far as lineage needs it.

    Attributes:
        run_id: Its id.
        problem: Why it cannot stand as evidence, e.g. `was deleted`; empty when it can.
        tags: Its tags.
    """

    run_id: str
    problem: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """A stored data snapshot.

    Attributes:
        problem: What is wrong with it; empty for nothing.
        digest: Its fingerprint; empty when it cannot be read.
    """

    problem: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialized:
    """A materialization of registered_version or production_version: what Dagster shows of a release.

    Anyone who reaches Dagster may report one, with any content or with none.
    """

    version: str | int | None
    digest: str | int | None
    epoch: str | int | None = None
    ledger_hash: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterView:
    """Dagster's records.

    Attributes:
        runs: The run that registered each version, by run id.
        registered: Materializations of registered_version.
        moved: Materializations of production_version.
    """

    runs: Mapping[str, RunView]
    registered: tuple[Materialized, ...]
    moved: tuple[Materialized, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """What a live server says of the model; `version` is None when none is loaded.

    Attributes:
        url: Its address.
        version: The version that answers.
        digest: `D(v)` of it.
        epoch: The epoch that it accepted.
        refusal: Why it does not take the version that the registry names; None when it does.
    """

    url: str
    version: str | None
    digest: str | None
    epoch: int | None
    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One model, seen in every system that was looked at.

    Attributes:
        model: The model's name.
        store: The release store.
        registry: The registry.
        files: What is wrong with each version's files, by version; empty text for nothing.
        proofs: What is wrong with the selftest that a version's signature names, by version; empty text for nothing.
        snapshots: The data snapshots, by address.
        snapshots_of: The addresses of the raw data of each version, by partition.
        runs: The MLflow run of each version, by run id.
        dagster: Dagster's records.
        servers: The servers that answered.
    """

    model: str
    store: StoreView
    registry: RegistryView | None = None
    files: Mapping[str, str] | None = None
    proofs: Mapping[str, str] = field(default_factory=dict)
    snapshots: Mapping[str, SnapshotView] | None = None
    snapshots_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    runs: Mapping[str, RunView] | None = None
    dagster: DagsterView | None = None
    servers: tuple[ServerView, ...] = ()
