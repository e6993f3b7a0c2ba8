"""`release serve` and `release verify`: the live server, and proof that it answers as the registry's model does."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import NotFound, VerificationFailed
from release_platform.domain.lifecycle import Alias

Port = Annotated[int, typer.Option("--port", help="Port on the loopback interface.")]


def serve(port: Port = 8000) -> None:
    """Serve the Production versions of all models over HTTP, from the registry only. Ctrl-C stops it.

    Example:

        release serve --port 8000
    """
    err.print(f"serving on http://127.0.0.1:{port} (documentation: /docs, state: /status)")
    process = serving_process(port)
    os.execve(process["args"][0], process["args"], process["env"])  # it takes this process's place, and its signals


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
        str | None, typer.Option("--url", help="Address of the server; default: RELEASE_SERVING_URL.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The version that must be in Production; default: any.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask a live server the model's golden inputs and compare with the registry's own model (smoke test).

    Example:

        release verify breast_cancer --url http://127.0.0.1:8000
    """
    found = verify_model(model, url, version)
    if json:
        show_json(found)
        return
    out.print(
        f"[green]passed[/]: {model} version {found['version']} at {found['url']}: {found['n_rows']} golden rows, "
        f"largest difference {found['largest_difference']:g}, {found['latency_ms']:.1f} ms"
    )


def verify_model(model: str, url: str | None, expected: str | None = None) -> dict[str, Any]:
    """Verifies the Production version of a model on a live server and returns what was found.

    Raises:
        NotFound: Nothing is in Production.
        VerificationFailed: The answers, the version or the digest differ.
        Unavailable: The server does not answer.
    """
    from release_platform.adapters.model_package import load_package
    from release_platform.adapters.serving_client import ServingClient, verify_live
    from release_platform.adapters.trust import Trust, proof_of
    from release_platform.cli import running

    running.project(model)
    services = running.services()
    version = services.store.head(model).production
    if version is None:
        raise NotFound(f"{model}: nothing is in Production", remedy=f"`release promote {model} --reason ...` first")
    if expected not in {None, version}:
        raise VerificationFailed(
            f"{model}: version {version} is in Production, not {expected}", remedy=f"see `release status {model}`"
        )
    address = url or services.settings.serving_url
    with tempfile.TemporaryDirectory() as folder:
        record = services.registry.fetch(model, version, Path(folder))
        Trust.in_folder(services.keys.folder).authorise(
            proof_of(record, Alias.PRODUCTION), record.manifest, model=model, version=version, alias=Alias.PRODUCTION
        )
        package = load_package(Path(folder), record.manifest)
    with ServingClient(address) as client:
        found = verify_live(client, package, model, version)
    return {"model": model, "url": address, **{name: getattr(found, name) for name in found.__slots__}}
