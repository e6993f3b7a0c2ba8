"""Where a version comes from, as one value, and whether the systems that recorded it tell the same story.

Each system gives an *account*: what it says of a fact, by the fact's name. None means that it should say it and has
nothing; a fact that is not in an account was not asked of that system.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from release_platform.domain.evidence import EvaluationReport, Measurement
from release_platform.domain.fingerprint import combined
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.policy import Approval, PromotionRequest, Registration, same_person
from release_platform.domain.ports import VersionRecord
from release_platform.domain.records import Evaluated, TrainedModel
from release_platform.domain.snapshot import Snapshot

Account = Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialization:
    """One materialization of a stage in Dagster.

    Attributes:
        stage: The asset's last name, e.g. `raw_data`.
        partition: Its partition; None for the whole asset.
        run_id: The Dagster run that made it.
        job: The job of that run; empty where the run is gone.
        storage_id: Its number in Dagster's event log.
        started_at: When its step began; None where Dagster does not say.
        at: When it was made.
        link: Where Dagster's web interface shows it.
        ledger_hash: Hash of the ledger row that it shows; empty for all stages but `production_version`.
    """

    stage: str
    partition: str | None
    run_id: str
    job: str
    storage_id: int
    started_at: datetime | None
    at: datetime
    link: str
    ledger_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLink:
    """A run in Dagster or in MLflow: what it was for, how it ended, and where it is shown."""

    system: str
    job: str
    run_id: str
    status: str
    at: datetime
    link: str
    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterView:
    """What Dagster knows of a version; its records are None where their materialization is gone."""

    trained: TrainedModel | None
    evaluated: Evaluated | None
    stages: tuple[Materialization, ...]
    runs: tuple[RunLink, ...]
    accounts: Mapping[str, Account]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedMove:
    """A ledger row of the version, and what became of its certificate."""

    row: LedgerRow
    certificate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalState:
    """An approval, and `valid` or why it is void."""

    approval: Approval
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Everything that is recorded of a version. What could not be asked is empty, and `missing` says so.

    Attributes:
        registration: What the release store recorded.
        stands: Where the version stands now: `staging`, `production`, `previous`.
        source: Where the raw data was read from, without passwords.
        data: The snapshots of the raw data, by partition.
        features: The snapshot of the feature table.
        n_training_rows: Rows that it was fitted on.
        n_held_out_rows: Rows that it was judged on.
        environment: Commit, lock, library versions, threads.
        parameters: The parameters of MLflow's run.
        metrics: The metrics, with intervals where the evaluation report has them.
        moves: Its rows of the ledger.
        requests: The promotion requests for it.
        approvals: The approvals of those.
        stages: Dagster's materializations, in the order of the stages.
        runs: The runs in both systems.
        links: Addresses in both web interfaces, by what they show.
        disagreements: A sentence for each fact that two systems tell differently.
        missing: A sentence for each part that could not be asked.
    """

    registration: Registration
    stands: tuple[str, ...]
    source: Mapping[str, str]
    data: Mapping[str, Snapshot]
    features: Snapshot | None
    n_training_rows: int | None
    n_held_out_rows: int | None
    environment: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, Measurement]
    moves: tuple[CertifiedMove, ...]
    requests: tuple[PromotionRequest, ...]
    approvals: tuple[ApprovalState, ...]
    stages: tuple[Materialization, ...]
    runs: tuple[RunLink, ...]
    links: Mapping[str, str]
    disagreements: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def consistent(self) -> bool | None:
        """Whether all systems tell the same; None when one could not be asked and the others agree."""
        if self.disagreements:
            return False
        return None if self.missing else True

    def to_json(self) -> dict[str, Any]:
        """Returns the lineage as a JSON value."""
        of = self.registration
        return {
            "model": of.model,
            "version": of.version,
            "stands": list(self.stands),
            "digest": of.digest,
            "model_digest": of.model_digest,
            "report_digest": of.report_digest,
            "registered_at": of.registered_at.isoformat(),
            "consistent": self.consistent,
            "disagreements": list(self.disagreements),
            "missing": list(self.missing),
            "data": self._data(),
            "code": {"code_version": of.code_version, **self.environment},
            "parameters": dict(self.parameters),
            "metrics": {name: measured(metric) for name, metric in self.metrics.items()},
            "gates": [gate.to_json() for gate in of.gates],
            "compared_with": of.baseline or "nothing: first release",
            "requests": [_json(request) for request in self.requests],
            "approvals": [_json(a.approval) | {"state": a.state} for a in self.approvals],
            "moves": [_move(move) for move in self.moves],
            "materializations": [_json(made) for made in self.stages],
            "runs": [_json(run) for run in self.runs],
            "links": dict(self.links),
        }

    def _data(self) -> dict[str, Any]:
        return {
            "source": dict(self.source),
            "fingerprint": self.registration.fingerprint,
            "training_rows": self.n_training_rows,
            "held_out_rows": self.n_held_out_rows,
            "features": None if self.features is None else _snapshot(self.features),
            "snapshots": [{"partition": key, **_snapshot(snapshot)} for key, snapshot in self.data.items()],
        }


def measured(metric: Measurement) -> dict[str, float]:
    """Returns a metric as a JSON value, without the interval and the rows that it has not."""
    return {
        name: value for name, value in asdict(metric).items() if value is not None and (name, value) != ("n_rows", 0)
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "uri": snapshot.uri,
        "fingerprint": snapshot.digest,
        "rows": snapshot.n_rows,
        "size_bytes": snapshot.size_bytes,
        "column_digests": len(snapshot.fingerprint.columns),
    }


def _move(move: CertifiedMove) -> dict[str, Any]:
    row = move.row
    kept = ("epoch", "actor", "reason", "at", "request_id", "evidence", "hash")
    return {"move": row.move.value, **{name: getattr(row, name) for name in kept}, "certificate": move.certificate}


def _json(value: Any) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(value).items()}


def judged(approval: Approval, request: PromotionRequest, bound_to: str) -> ApprovalState:
    """Returns an approval with its state: `bound_to` is what it must be bound to now (`policy.binding`)."""
    state = "valid"
    if same_person(approval.actor, request.actor):
        state = "void: by the requester"
    elif approval.binding != bound_to:
        state = "void: the model, its report or the policy is another one now"
    return ApprovalState(approval=approval, state=state)


def described_source(source: Mapping[str, Any]) -> dict[str, str]:
    """Returns where data was read from, from the `source` of a spec: the one that is given, without a password."""
    kind, where = next((kind, where) for kind, where in source.items() if where is not None)
    parts = {kind: where} if isinstance(where, str) else {f"{kind}.{name}": value for name, value in where.items()}
    return {name: re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", str(value)) for name, value in parts.items()}


# Accounts


def disagreements(accounts: Mapping[str, Account]) -> tuple[str, ...]:
    """Returns a sentence for each fact that two systems tell differently, or that one of them lost.

    Args:
        accounts: What each system says, by the system's name.
    """
    facts = dict.fromkeys(fact for account in accounts.values() for fact in account)
    found = []
    for fact in facts:
        said = {who: account[fact] for who, account in accounts.items() if fact in account}
        if None in said.values() or len(set(said.values())) > 1:
            found.append(f"{fact}: " + "; ".join(_said(who, value) for who, value in said.items()))
    return tuple(found)


def _said(who: str, value: str | None) -> str:
    return f"{who} has none" if value is None else f"{who} says {value}"


def mlflow_digest(fingerprint: str) -> str:
    """Returns a fingerprint as MLflow shows it among a run's inputs: it keeps 36 characters."""
    return fingerprint.removeprefix("sha256:")[:36]


def store_account(of: Registration) -> dict[str, str | None]:
    """Returns what the release store says of a version."""
    return {
        "digest": of.digest,
        "model digest": of.model_digest,
        "report digest": of.report_digest,
        "data fingerprint": of.fingerprint,
        "dataset digest": mlflow_digest(of.fingerprint),
        "code version": of.code_version,
        "compared with": of.baseline or "nothing",
        "MLflow run": of.mlflow_run_id,
        "registering run": of.dagster_run_id,
    }


def version_account(record: VersionRecord) -> dict[str, str | None]:
    """Returns what the registry says of a version."""
    tags = record.tags
    return {
        "digest": record.digest,
        "model digest": tags.get("release.model_digest"),
        "report digest": tags.get("release.report_digest"),
        "data fingerprint": tags.get("release.data_fingerprint"),
        "code version": tags.get("release.code_version"),
        "commit": tags.get("release.git_commit"),
        "MLflow run": record.run_id or None,
        "registering run": tags.get("dagster.run_id"),
    }


def run_account(run_id: str, tags: Mapping[str, str], datasets: Iterable[str]) -> dict[str, str | None]:
    """Returns what MLflow's training run says.

    An input's address is not compared: of two datasets of one name and digest MLflow keeps the first one's.

    Args:
        run_id: Its id.
        tags: Its tags.
        datasets: The digest of each of its inputs that is the model's raw data.
    """
    return {
        "MLflow run": run_id,
        "digest": tags.get("release.digest"),
        "model digest": tags.get("release.model_digest"),
        "data fingerprint": tags.get("release.data_fingerprint"),
        "dataset digest": ", ".join(sorted(set(datasets))) or None,
        "snapshots": _sorted(tags.get("release.snapshots")),
        "code version": tags.get("release.code_version"),
        "commit": tags.get("env.git_commit"),
        "lock": tags.get("env.lock"),
        "training run": tags.get("dagster_run_id"),
    }


def _sorted(text: str | None) -> str | None:
    try:
        return None if text is None else json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text


def trained_account(trained: TrainedModel) -> dict[str, str | None]:
    """Returns what Dagster's materialization of the trained model says."""
    features = trained.features
    return {
        "digest": trained.manifest.digest,
        "model digest": trained.model_digest,
        "data fingerprint": features.raw_fingerprint,
        "dataset digest": mlflow_digest(features.raw_fingerprint),
        "snapshots": json.dumps({key: data.uri for key, data in features.raw.items()}, sort_keys=True),
        "code version": trained.code_version,
        "commit": trained.environment.get("git_commit"),
        "lock": trained.environment.get("lock"),
        "MLflow run": trained.mlflow_run_id,
        "training run": trained.dagster_run_id,
    }


def report_account(report: EvaluationReport) -> dict[str, str | None]:
    """Returns what an evaluation report says."""
    return {
        "report digest": report.digest,
        "digest": report.package_digest,
        "model digest": report.model_digest,
        "data fingerprint": report.data_fingerprint,
        "compared with": report.baseline.version if report.baseline else "nothing",
    }


def metric_account(metrics: Mapping[str, float | None]) -> dict[str, str | None]:
    """Returns the metrics that were measured, each as a fact."""
    return {f"metric {name}": repr(float(value)) for name, value in metrics.items() if value is not None}


def snapshot_account(digests: Mapping[str, str]) -> dict[str, str | None]:
    """Returns what the raw data itself says, from the digest of each partition."""
    parts: Sequence[str] = list(digests.values())
    if not parts:
        return {}
    return {"data fingerprint": parts[0] if len(parts) == 1 else combined(digests)}
