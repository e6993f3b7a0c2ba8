"""`release who-served` and `release ledger`: what an auditor asks."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from release_platform.cli import remote
from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import DataError, IntegrityError, Unavailable
from release_platform.domain.ledger import LedgerRow, certified_faults, faults

if TYPE_CHECKING:
    from release_platform.adapters.signing import TrustedKeys

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
    api = remote.find_api()
    found = api.get(f"/v1/models/{remote.part(model)}/who-served", at=at) if api else _served_here(model, at)
    if json:
        show_json(found)
        return
    put = found["by"]
    said = (
        f"{model}: version {found['version']} ({put['digest']}), by {put['actor']} since {put['at']}: {put['reason']}"
    )
    out.print(said, markup=False, soft_wrap=True)


def _served_here(model: str, at: str) -> dict[str, Any]:
    from release_platform.cli import running
    from release_platform.standing import moment_of, served_at

    running.project(model)
    return served_at(running.services().store.ledger(model), model, moment_of(at))


@ledger.command("verify")
def verify(
    model: Annotated[str | None, typer.Argument(help="Name of the model; default: all.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="An exported ledger to verify instead, offline.")] = None,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="With --file: a public key to trust instead of this machine's.")
    ] = None,
) -> None:
    """Check every row, the chain of hashes, and the signed certificates that were made for rows.

    Names each row that was edited, deleted, moved or added. Rows that were cut off at the end, and a ledger that was
    written anew as a whole, are found by the certificates, which are kept in the model registry.

    Examples:

        release ledger verify

        release ledger verify --file ledger.jsonl --key auditor/trusted.pem
    """
    from release_platform.adapters.trust import certified

    if key and not file:
        raise typer.BadParameter("it goes with --file; the store is checked with the trusted keys", param_hint="--key")
    ledgers, trusted = _from_file(file, key or []) if file else _from_systems(model)
    found: list[str] = []
    for name, (rows, bundles) in ledgers.items():
        certificates = certified(name, bundles or (), trusted)
        found += (*faults(name, rows), *certified_faults(name, rows, certificates))
        if bundles and not certificates:
            hint = "; name the public key of the machine that releases with --key" if file else ""
            found.append(f"{name}: not one of its {len(bundles)} certificate(s) is by a key that is trusted here{hint}")
        newest = max((certificate.epoch for certificate in certificates), default=0)
        said = "its end is not checked" if bundles is None else f"certified to row {newest}"
        out.print(
            f"{name}: {len(rows)} row(s), {said}, head {rows[-1].hash if rows else 'none'}",
            markup=False,
            soft_wrap=True,
        )
    if found:
        raise IntegrityError("\n".join(found), remedy="compare with an exported ledger or a backup; tell your auditor")
    out.print("no fault")


@ledger.command("export")
def export(model: Model) -> None:
    """Print a model's ledger and certificates as JSON lines, verifiable anywhere with `release ledger verify --file`.

    Example:

        release ledger export flight_delay > ledger.jsonl
    """
    from release_platform.adapters.trust import bundles_in
    from release_platform.cli import running

    running.project(model)
    services = running.services()
    for row in services.store.ledger(model):
        typer.echo(json_module.dumps(row.to_json(), sort_keys=True))
    for bundle in bundles_in(services.registry.shown(model)):
        typer.echo(json_module.dumps({"model": model, "certificate": bundle}, sort_keys=True))


_Ledgers = dict[str, tuple[list[LedgerRow], tuple[str, ...] | None]]
"""The rows of each model, and what stands as certificates beside them; None where that is not known."""


def _from_systems(model: str | None) -> "tuple[_Ledgers, TrustedKeys]":
    from release_platform.adapters.trust import bundles_in
    from release_platform.cli import running

    if model is not None:
        running.project(model)
    services = running.services()
    found: _Ledgers = {}
    for name in [model] if model else services.store.models():
        bundles: tuple[str, ...] | None = None
        try:
            bundles = bundles_in(services.registry.shown(name))
        except Unavailable as error:
            err.print(f"the certificates are not compared: {error.problem}", style="yellow", markup=False)
        found[name] = (list(services.store.ledger(name)), bundles)
    return found, services.keys.trusted()


def _from_file(file: Path, keys: list[Path]) -> "tuple[_Ledgers, TrustedKeys]":
    from release_platform.adapters.signing import TrustedKeys, load_public_key
    from release_platform.cli import running

    rows: dict[str, list[LedgerRow]] = {}
    bundles: dict[str, list[str]] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            value = json_module.loads(line)
            if "certificate" in value:
                bundles.setdefault(value["model"], []).append(value["certificate"])
            else:
                rows.setdefault(value["model"], []).append(LedgerRow.from_json(value))
        named = [load_public_key(path.read_bytes()) for path in keys]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}", remedy="check the path") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file}: not an exported ledger, or no key ({error})", remedy="`release ledger export MODEL` writes one"
        ) from None
    if not rows and not bundles:
        raise DataError(f"{file}: holds no row of a ledger", remedy="`release ledger export MODEL` writes one")
    trusted = TrustedKeys(*named) if named else running.services().keys.trusted()
    return {
        name: (rows.get(name, []), tuple(bundles[name]) if name in bundles else None)
        for name in sorted({*rows, *bundles})
    }, trusted
