"""`release demo`: one model's whole life, from its data to a verified answer of the live server."""

from time import perf_counter
from typing import Annotated, Any

import typer

from release_platform.cli.console import err, out, show_pairs
from release_platform.cli.processes import Processes, free_port
from release_platform.cli.promotion import promote_model
from release_platform.cli.rollout import rollout_here
from release_platform.cli.run import run_release, show_gates
from release_platform.cli.serving import serving_process, verify_model
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.policy import Registration

READY_S = 90.0


def demo(
    model: Annotated[str, typer.Argument(help="Name of the model; `release models` lists them.")] = "flight_delay",
    port: Annotated[
        int, typer.Option("--port", help="Port for serving; another free one is taken if it is in use.")
    ] = 8000,
) -> None:
    """Run the whole life of a model: train, gate, register, promote, serve, verify. Leaves no process behind.

    Where the model's YAML demands a rollout, and a version is in Production that it can begin beside, it begins.

    Examples:

        release demo

        release demo breast_cancer
    """
    from release_platform.cli import running

    started = perf_counter()
    _say(1, "ingest, featurize, train, evaluate, gates, register to Staging")
    registration = run_release(model)
    _say(2, "request the promotion; it goes when every condition holds")
    row = promote_model(model, version=registration.version, actor=None, reason="demo: every gate passed")
    if row is not None:
        err.print(f"  version {row.version} is in Production, epoch {row.epoch}")
    else:
        err.print("  its rollout has begun")
    settings = running.services().settings
    with Processes(settings.root / "logs") as processes:
        _say(3, "serve from the registry")
        address = f"http://127.0.0.1:{free_port(port)}"
        processes.start("serving", **serving_process(int(address.rsplit(":", 1)[1])))
        processes.wait_until_ready("serving", f"{address}/readyz", READY_S)
        err.print(f"  ready at {address}")
        _say(4, "smoke test of the live server")
        verified = verify_model(model, address)
    _summary(registration, row, verified, perf_counter() - started)


def _say(number: int, what: str) -> None:
    err.print(f"[bold]{number}/4[/] {what}")


def _summary(registration: Registration, row: LedgerRow | None, verified: dict[str, Any], spent_s: float) -> None:
    (server,) = verified["servers"]
    model = registration.model
    out.print()
    show_gates(registration)
    show_pairs(
        f"{model}: the whole life in {spent_s:.0f} s",
        {
            "version": f"{registration.version} ({_where(model, row)})",
            "digest": registration.digest,
            "data fingerprint": registration.fingerprint,
            **({} if row is None else {"promoted by": f"{row.actor}: {row.reason}"}),
            "served at": f"{server['url']}/v1/models/{model}/predict (stopped again)",
            "smoke test": f"passed: {verified['n_rows']} golden rows of version {verified['version']} equal to the "
            f"last bit through {len(server['protocols'])} protocols",
            "look next": f"release lineage {model} | release history {model} | make dev"
            if row is not None
            else f"make dev, send it requests, and release rollout status {model} --watch | or, without the judge, "
            f"release rollout promote {model} --reason '...'",
        },
    )


def _where(model: str, row: LedgerRow | None) -> str:
    if row is not None:
        return f"Production; before: {row.before['production'] or 'none'}"
    state = rollout_here(model)
    return f"beside version {state['stable']} in Production: {state['said']}"
