"""`release serve` and `release verify`: the live server, and proof that it answers as the registry's model does."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from release_platform.cli.console import err, out, show_json
from release_platform.cli.options import Json, Model
from release_platform.domain.errors import NotFound, ReleaseError, Unavailable, VerificationFailed
from release_platform.domain.lifecycle import Alias

if TYPE_CHECKING:
    from release_platform.adapters.model_package import ModelPackage

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
        str | None, typer.Option("--url", help="Address of the server; default: every one of RELEASE_SERVING_URL.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The version that must be in Production; default: any.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask every live server the model's golden inputs and compare with the registry's own model (smoke test).

    Example:

        release verify breast_cancer --url http://127.0.0.1:8000
    """
    from release_platform.cli import running

    addresses = (url,) if url else running.services().settings.serving_urls
    if not addresses:
        raise NotFound("RELEASE_SERVING_URL names no server", remedy="set it, or give the address with --url")
    found, failed = _verified(addresses, production_package(model, version), model)
    for one in found if not json else ():
        out.print(
            f"[green]passed[/]: {model} version {one['version']} at {one['url']}: {one['n_rows']} golden rows, "
            f"largest difference {one['largest_difference']:g}, {one['latency_ms']:.1f} ms",
            soft_wrap=True,
        )
    _raise(failed)
    if json:
        show_json({**found[0], "servers": found})


def verify_model(model: str, url: str) -> dict[str, Any]:
    """Verifies the Production version of a model on a live server and returns what was found.

    Raises:
        NotFound: Nothing is in Production.
        VerificationFailed: The answers, the version or the digest differ.
        Unavailable: The server does not answer.
    """
    found, failed = _verified((url,), production_package(model), model)
    _raise(failed)
    return found[0]


def production_package(model: str, expected: str | None = None) -> "tuple[str, ModelPackage]":
    """Returns number and package of the version in Production, fetched from the registry and authorised.

    Raises:
        NotFound: Nothing is in Production.
        VerificationFailed: Another version than the expected one is.
    """
    from release_platform.adapters.model_package import load_package
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
    with tempfile.TemporaryDirectory() as folder:
        record = services.registry.fetch(model, version, Path(folder))
        Trust.in_folder(services.keys.folder).authorise(
            proof_of(record, Alias.PRODUCTION), record.manifest, model=model, version=version, alias=Alias.PRODUCTION
        )
        return version, load_package(Path(folder), record.manifest)


def _verified(
    addresses: Sequence[str], package: "tuple[str, ModelPackage]", model: str
) -> tuple[list[dict[str, Any]], list[ReleaseError]]:
    """Returns what was found at each server, and what is wrong with the others; one that is wrong hides no other."""
    from release_platform.adapters.serving_client import ServingClient, verify_live

    found: list[dict[str, Any]] = []
    failed: list[ReleaseError] = []
    for address in addresses:
        try:
            with ServingClient(address) as client:
                one = verify_live(client, package[1], model, package[0])
        except (Unavailable, VerificationFailed) as error:
            failed.append(error)
        else:
            found.append({"model": model, "url": address, **{name: getattr(one, name) for name in one.__slots__}})
    return found, failed


def _raise(failed: Sequence[ReleaseError]) -> None:
    """Raises one error for all of them; a wrong answer weighs more than none."""
    if failed:
        worst = max(failed, key=lambda error: error.exit_code)
        raise type(worst)("\n".join(error.problem for error in failed), remedy=worst.remedy)
