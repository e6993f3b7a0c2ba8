"""The lineage of a version, gathered from the release store, MLflow, the snapshots and Dagster.

Only the release store must answer: it knows whether there is such a version. Of every other system the lineage shows
what it has, and says what it could not ask.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from release_platform.domain.attestation import CERTIFICATE_TAG, Certificate
from release_platform.domain.errors import IntegrityError, NotFound, ReleaseError
from release_platform.domain.evidence import EvaluationReport, Measurement
from release_platform.domain.ledger import LedgerRow, alias_of, certificate_of
from release_platform.domain.lineage import (
    Account,
    CertifiedMove,
    DagsterView,
    Lineage,
    RunLink,
    described_source,
    disagreements,
    judged,
    metric_account,
    run_account,
    snapshot_account,
    store_account,
    version_account,
)
from release_platform.domain.policy import Registration, binding
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.ports import VersionRecord
from release_platform.domain.snapshot import Snapshot
from release_platform.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import Run

Found = TypeVar("Found")
NOTHING_SEEN = DagsterView(trained=None, evaluated=None, stages=(), runs=(), accounts={})


class History(Protocol):
    """Dagster's account of versions; behind a port, since Dagster stays in its rooms."""

    def view(self, of: Registration, rows: Sequence[LedgerRow], request_ids: Sequence[str]) -> DagsterView:
        """Returns what Dagster knows of a version. Raises a `ReleaseError` when it does not answer."""


@dataclass
class _Gathered:
    """What was found so far, and what could not be asked."""

    accounts: dict[str, Account] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def asking(self, whom: str) -> "Iterator[None]":
        """Notes a system that does not answer, and goes on without it."""
        try:
            yield
        except ReleaseError as error:
            self.missing.append(f"{whom}: {error.problem}")


def find_version(services: Services, model: str, version: str | None) -> Registration:
    """Returns what was recorded of a version; without one, of that in Production, else of that in Staging.

    Raises:
        NotFound: There is no such version.
    """
    head = services.store.head(model)
    wanted = version or head.production or head.staging
    found = services.store.find_registration(model, wanted or "")
    if found is None:
        raise NotFound(
            f"{model}: there is no version {wanted or 'yet'}",
            remedy=f"`release history {model}` lists its versions; `release run {model}` makes one",
        )
    return found


def trace(services: Services, of: Registration, policy: PolicySpec, history: History) -> Lineage:
    """Returns the lineage of a version.

    Args:
        services: The outside systems.
        of: The version.
        policy: The model's policy, which says whether an approval is valid now.
        history: Dagster's account.
    """
    store, gathered = services.store, _Gathered(accounts={"the release store": store_account(of)})
    rows = tuple(row for row in store.ledger(of.model) if row.version == of.version)
    requests = tuple(request for request in store.requests(of.model) if request.version == of.version)
    ids = [*(request.request_id for request in requests), *(row.request_id for row in rows)]
    run, record = _from_mlflow(services, of, gathered)
    seen = NOTHING_SEEN
    with gathered.asking("Dagster"):
        seen = history.view(of, rows, list(dict.fromkeys(ids)))
    gathered.accounts |= seen.accounts
    metrics = _metrics(run, seen, gathered.accounts)
    data = _snapshots(services, _addresses(run, seen), gathered)
    head = store.head(of.model)
    return Lineage(
        registration=of,
        stands=tuple(alias.value for alias, version in head.aliases.items() if version == of.version),
        source=_source(services, record, gathered) if record else {},
        data=data,
        features=seen.trained.features.snapshot if seen.trained else None,
        n_training_rows=_n_training_rows(run, seen),
        n_held_out_rows=seen.trained.features.n_held_out_rows if seen.trained else None,
        environment=_environment(run, seen),
        parameters=dict(sorted(run.data.params.items())) if run else {},
        metrics=metrics,
        moves=tuple(CertifiedMove(row=row, certificate=_certificate(services, row, record)) for row in rows),
        requests=requests,
        approvals=tuple(
            judged(approval, request, binding(of, policy))
            for request in requests
            for approval in store.approvals(request.request_id)
        ),
        stages=seen.stages,
        runs=(*seen.runs, *([_run_link(services, of, run)] if run else ())),
        links=_links(services, of, run, seen),
        disagreements=disagreements(gathered.accounts),
        missing=tuple(gathered.missing),
    )


def _from_mlflow(
    services: Services, of: Registration, gathered: _Gathered
) -> tuple["Run | None", VersionRecord | None]:
    run: Run | None = None
    record: VersionRecord | None = None
    with gathered.asking("MLflow"):
        run = _or_none(lambda: services.tracking.get_run(of.mlflow_run_id))
        record = _or_none(lambda: services.registry.get_version(of.model, of.version))
        gathered.accounts["MLflow's run"] = _run_account(of, run)
        gathered.accounts["MLflow's version"] = version_account(record) if record else {"digest": None}
    return run, record


def _or_none(ask: Callable[[], Found]) -> Found | None:
    try:
        return ask()
    except NotFound:
        return None


def _run_account(of: Registration, run: "Run | None") -> Account:
    if run is None or run.info.lifecycle_stage == "deleted":
        return {"MLflow run": None}
    inputs = [used.dataset for used in (run.inputs.dataset_inputs if run.inputs else [])]
    ours = [str(data.digest) for data in inputs if data.name == f"{of.model}/raw_data"]
    return run_account(of.mlflow_run_id, run.data.tags, ours)


def _metrics(run: "Run | None", seen: DagsterView, accounts: dict[str, Account]) -> dict[str, Measurement]:
    logged = dict(run.data.metrics) if run else {}
    found = {name: Measurement(value=value, n_rows=0) for name, value in sorted(logged.items()) if _is_finite(value)}
    if seen.evaluated is None:
        return found
    report = EvaluationReport.from_json(seen.evaluated.report)
    same_run = run is not None and any(
        made.stage == "evaluation_report" and made.run_id == run.data.tags.get("dagster_run_id") for made in seen.stages
    )
    if same_run:  # an evaluation in a later Dagster run logs into an MLflow run of its own
        measured = {name: m.value for name, m in report.quality.items()} | dict(report.operational)
        accounts["the evaluation report"] = metric_account(measured)
        accounts["MLflow's metrics"] = {f: _logged(logged, f) for f in accounts["the evaluation report"]}
    operational = {n: Measurement(value=v, n_rows=0) for n, v in report.operational.items()}
    return found | operational | dict(report.quality)


def _logged(logged: Mapping[str, float], fact: str) -> str | None:
    value = logged.get(fact.removeprefix("metric "))
    return None if value is None else repr(float(value))


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def _addresses(run: "Run | None", seen: DagsterView) -> dict[str, str]:
    if seen.trained is not None:
        return {key: stored.uri for key, stored in seen.trained.features.raw.items()}
    tag = run.data.tags.get("release.snapshots", "{}") if run else "{}"
    found: dict[str, str] = json.loads(tag)
    return found


def _snapshots(services: Services, addresses: Mapping[str, str], gathered: _Gathered) -> dict[str, Snapshot]:
    with gathered.asking("data snapshots"):
        found = {key: services.snapshots.get(uri) for key, uri in addresses.items()}
        gathered.accounts["the stored snapshots"] = snapshot_account({key: s.digest for key, s in found.items()})
        return found
    return {}


def _source(services: Services, record: VersionRecord, gathered: _Gathered) -> dict[str, str]:
    with gathered.asking("the version's spec"):
        described = json.loads(services.registry.read_file(record, "release.json")).get("spec") or {}
        return described_source(described["source"]) if "source" in described else {}
    return {}


def _n_training_rows(run: "Run | None", seen: DagsterView) -> int | None:
    if seen.trained is not None:
        return seen.trained.features.n_training_rows
    rows = run.data.metrics.get("training_rows") if run else None
    return None if rows is None else int(rows)


def _environment(run: "Run | None", seen: DagsterView) -> dict[str, str]:
    if seen.trained is not None:
        return dict(sorted(seen.trained.environment.items()))
    tags = run.data.tags if run else {}
    return {name.removeprefix("env."): value for name, value in sorted(tags.items()) if name.startswith("env.")}


def _certificate(services: Services, row: LedgerRow, record: VersionRecord | None) -> str:
    """Returns what became of the certificate of a move: a version keeps only the last one for each alias."""
    if record is None:
        return "unknown: the registry does not show the version"
    shown = record.tags.get(CERTIFICATE_TAG + alias_of(row.move).value)
    if shown is None:
        return "absent"
    try:
        certificate = Certificate.from_statement(services.keys.trusted().verify(shown))
    except IntegrityError as error:
        return f"not valid: {error.problem}"
    if certificate == certificate_of(row):
        return "valid"
    if certificate.epoch > row.epoch:
        return f"replaced by that of epoch {certificate.epoch}"
    return f"not valid: it is of epoch {certificate.epoch}"


def _run_link(services: Services, of: Registration, run: "Run") -> RunLink:
    return RunLink(
        system="mlflow",
        job="training",
        run_id=of.mlflow_run_id,
        status=str(run.info.status) + (", deleted" if run.info.lifecycle_stage == "deleted" else ""),
        at=datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC),
        link=f"{services.settings.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/{of.mlflow_run_id}",
    )


def _links(services: Services, of: Registration, run: "Run | None", seen: DagsterView) -> dict[str, str]:
    mlflow, dagster = services.settings.mlflow_url, services.settings.dagster_url
    found = {
        "dagster_run": f"{dagster}/runs/{of.dagster_run_id}",
        "dagster_asset": f"{dagster}/assets/{of.model}/registered_version",
        "mlflow_model_version": f"{mlflow}/#/models/{of.model}/versions/{of.version}",
    }
    if of.baseline is not None:
        found["mlflow_compared_with"] = f"{mlflow}/#/models/{of.model}/versions/{of.baseline}"
    if run is not None:
        experiment = f"{mlflow}/#/experiments/{run.info.experiment_id}"
        found |= {"mlflow_experiment": experiment, "mlflow_run": f"{experiment}/runs/{of.mlflow_run_id}"}
        if seen.trained is not None:
            found["mlflow_logged_model"] = f"{experiment}/models/{seen.trained.model_id}"
    return found
