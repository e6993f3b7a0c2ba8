"""What Dagster knows of a version: the very materializations that made it, followed back by what they say, and runs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from release_platform.defs.data import WHOLE
from release_platform.defs.naming import STAGES, asset_key
from release_platform.defs.promotion import REQUEST_TAG
from release_platform.defs.resources import decode
from release_platform.domain.errors import Unavailable
from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lineage import (
    Account,
    DagsterView,
    Materialization,
    RunLink,
    report_account,
    snapshot_account,
    trained_account,
)
from release_platform.domain.policy import Registration
from release_platform.domain.records import Evaluated, TrainedModel

PAGE = 50


class DagsterHistory:
    """Dagster's account of versions.

    Args:
        open_instance: Opens the Dagster instance.
        url: Where Dagster's web server answers, for links.
    """

    def __init__(self, open_instance: Callable[[], dg.DagsterInstance], url: str) -> None:
        self._open = open_instance
        self._url = url

    def view(self, of: Registration, rows: Sequence[LedgerRow], request_ids: Iterable[str]) -> DagsterView:
        """Returns what Dagster knows of a version.

        Args:
            of: The version.
            rows: Its rows of the ledger.
            request_ids: The requests for it.

        Raises:
            Unavailable: Dagster's storage does not answer, or what it holds cannot be read.
        """
        with _dagster_errors(), self._open() as instance:
            found = _Followed(instance, of)
            promoted = [made for row in rows if (made := _production(instance, row))]
            runs = _runs(instance, request_ids, [record.run_id for record in (*found.records, *promoted)])
            return DagsterView(
                trained=found.trained,
                evaluated=found.evaluated,
                stages=tuple(self._shown(instance, record, runs) for record in (*found.records, *promoted)),
                runs=tuple(self._run_link(run) for run in runs.values()),
                accounts=found.accounts(),
            )

    def _shown(
        self, instance: dg.DagsterInstance, record: dg.EventLogRecord, runs: dict[str, dg.RunRecord]
    ) -> Materialization:
        made, run_id = _made(record), record.run_id
        run = runs.get(run_id)
        place = "/".join(made.asset_key.path)
        return Materialization(
            stage=made.asset_key.path[-1],
            partition=made.partition,
            run_id=run_id,
            job=run.dagster_run.job_name if run else "",
            storage_id=record.storage_id,
            started_at=_step_start(instance, record),
            at=_moment(record.timestamp),
            link=f"{self._url}/assets/{place}?view=events&asOf={int(record.timestamp * 1000)}",
            ledger_hash=_metadata(record, "ledger_hash") or "",
        )

    def _run_link(self, record: dg.RunRecord) -> RunLink:
        run = record.dagster_run
        return RunLink(
            system="dagster",
            job=run.job_name,
            run_id=run.run_id,
            status=run.status.value,
            at=record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC),
            link=f"{self._url}/runs/{run.run_id}",
            request=run.tags.get(REQUEST_TAG, ""),
        )


class _Followed:
    """The materializations of one version, found backwards: each by what the one after it names."""

    def __init__(self, instance: dg.DagsterInstance, of: Registration) -> None:
        self._instance, self._of = instance, of
        self.registered = self._find("registered_version", None, version=of.version)
        self._evaluation = self._find("evaluation_report", self.registered, report_digest=of.report_digest)
        self._training = self._find("trained_model", self._evaluation, mlflow_run_id=of.mlflow_run_id)
        self.evaluated: Evaluated | None = decode(_made(self._evaluation)) if self._evaluation else None
        self.trained: TrainedModel | None = decode(_made(self._training)) if self._training else None
        wanted = self.trained.features if self.trained else None
        self._features = self._find("features", self._training, fingerprint=wanted.snapshot.digest) if wanted else None
        self._raw = {
            key: self._find("raw_data", self._features, partition=key, fingerprint=stored.digest)
            for key, stored in (wanted.raw.items() if wanted else ())
        }

    @property
    def records(self) -> list[dg.EventLogRecord]:
        """Those that there are, in the order of the stages."""
        found = [*self._raw.values(), self._features, self._training, self._evaluation, self.registered]
        return [record for record in found if record is not None]

    def accounts(self) -> dict[str, Account]:
        """Returns what each materialization says; one that is gone is a fact without a value."""
        there = {_made(record).asset_key.path[-1] for record in self.records}
        found: dict[str, Account] = {
            "Dagster": {f"materialization of {stage}": None for stage in STAGES[:-1] if stage not in there}
        }
        if self._raw and all(self._raw.values()):
            digests = {key: str(_metadata(record, "fingerprint")) for key, record in self._raw.items() if record}
            found["Dagster's raw_data"] = snapshot_account(digests)
        if self._features is not None:
            found["Dagster's features"] = {"data fingerprint": _metadata(self._features, "raw_fingerprint")}
        if self.trained is not None and self._training is not None:
            found["Dagster's trained_model"] = trained_account(self.trained)
            found["Dagster's run of it"] = {"training run": self._training.run_id}
        if self.evaluated is not None:
            found["Dagster's evaluation_report"] = report_account(EvaluationReport.from_json(self.evaluated.report))
        if self.registered is not None:
            found["Dagster's registered_version"] = self._registered_account(self.registered)
        return found

    def _registered_account(self, record: dg.EventLogRecord) -> Account:
        account: dict[str, str | None] = {"digest": _metadata(record, "digest")}
        if record.run_id == self._of.dagster_run_id:  # a run that was cut off and repeated leaves the repeat's only
            account["registering run"] = record.run_id
        return account

    def _find(
        self, stage: str, before: dg.EventLogRecord | None, *, partition: str = WHOLE, **named: str
    ) -> dg.EventLogRecord | None:
        key = asset_key(self._of.model, stage)
        other = None
        for record in _newest_first(self._instance, key, partition, before):
            if all(_metadata(record, name) == value for name, value in named.items()):
                if stage != "registered_version" or record.run_id == self._of.dagster_run_id:
                    return record
                other = other or record
        return other


def _newest_first(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, before: dg.EventLogRecord | None
) -> Iterator[dg.EventLogRecord]:
    wanted = dg.AssetRecordsFilter(
        asset_key=key,
        asset_partitions=None if partition == WHOLE else [partition],
        before_storage_id=before.storage_id if before else None,
    )
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(wanted, limit=PAGE, cursor=cursor)
        yield from page.records
        cursor, more = page.cursor, page.has_more


def _production(instance: dg.DagsterInstance, row: LedgerRow) -> dg.EventLogRecord | None:
    key = asset_key(row.model, "production_version")
    records = _newest_first(instance, key, WHOLE, None)
    return next((record for record in records if _metadata(record, "ledger_hash") == row.hash), None)


def _runs(instance: dg.DagsterInstance, request_ids: Iterable[str], run_ids: Sequence[str]) -> dict[str, dg.RunRecord]:
    filters = [dg.RunsFilter(tags={REQUEST_TAG: request_id}) for request_id in request_ids]
    found = instance.get_run_records(dg.RunsFilter(run_ids=sorted(set(run_ids)))) if run_ids else []
    found = [*found, *(record for wanted in filters for record in instance.get_run_records(wanted))]
    return {record.dagster_run.run_id: record for record in sorted(found, key=lambda r: r.create_timestamp)}


def _step_start(instance: dg.DagsterInstance, record: dg.EventLogRecord) -> datetime | None:
    step = record.event_log_entry.step_key
    stats = instance.get_run_step_stats(record.run_id, [step]) if step else []
    return next((_moment(of.start_time) for of in stats if of.start_time), None)


def _made(record: dg.EventLogRecord) -> dg.AssetMaterialization:
    made = record.asset_materialization
    assert made is not None
    return made


def _metadata(record: dg.EventLogRecord, name: str) -> str | None:
    found: Any = _made(record).metadata.get(name)
    return None if found is None else str(found.value)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)


@contextmanager
def _dagster_errors() -> Iterator[None]:
    try:
        yield
    except (dg.DagsterError, SQLAlchemyError, ValidationError, OSError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0][:300]
        raise Unavailable(
            f"Dagster's instance does not answer, or cannot be read: {type(error).__name__}: {first}",
            remedy="check DAGSTER_HOME and the database that its dagster.yaml names",
        ) from error
