"""Which data Dagster still needs: what the newest materializations name."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import dagster as dg

from release_platform.defs.naming import STAGES
from release_platform.defs.resources import RECORD, decode
from release_platform.domain.snapshot import Snapshot, StoredData

_READ = STAGES[:4]
"""The stages whose records name snapshots."""


def needed_snapshots(instance: dg.DagsterInstance) -> frozenset[str] | None:
    """Returns the addresses of the snapshots that a run may read next; None while runs are under way."""
    if instance.get_runs_count(dg.RunsFilter(statuses=list(_UNDER_WAY))):
        return None
    found: set[str] = set()
    for key in instance.all_asset_keys():
        if len(key.path) == 2 and key.path[1] in _READ:
            for record in _newest(instance, key):
                found |= set(_addresses(record))
    return frozenset(found)


_UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[Any]:
    """Yields the newest record of an asset, of each of its partitions."""
    choices: list[list[str] | None] = [[partition] for partition in instance.get_materialized_partitions(key)]
    for chosen in choices or [None]:
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=chosen)
        for record in instance.fetch_materializations(wanted, limit=1).records:
            if record.asset_materialization is not None and RECORD in record.asset_materialization.metadata:
                yield decode(record.asset_materialization)


def _addresses(value: Any) -> Iterator[str]:
    if isinstance(value, Snapshot | StoredData):
        yield value.uri
    elif is_dataclass(value):
        for field in fields(value):
            yield from _addresses(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _addresses(item)
