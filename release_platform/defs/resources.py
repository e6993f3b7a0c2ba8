"""What assets and jobs are given: the platform's services, records between assets, and dagster-mlflow's resource."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dagster as dg
from dagster._core.execution.context.init import InitResourceContext
from dagster_mlflow import mlflow_tracking
from pydantic import PrivateAttr, TypeAdapter

from release_platform.adapters.mlflow_client import as_mlflow_default
from release_platform.domain import records
from release_platform.domain.errors import Refused
from release_platform.domain.snapshot import Snapshot
from release_platform.services import Services
from release_platform.settings import Settings

RECORD = "record"
RECENT = 20  # how many materializations are looked through for that of the own run
PARTITIONS_TAG = "release/partitions"
"""Tag of a run that is to use these partitions only, `first:last`, both included; without it all there are."""

_TYPES: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        records.RawData,
        records.FeatureTable,
        records.TrainedModel,
        records.Evaluated,
        records.RegisteredVersion,
    )
}


class Platform(dg.ConfigurableResource[Services]):
    """The platform's services, from the environment's settings, opened once for each process."""

    _services: Services | None = PrivateAttr(default=None)

    @property
    def services(self) -> Services:
        """The services."""
        if self._services is None:
            self._services = Services(Settings())
        return self._services


release_progress = dg.LoggerDefinition(
    lambda context: logging.getLogger("release.progress"),
    description="Hands a run's events to whoever watches it in this process.",
)


class Records(dg.ConfigurableIOManager):
    """Hands records from asset to asset through the materializations themselves.

    A record is metadata of the event that made it, so what an asset reads is exactly what its lineage shows. An input
    is the newest materialization of the upstream asset; within a run that is the run's own.
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Writes the record into the materialization."""
        context.add_output_metadata({RECORD: encode(obj)})

    def load_input(self, context: dg.InputContext) -> object:
        """Returns the record of the upstream asset; for partitioned raw data one record of all its partitions."""
        if context.has_asset_partitions:
            return self._all_partitions(context)
        return latest_record(context.instance, context.asset_key, run_id=context.step_context.run_id)[0]

    def _all_partitions(self, context: dg.InputContext) -> records.RawData:
        snapshots: dict[str, Snapshot] = {}
        first, _, last = (context.step_context.get_tag(PARTITIONS_TAG) or "").partition(":")
        known = context.asset_partitions_def.get_partition_keys(dynamic_partitions_store=context.instance)
        made = context.instance.get_materialized_partitions(context.asset_key) & set(known)
        for key in sorted(made):
            if first and not first <= key <= last:
                continue
            found, _ = latest_record(
                context.instance, context.asset_key, partition=key, run_id=context.step_context.run_id
            )
            assert isinstance(found, records.RawData)
            snapshots.update(found.snapshots)
        if not snapshots:
            raise _never_materialized(context.asset_key)
        return records.RawData(snapshots=snapshots)


def encode(record: object) -> dg.JsonMetadataValue:
    """Returns a record as metadata."""
    name = type(record).__name__
    return dg.MetadataValue.json({"kind": name, "value": _TYPES[name].dump_python(record, mode="json")})


def latest_record(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, partition: str | None = None, run_id: str | None = None
) -> tuple[Any, int]:
    """Returns the newest record of an asset and the storage id of its materialization; that of a run if it made one.

    Raises:
        Refused: The asset was never materialized.
    """
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=None if partition is None else [partition])
    found = instance.fetch_materializations(wanted, limit=1 if run_id is None else RECENT).records
    found = [record for record in found if record.run_id == run_id] or found
    if not found or found[0].asset_materialization is None:
        raise _never_materialized(key)
    return decode(found[0].asset_materialization), found[0].storage_id


def partition_tags(months: Sequence[str] | None) -> dict[str, str]:
    """Returns the tags of a run over these partitions, in order; none for a model without partitions."""
    if months is None:
        return {}
    return {
        "dagster/asset_partition_range_start": months[0],
        "dagster/asset_partition_range_end": months[-1],
        PARTITIONS_TAG: f"{months[0]}:{months[-1]}",
    }


def decode(made: dg.AssetMaterialization) -> Any:
    """Returns the record that a materialization holds."""
    value: Any = made.metadata[RECORD].value
    return _TYPES[value["kind"]].validate_python(value["value"])


def _never_materialized(key: dg.AssetKey) -> Refused:
    return Refused(
        f"{key.to_user_string()} was never materialized",
        remedy=f"materialize it first, or run the whole release with `release run {key.path[0]}`",
    )


def build_fluent_tracking(model: str, tracking_uri: str) -> dg.ResourceDefinition:
    """Returns dagster-mlflow's resource for one model's training asset, as a context manager for the asset's body.

    Within it MLflow's fluent interface (`mlflow.log_*`, autologging, callbacks) writes into the run of this Dagster run
    and model. That run is opened by ours first, so dagster-mlflow finds it by its tag and never starts a second one.
    Afterwards no run is active: Dagster opens the resources of all models of a run at once and keeps them to its end,
    so one that stayed active would take what other assets and models log.
    """

    def tracked(context: InitResourceContext) -> Callable[[], AbstractContextManager[Any]]:
        @contextmanager
        def fluent() -> Iterator[Any]:
            import mlflow

            if context.run is None:
                raise Refused("dagster-mlflow works inside runs only", remedy="launch a job or materialize the asset")
            context.resources.platform.services.tracking.open_run(
                model, context.run.run_id, {"dagster.job": context.run.job_name}
            )
            start: Any = mlflow_tracking.resource_fn
            with as_mlflow_default(tracking_uri):
                try:
                    yield from start(context)
                finally:
                    # The true status is set when the Dagster run ends; this only detaches the process from the run.
                    while mlflow.active_run() is not None:
                        mlflow.end_run("RUNNING")

        return fluent

    definition = dg.ResourceDefinition(
        tracked, config_schema=mlflow_tracking.config_schema, required_resource_keys={"platform"}
    )
    return definition.configured({"experiment_name": model, "mlflow_tracking_uri": tracking_uri})
