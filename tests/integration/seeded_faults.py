"""What an outsider or an accident does to a release, and what the audit must say of it: each fault with its findings.

The history that they are done to: version 1 staged and promoted (epochs 1, 2), version 2 staged and promoted (3, 4),
rolled back to 1 (5) and to 2 again (6), version 3 staged (7). Version 2 is in Production, 1 is previous, 3 in Staging.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
from mlflow import MlflowClient

from release_platform.defs.naming import asset_key
from release_platform.domain.ledger import LedgerRow, genesis, sealed
from tests.integration.homes import Home

MODEL = "diabetes"
Seen = tuple[int, str, str]


@dataclass(frozen=True)
class Fault:
    """One fault: how it is done, and every finding that it must give: invariant, subject, how the problem begins."""

    do: Callable[[Home], None]
    findings: tuple[Seen, ...]


FAULTS: dict[str, Fault] = {}
"""By name, in the order of this file."""


def fault(*findings: Seen) -> Callable[[Callable[[Home], None]], Callable[[Home], None]]:
    """Registers a fault under the name of the function that does it."""

    def register(do: Callable[[Home], None]) -> Callable[[Home], None]:
        FAULTS[do.__name__.replace("_", " ")] = Fault(do, findings)
        return do

    return register


def store_sql(home: Home, *statements: str) -> None:
    """Runs statements on the release store as its owner can: without the triggers that protect the ledger."""
    _sql(
        home.folder / "release.db",
        "DROP TRIGGER IF EXISTS ledger_no_update",
        "DROP TRIGGER IF EXISTS ledger_no_delete",
        *statements,
    )


def mlflow_sql(home: Home, *statements: str) -> None:
    _sql(home.folder / "mlflow.db", *statements)


def _sql(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def registry(home: Home) -> MlflowClient:
    return MlflowClient(home.services.settings.tracking_uri)


def file_of(home: Home, version: str, name: str = "model.onnx") -> Path:
    uri = registry(home).get_model_version_download_uri(MODEL, version)
    return Path(uri.removeprefix("file://")) / name


def registration(home: Home, version: str):
    found = home.services.store.find_registration(MODEL, version)
    assert found is not None
    return found


def snapshot_of(home: Home, version: str) -> Path:
    (uri,) = home.services.tracking.snapshots_of(registration(home, version).mlflow_run_id).values()
    return Path(uri)


def set_tag(home: Home, version: str, name: str, value: str) -> None:
    registry(home).set_model_version_tag(MODEL, version, name, value)


def report(home: Home, stage: str, **metadata: str | int) -> None:
    """Reports a materialization by hand, as the button in Dagster does."""
    event = dg.AssetMaterialization(asset_key(MODEL, stage), metadata=metadata)
    home.instance.report_runless_asset_event(event)


def write_ledger(home: Home, rows: list[LedgerRow]) -> None:
    """Writes the whole ledger anew, each row sealed and chained, and the head to it."""
    chained: list[LedgerRow] = []
    for row in rows:
        previous = chained[-1].hash if chained else genesis(MODEL)
        chained.append(sealed(replace(row, previous_hash=previous)))
    store_sql(home, "DELETE FROM ledger")
    head = json.dumps(chained[-1].after)
    with closing(sqlite3.connect(home.folder / "release.db")) as connection, connection:
        for row in chained:
            values = {name: json.dumps(v) if isinstance(v, dict) else v for name, v in row.to_json().items()}
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(f"INSERT INTO ledger ({', '.join(map(_quoted, values))}) VALUES ({marks})", values)
        connection.execute(
            "UPDATE heads SET epoch = ?, projected_epoch = ?, state = ?", (len(chained), len(chained), head)
        )


def _quoted(name: str) -> str:
    return f'"{name}"'
