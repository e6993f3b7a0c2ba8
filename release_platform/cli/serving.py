"""`release serve` and `release verify`: the live server, and proof that it answers as the registry's model does."""

import os
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model, key_in
from release_platform.cli.processes import apart_from_here
from release_platform.domain.errors import NotFound

if TYPE_CHECKING:
    from release_platform.adapters.live_verification import ServerReport
    from release_platform.verification import Verification

Port = Annotated[int, typer.Option("--port", help="Port on the loopback interface.")]


def serve(port: Port = 8000) -> None:
    """Serve the Production versions of all models over HTTP, from the registry only. Ctrl-C stops it.

    Example:

        release serve --port 8000
    """
    err.print(f"serving on http://127.0.0.1:{port} (documentation: /docs, state: /status)", soft_wrap=True)
    process = serving_process(port)
    environment = apart_from_here(process["env"])
    os.execve(process["args"][0], process["args"], environment)  # it takes this process's place, and its signals


def serving_process(port: int) -> dict[str, Any]:
    """Returns command and environment that start the serving application with these settings."""
    from release_platform.cli import running

    settings = running.services().settings
    return {
        "args": [sys.executable, "-m", "serving"],
        "env": {
            **os.environ,
            "SERVING_TRACKING_URI": settings.tracking_uri,
            "SERVING_PORT": str(port),
            "SERVING_CACHE_DIR": str(settings.root / "serving"),
            "SERVING_KEY_FOLDER": str(settings.key_folder),
        },
    }


def verify(
    model: Model,
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="A server's address; may be given several times; default: RELEASE_SERVING_URL."),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The version that must be in Production; default: any.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help="File with the API key of the servers; default: RELEASE_SERVING_API_KEY."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask every live server the model's golden inputs through every protocol, and compare bit by bit (smoke test).

    The registry's own model answers them in a clean process. Version, digest and epoch must be those of the ledger.
    What the servers of RELEASE_SERVING_URL answer is kept, for the model's rollback policy.
    Exit code 7: an answer is wrong; 6: a server does not answer, or asks for an API key; 5: nothing is in Production.

    Examples:

        release verify breast_cancer --url http://127.0.0.1:8000 --url http://127.0.0.1:8001

        release verify breast_cancer --json
    """
    from release_platform.cli import running
    from release_platform.settings import NO_SERVER

    if url and not all(map(str.strip, url)):
        raise typer.BadParameter("it is empty; name a server, or leave it out", param_hint="--url")
    services = running.services()
    addresses = tuple(url) if url else services.server_urls
    if not addresses:
        raise NotFound(NO_SERVER, remedy="set it, or give the address with --url")
    key = services.settings.serving_api_key.get_secret_value() if api_key_file is None else key_in(api_key_file)
    found = _verified(model, addresses, key, version)
    if not url and (problem := _keep(found)):
        err.print(f"warning: {problem}", markup=False, soft_wrap=True, highlight=False)
    for report in found.servers if not json else ():
        if report.passed:
            out.print(f"[green]passed[/]: {escape(_said(found, report))}", soft_wrap=True, highlight=False)
            for name, reason in report.left_out.items():
                out.print(f"  {name} was not asked: {reason}", markup=False, soft_wrap=True, highlight=False)
    if json:
        show_json(as_json(found))
    if (failure := found.failure) is not None:
        raise failure


def verify_model(model: str, url: str) -> dict[str, Any]:
    """Verifies the Production version of a model on a live server and returns what was found, as `as_json` does.

    Raises:
        NotFound: Nothing is in Production.
        VerificationFailed: An answer differs, or names something else.
        Unavailable: The server does not answer.
    """
    from release_platform.cli import running

    found = _verified(model, (url,), running.services().settings.serving_api_key.get_secret_value())
    if (failure := found.failure) is not None:
        raise failure
    return as_json(found)


def as_json(found: "Verification") -> dict[str, Any]:
    """Returns a verification as a JSON value; a difference that cannot be told is null."""
    expected = found.expected
    differences = [report.difference for report in found.servers]
    return {
        **expected.names,
        "epoch": expected.epoch,
        "passed": found.failure is None,
        "n_rows": expected.golden.n_rows,
        "largest_difference": _finite(max(differences, default=0.0)),
        "servers": [_server_json(report) for report in found.servers],
    }


def _server_json(report: "ServerReport") -> dict[str, Any]:
    return {
        "url": report.url,
        "passed": report.passed,
        "unavailable": report.unavailable and report.unavailable.problem,
        "latency_ms": report.latency_ms,
        "protocols": [
            {
                "protocol": one.protocol,
                "passed": not one.problem,
                "problem": one.problem or None,
                "largest_difference": _finite(one.difference),
                "latency_ms": one.latency_ms,
            }
            for one in report.checked
        ],
        "left_out": report.left_out,
        "workers": report.n_workers,
    }


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _said(found: "Verification", report: "ServerReport") -> str:
    expected = found.expected
    workers = f", by {report.n_workers} workers" if report.n_workers > 1 else ""
    return (
        f"{expected.model} version {expected.version} of epoch {expected.epoch} at {report.url}: "
        f"{expected.golden.n_rows} golden rows equal to the last bit through {len(report.checked)} protocols "
        f"({', '.join(one.protocol for one in report.checked)}){workers}, slowest {report.latency_ms:.1f} ms"
    )


def _verified(model: str, addresses: Sequence[str], api_key: str, version: str | None = None) -> "Verification":
    from release_platform.cli import running
    from release_platform.verification import verify_production

    running.project(model)
    return verify_production(running.services().releases, model, addresses, api_key=api_key, version=version)


def _keep(found: "Verification") -> str:
    from release_platform.adapters.clock import SystemClock
    from release_platform.cli import running
    from release_platform.verification import keep

    return keep(running.services().releases, found, SystemClock().now())
