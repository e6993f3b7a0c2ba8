"""raw_data and features: what a model is trained on."""

from typing import Any

import dagster as dg

from release_platform.defs.naming import asset_key, stage_asset
from release_platform.defs.resources import Platform, encode, latest_record
from release_platform.domain.data_spec import PartitionSpec
from release_platform.domain.errors import IntegrityError
from release_platform.domain.features import ColumnType
from release_platform.domain.fingerprint import differences
from release_platform.domain.records import RawData
from release_platform.domain.snapshot import Snapshot
from release_platform.pipeline import ingest
from release_platform.pipeline.contract import check
from release_platform.pipeline.features import featurize
from release_platform.project import Project

WHOLE = "all"
MONTH_FORMAT = "%Y-%m"
_RAW_CODE = (
    "pipeline/sources.py",
    "pipeline/source_types.py",
    "pipeline/csv_files.py",
    "pipeline/database.py",
    "pipeline/files.py",
    "pipeline/memory.py",
    "pipeline/casting.py",
    "pipeline/contract.py",
    "pipeline/ingest.py",
    "domain/fingerprint.py",
)
_FEATURE_CODE = ("pipeline/features.py", "pipeline/split.py", "domain/features.py")
_COLUMN_TYPES = {
    ColumnType.NUMBER: "float64",
    ColumnType.INTEGER: "Int64",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.CATEGORY: "string",
    ColumnType.TIMESTAMP: "datetime64[us]",
}


def build_raw_data(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of immutable, content-addressed snapshots of the source."""
    spec = project.spec
    partitions = None if spec.partitions is None else monthly(spec.partitions)

    @stage_asset(
        project,
        "raw_data",
        kinds={"parquet", "pandas"},
        description="Immutable snapshot of the source; its contract holds.",
        modules=_RAW_CODE,
        attributes=("source", "contract", "partitions"),
        partitions_def=partitions,
        backfill_policy=None if partitions is None else dg.BackfillPolicy.single_run(),
    )
    def raw_data(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
        keys = list(context.partition_keys) if context.has_partition_key_range or context.has_partition_key else None
        found = ingest.ingest(spec, base=project.folder, store=platform.services.snapshots, partitions=keys)
        snapshots = {key or WHOLE: snapshot for key, snapshot in found.items()}
        for key, snapshot in snapshots.items() if keys else ():
            part = RawData(snapshots={key: snapshot})
            context.add_asset_metadata(_raw_metadata(context, project, part), context.asset_key, key)
        whole = RawData(snapshots=snapshots)
        return dg.MaterializeResult(
            value=whole,
            metadata={} if keys else _raw_metadata(context, project, whole),
            data_version=dg.DataVersion(whole.fingerprint),
        )

    return raw_data


def monthly(months: PartitionSpec) -> dg.TimeWindowPartitionsDefinition:
    """Returns Dagster's partitions of these months: each is one as soon as it is over, in UTC."""
    return dg.MonthlyPartitionsDefinition(
        start_date=months.start, end_date=months.until, timezone="UTC", fmt=MONTH_FORMAT
    )


def _raw_metadata(context: dg.AssetExecutionContext, project: Project, data: RawData) -> dict[str, Any]:
    ((key, snapshot),) = data.snapshots.items()
    return {
        "record": encode(data),
        "dagster/row_count": snapshot.n_rows,
        "dagster/column_schema": _schema(project),
        "dagster/uri": snapshot.uri,
        "fingerprint": data.fingerprint,
        "size_bytes": snapshot.size_bytes,
        "changed": dg.MetadataValue.md(_changes(context, key, snapshot)),
        **({"preview": dg.MetadataValue.md(snapshot.preview)} if snapshot.preview else {}),
    }


def _schema(project: Project) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=_COLUMN_TYPES[column.type],
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=column.unique),
            )
            for name, column in project.spec.contract.columns.items()
        ]
    )


def _changes(context: dg.AssetExecutionContext, key: str, snapshot: Snapshot) -> str:
    partition = None if key == WHOLE else key
    wanted = dg.AssetRecordsFilter(
        asset_key=context.asset_key, asset_partitions=None if partition is None else [partition]
    )
    if not context.instance.fetch_materializations(wanted, limit=1).records:
        return "first snapshot"
    before, _ = latest_record(context.instance, context.asset_key, partition=partition)
    found = differences(before.snapshots[key].fingerprint, snapshot.fingerprint)
    return "\n".join(f"- {sentence}" for sentence in found) or "the same data as last time"


def build_raw_data_check(project: Project) -> dg.AssetChecksDefinition:
    """Returns the check that the stored snapshots still are what their fingerprints say."""
    key = asset_key(project.spec.name, "raw_data")

    @dg.asset_check(
        asset=key,
        name="snapshot_intact",
        description="Every stored snapshot is read back: its bytes are those that were written.",
    )
    def snapshot_intact(raw_data: Any, platform: Platform) -> dg.AssetCheckResult:
        damaged = []
        for part, snapshot in raw_data.snapshots.items():
            try:
                platform.services.snapshots.verify(snapshot)
            except IntegrityError as error:
                damaged.append(f"{part}: {error.problem}")
        return dg.AssetCheckResult(passed=not damaged, metadata={"damaged": "; ".join(damaged) or "none"})

    return snapshot_intact


def build_features(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of the feature table: features, target, split and slices."""
    spec = project.spec

    @stage_asset(
        project,
        "features",
        kinds={"parquet", "pandas"},
        description="Features by the plan that serving applies too, target and split.",
        modules=_FEATURE_CODE,
        attributes=("features", "target", "split", "slices", "seed", "contract", "task"),
        ins={"raw_data": dg.AssetIn(key=asset_key(spec.name, "raw_data"))},
    )
    def features(raw_data: Any, platform: Platform) -> dg.MaterializeResult[Any]:
        frame = ingest.read_raw(platform.services.snapshots, raw_data.snapshots)
        if len(raw_data.snapshots) > 1:  # each held alone; together they may come from different readings
            check(frame, spec.contract, source=f"{spec.name}/raw_data, all partitions")
        record, table = featurize(frame, spec, raw_data, platform.services.snapshots)
        return dg.MaterializeResult(
            value=record,
            data_version=dg.DataVersion(record.snapshot.fingerprint.digest),
            metadata={
                "dagster/row_count": len(table),
                "dagster/uri": record.snapshot.uri,
                "training_rows": record.n_training_rows,
                "held_out_rows": record.n_held_out_rows,
                **({"partitions": ", ".join(sorted(record.raw))} if spec.partitions is not None else {}),
                "features": dg.MetadataValue.md(
                    "\n".join(f"- `{name}`: {kind}" for name, kind in spec.plan.types.items())
                ),
                "fingerprint": record.snapshot.fingerprint.digest,
                "raw_fingerprint": raw_data.fingerprint,
            },
        )

    return features
