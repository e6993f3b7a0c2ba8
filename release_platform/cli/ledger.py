"""`release who-served` and `release ledger`: what an auditor asks."""

import json as json_module
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from release_platform.cli.console import out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import DataError, IntegrityError, NotFound
from release_platform.domain.ledger import LedgerRow, faults, standing_at

ledger = typer.Typer(help="Verify or export the ledger of releases.", no_args_is_help=True)


def who_served(
    model: Model,
    at: Annotated[
        str, typer.Option("--at", help="A moment, ISO 8601; without an offset it is UTC.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Say which version was in Production at a moment, who put it there and why.

    Example:

        release who-served flight_delay --at 2026-03-01T12:00
    """
    from release_platform.cli import running

    running.project(model)
    moment = _moment(at)
    rows = running.services().store.ledger(model)
    row = standing_at(rows, moment)
    version = row.after["production"] if row else None
    if row is None or version is None:
        raise NotFound(
            f"{model}: nothing was in Production at {moment.isoformat()}", remedy=f"`release history {model}`"
        )
    put = [r for r in rows if r.epoch <= row.epoch and r.version == version and r.after["production"] == version][-1]
    if json:
        show_json({"model": model, "at": moment.isoformat(), "version": version, "by": put.to_json()})
        return
    out.print(f"{model}: version {version} ({put.digest}), by {put.actor} since {put.at}: {put.reason}", soft_wrap=True)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"'{text}' is not an ISO 8601 time", remedy="write it like 2026-03-01T12:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@ledger.command("verify")
def verify(
    model: Annotated[str | None, typer.Argument(help="Name of the model; default: all.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="An exported ledger to verify instead, offline.")] = None,
) -> None:
    """Check every row and the chain of hashes; names each row that was edited, deleted, moved or added.

    Examples:

        release ledger verify

        release ledger verify --file ledger.jsonl
    """
    found: list[str] = []
    ledgers = _from_file(file) if file else _from_store(model)
    for name, rows in ledgers.items():
        found += faults(name, rows)
        out.print(f"{name}: {len(rows)} row(s), head {rows[-1].hash if rows else 'none'}", soft_wrap=True)
    if found:
        raise IntegrityError("\n".join(found), remedy="compare with an exported ledger or a backup; tell your auditor")
    out.print("no fault")


@ledger.command("export")
def export(model: Model) -> None:
    """Print a model's ledger as JSON lines, verifiable anywhere with `release ledger verify --file`.

    Example:

        release ledger export flight_delay > ledger.jsonl
    """
    for row in _from_store(model)[model]:
        typer.echo(json_module.dumps(row.to_json(), sort_keys=True))


def _from_store(model: str | None) -> dict[str, list[LedgerRow]]:
    from release_platform.cli import running

    store = running.services().store
    if model is not None:
        running.project(model)
    return {name: list(store.ledger(name)) for name in ([model] if model else store.models())}


def _from_file(file: Path) -> dict[str, list[LedgerRow]]:
    found: dict[str, list[LedgerRow]] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = LedgerRow.from_json(json_module.loads(line))
            found.setdefault(row.model, []).append(row)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file}: not an exported ledger ({error})", remedy="`release ledger export MODEL` writes one"
        ) from None
    return found
