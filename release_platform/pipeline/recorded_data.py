"""The raw data that a version was trained on, proven to be that data, or named where it is not."""

from collections.abc import Mapping

import pandas as pd

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.domain.errors import IntegrityError
from release_platform.domain.fingerprint import Fingerprint, differences, fingerprint
from release_platform.domain.records import RawData
from release_platform.domain.snapshot import Snapshot
from release_platform.pipeline.ingest import columns_of, joined

_RESTORE = "restore the file from a backup, then reproduce again"


def read_recorded(store: SnapshotStore, addresses: Mapping[str, str], registered: str) -> pd.DataFrame:
    """Returns the raw data of a version; every value was held against the fingerprint that was registered.

    Args:
        store: Where the snapshots are.
        addresses: Their addresses as the training run names them, by partition.
        registered: The fingerprint of the raw data that the release store has of the version.

    Raises:
        IntegrityError: The data is gone, or another: names snapshot, column and block of rows.
        Unavailable: The store does not answer.
    """
    snapshots = {key: store.get(uri) for key, uri in addresses.items()}
    found = RawData(snapshots=snapshots).fingerprint if snapshots else "none"
    if found != registered:
        raise IntegrityError(
            f"data: the training run names snapshots with the fingerprint {found}, but the version was registered with "
            f"{registered}",
            remedy="find out who changed the tag release.snapshots of the MLflow run, or the snapshots' records",
        )
    return joined([_proven(store, snapshots[key]) for key in sorted(snapshots)])


def _proven(store: SnapshotStore, snapshot: Snapshot) -> pd.DataFrame:
    try:
        frame = store.read(snapshot)
    except IntegrityError as error:
        raise IntegrityError(f"data: {error.problem}{_what_changed(store, snapshot)}", remedy=_RESTORE) from error
    if changes := _changes(snapshot, frame):  # whoever changed file and record alike
        raise IntegrityError(
            f"data: {snapshot.uri} and its record were changed together: {'; '.join(changes)}", remedy=_RESTORE
        )
    return frame


def _what_changed(store: SnapshotStore, snapshot: Snapshot) -> str:
    try:
        frame = store.read_as_found(snapshot.uri)
    except IntegrityError:
        return ""
    return ": " + ("; ".join(_changes(snapshot, frame)) or "its values are the recorded ones, written in other bytes")


def _changes(snapshot: Snapshot, frame: pd.DataFrame) -> tuple[str, ...]:
    recorded: Fingerprint = snapshot.fingerprint
    given = {column.name: column.source for column in recorded.columns}
    return differences(recorded, fingerprint(columns_of(frame, given), n_rows=len(frame)))
