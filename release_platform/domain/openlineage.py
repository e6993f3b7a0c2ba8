"""A lineage as OpenLineage run events, spec 2-0-2 (https://openlineage.io/spec/2-0-2/OpenLineage.json).

Each stage that Dagster materialized is a run of its own with a START and a COMPLETE event; its parent is the Dagster
run. A dataset keeps its name from version to version, and its `version` facet says which one it was. Facets of our own
start with `release_`, and point to the base schema that they follow, since no other describes them.
"""

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from release_platform.domain.lineage import Lineage, Materialization, measured
from release_platform.domain.snapshot import Snapshot

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
_FACETS = {
    "parent": "1-1-0/ParentRunFacet",
    "jobType": "2-0-3/JobTypeJobFacet",
    "jobRunParameters": "1-0-0/JobRunParametersFacet",
    "schema": "1-1-1/SchemaDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "dataSource": "1-0-1/DatasourceDatasetFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "dataQualityMetrics": "1-0-2/DataQualityMetricsInputDatasetFacet",
    "dataQualityAssertions": "1-0-1/DataQualityAssertionsDatasetFacet",
}
_ORDER = ("raw_data", "features", "trained_model", "evaluation_report", "registered_version", "production_version")
_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, "model-release-platform/openlineage")

WHOLE = "all"  # the key of data without partitions, see `RawData`

Json = dict[str, Any]


def run_events(lineage: Lineage, *, producer: str, namespace: str) -> tuple[Json, ...]:
    """Returns the events, in the order of the stages.

    Args:
        lineage: Of which version. Stages that Dagster did not show have no events.
        producer: The address that identifies what writes the events.
        namespace: The namespace of jobs and datasets, e.g. `dagster://127.0.0.1:3000`.
    """
    writer = _Writer(lineage=lineage, producer=producer, namespace=namespace)
    by_run = sorted(lineage.stages, key=lambda made: (_ORDER.index(made.stage), made.at, made.run_id))
    runs = [list(of) for _, of in groupby(by_run, key=lambda made: (made.stage, made.run_id, made.ledger_hash))]
    return tuple(event for of in runs for event in writer.stage(of))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    lineage: Lineage
    producer: str
    namespace: str

    def stage(self, made: Sequence[Materialization]) -> Iterable[Json]:
        """Returns the two events of one stage in one Dagster run; only raw data has several materializations in one."""
        first = made[0]
        begun = min(m.started_at or m.at for m in made)
        yield self._event("START", begun, first, inputs=[], outputs=[])
        inputs, outputs = self._datasets(first, [m.partition for m in made])
        yield self._event("COMPLETE", max(m.at for m in made), first, inputs=inputs, outputs=outputs)

    def _event(self, kind: str, at: datetime, made: Materialization, **datasets: list[Json]) -> Json:
        model = self.lineage.registration.model
        of_stage = uuid.uuid5(_RUNS, f"{made.run_id}/{model}/{made.stage}/{made.ledger_hash}")
        return {
            "eventType": kind,
            "eventTime": at.isoformat(),
            "producer": self.producer,
            "schemaURL": f"{SPEC}RunEvent",
            "run": {"runId": str(of_stage), "facets": self._run_facets(made)},
            "job": {"namespace": self.namespace, "name": f"{model}.{made.stage}", "facets": self._job_facets()},
            **datasets,
        }

    def _job_facets(self) -> Json:
        return {"jobType": self._facet("jobType", processingType="BATCH", integration="DAGSTER", jobType="ASSET")}

    def _run_facets(self, made: Materialization) -> Json:
        of, lineage = self.lineage.registration, self.lineage
        job = {"namespace": self.namespace, "name": made.job or "unknown"}
        facets = {
            "parent": self._facet("parent", run={"runId": _uuid(made.run_id)}, job=job),
            "release_dagster": self._own("Run", storageId=made.storage_id, url=made.link),
        }
        match made.stage:
            case "trained_model":
                code = {"codeVersion": of.code_version, **lineage.environment}
                parameters = [{"key": name, "value": value} for name, value in lineage.parameters.items()]
                facets["release_code"] = self._own("Run", **code)
                facets["jobRunParameters"] = self._facet("jobRunParameters", parameters=parameters)
            case "evaluation_report":
                metrics = {name: measured(metric) for name, metric in lineage.metrics.items()}
                facets["release_metrics"] = self._own("Run", metrics=metrics)
            case "production_version":
                facets["release_move"] = self._own("Run", **self._move(made))
        return facets

    def _move(self, made: Materialization) -> Json:
        move = next(move for move in self.lineage.to_json()["moves"] if move["hash"] == made.ledger_hash)
        approvals = [a for a in self.lineage.approvals if a.approval.request_id == move["request_id"]]
        return {**move, "approvedBy": [a.approval.actor for a in approvals if a.state == "valid"]}

    def _datasets(self, made: Materialization, partitions: Sequence[str | None]) -> tuple[list[Json], list[Json]]:
        """Returns what a stage read and what it made."""
        of, links = self.lineage.registration, self.lineage.links
        raw = {key: s for key, s in self.lineage.data.items() if key in partitions or None in partitions}
        model = self._dataset("trained_model", of.digest, links.get("mlflow_logged_model"))
        report = self._dataset("evaluation_report", of.report_digest, links.get("mlflow_run"))
        version = self._dataset("registered_version", of.version, links["mlflow_model_version"])
        match made.stage:
            case "raw_data":
                return [self._source()], [self._output(self._raw(key, s), s) for key, s in raw.items()]
            case "features":
                every = [self._input(self._raw(key, s), s) for key, s in self.lineage.data.items()]
                return every, [self._output(dataset, s) for dataset, s in self._features()]
            case "trained_model":
                return [self._input(dataset, s) for dataset, s in self._features()], [model]
            case "evaluation_report":
                return [*(self._input(dataset, s) for dataset, s in self._features()), model], [report]
            case "registered_version":
                return [model, self._judged(report)], [version]
            case _:
                return [version], [self._dataset("production_version", of.version, links["mlflow_model_version"])]

    def _source(self) -> Json:
        namespace, name = source_name(self.lineage.source)
        return {"namespace": namespace, "name": name, "facets": {}}

    def _raw(self, partition: str, snapshot: Snapshot) -> Json:
        name = "raw_data" if partition == WHOLE else f"raw_data/{partition}"
        return self._table(name, snapshot)

    def _features(self) -> list[tuple[Json, Snapshot]]:
        snapshot = self.lineage.features
        return [] if snapshot is None else [(self._table("features", snapshot), snapshot)]

    def _table(self, name: str, snapshot: Snapshot) -> Json:
        dataset = self._dataset(name, snapshot.digest, _address(snapshot.uri))
        fields = [{"name": column.name, "type": column.dtype} for column in snapshot.fingerprint.columns]
        dataset["facets"]["schema"] = self._facet("schema", fields=fields)
        return dataset

    def _dataset(self, name: str, version: str, address: str | None) -> Json:
        facets = {"version": self._facet("version", datasetVersion=version)}
        if address is not None:
            facets["dataSource"] = self._facet("dataSource", name=name, uri=address)
        return {"namespace": self.namespace, "name": f"{self.lineage.registration.model}/{name}", "facets": facets}

    def _output(self, dataset: Json, snapshot: Snapshot) -> Json:
        counts = {"rowCount": snapshot.n_rows, "size": snapshot.size_bytes}
        return {**dataset, "outputFacets": {"outputStatistics": self._facet("outputStatistics", **counts)}}

    def _input(self, dataset: Json, snapshot: Snapshot) -> Json:
        columns = {column.name: {"nullCount": column.n_missing} for column in snapshot.fingerprint.columns}
        counts = {"rowCount": snapshot.n_rows, "bytes": snapshot.size_bytes, "columnMetrics": columns}
        return {**dataset, "inputFacets": {"dataQualityMetrics": self._facet("dataQualityMetrics", **counts)}}

    def _judged(self, report: Json) -> Json:
        gates = [{"assertion": gate.gate, "success": gate.passed} for gate in self.lineage.registration.gates]
        return {
            **report,
            "inputFacets": {"dataQualityAssertions": self._facet("dataQualityAssertions", assertions=gates)},
        }

    def _facet(self, kind: str, **fields: Any) -> Json:
        place = _FACETS[kind]
        url = f"https://openlineage.io/spec/facets/{place}.json#/$defs/{place.split('/')[1]}"
        return {"_producer": self.producer, "_schemaURL": url, **fields}

    def _own(self, of: str, **fields: Any) -> Json:
        return {"_producer": self.producer, "_schemaURL": f"{SPEC}{of}Facet", **fields}


def source_name(source: Mapping[str, str]) -> tuple[str, str]:
    """Returns namespace and name of the source, by OpenLineage's naming of files, S3 objects and databases."""
    kind, where = next(iter(source.items()), ("unknown", "unknown"))
    if kind.startswith("sql"):
        return _database(source["sql.url"])
    if kind.startswith("package"):
        return "package", f"{source['package.package']}/{source['package.file']}"
    if where.startswith("s3://"):
        bucket, _, key = where.removeprefix("s3://").partition("/")
        return f"s3://{bucket}", key
    return ("file" if kind in {"csv", "parquet"} else kind), where


def _database(url: str) -> tuple[str, str]:
    if url.startswith("env:"):  # only the server's own environment knows it
        return "sql", url
    parts = urlsplit(re.sub(r"^postgresql(\+\w+)?:", "postgres:", url))
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}", parts.path.removeprefix("/") or "query"


def _address(uri: str) -> str:
    return PurePosixPath(uri).as_uri() if uri.startswith("/") else uri


def _uuid(run_id: str) -> str:
    """Returns a Dagster run's id: a UUID, unless somebody launched it under a name of his own."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return str(uuid.uuid5(_RUNS, run_id))
