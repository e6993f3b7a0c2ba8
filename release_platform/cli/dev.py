"""`release dev`: Dagster, MLflow and serving together on the embedded default."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from release_platform.cli.console import err
from release_platform.cli.processes import Processes, free_port
from release_platform.domain.errors import Refused

DagsterPort = Annotated[int, typer.Option("--dagster-port", help="Port of Dagster's web interface.")]
MlflowPort = Annotated[int, typer.Option("--mlflow-port", help="Port of MLflow's web interface.")]
ServingPort = Annotated[int, typer.Option("--serving-port", help="Port of the serving application.")]


def dev(dagster_port: DagsterPort = 3000, mlflow_port: MlflowPort = 5050, serving_port: ServingPort = 8000) -> None:
    """Start Dagster (with its daemon), MLflow and serving; one Ctrl-C stops all.

    Example:

        release dev
    """
    from release_platform.cli import running

    settings = running.services().settings
    ports = {"dagster": dagster_port, "mlflow": mlflow_port, "serving": serving_port}
    for name, port in ports.items():
        if free_port(port) != port:
            raise Refused(f"port {port} is taken", remedy=f"stop what listens there, or choose --{name}-port")
    _ = running.services().store  # its schema is made before several processes ask for it
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may hand SIGINT down as ignored
        signal.signal(number, _interrupt)
    with Processes(settings.root / "logs") as processes:
        try:
            _start(processes, ports, settings.root, settings.key_folder)
            err.print("Ctrl-C stops all three.")
            ended = processes.wait_for_end()
            raise Refused(f"{ended} ended", remedy=f"read {settings.root / 'logs' / ended}.log")
        except KeyboardInterrupt:
            err.print("\nstopping ...")


def _start(processes: Processes, ports: dict[str, int], home: Path, keys: Path) -> None:
    from release_platform.settings import shipped

    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    env = {
        **os.environ,
        "RELEASE_DAGSTER_URL": urls["dagster"],
        "RELEASE_MLFLOW_URL": urls["mlflow"],
        "RELEASE_SERVING_URL": urls["serving"],
    }
    python = sys.executable
    processes.start("mlflow", mlflow_command(home, ports["mlflow"]), env | MLFLOW_ENV)
    err.print("starting MLflow ...")
    processes.wait_until_ready("mlflow", f"{urls['mlflow']}/health", 120)
    err.print(f"  MLflow    {urls['mlflow']}")
    env["RELEASE_MLFLOW_TRACKING_URI"] = urls["mlflow"]
    workspace = Path("workspace.yaml") if Path("workspace.yaml").exists() else shipped("workspace.yaml")
    dagster = [python, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(ports["dagster"])]
    processes.start("dagster", dagster, env)
    processes.start("serving", [python, "-m", "serving"], env | _serving_env(urls, ports, home, keys))
    processes.wait_until_ready("serving", f"{urls['serving']}/livez", 60)
    err.print(f"  serving   {urls['serving']}/docs")
    err.print("starting Dagster ...")
    processes.wait_until_ready("dagster", f"{urls['dagster']}/server_info", 120)
    err.print(f"  Dagster   {urls['dagster']}")


MLFLOW_ENV = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def mlflow_command(home: Path, port: int) -> list[str]:
    """Returns the command of an MLflow server over the embedded default's database and artefacts."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
        *("--default-artifact-root", (home / "artifacts").as_uri(), "--no-serve-artifacts"),
    ]


def _serving_env(urls: dict[str, str], ports: dict[str, int], home: Path, keys: Path) -> dict[str, str]:
    return {
        "SERVING_TRACKING_URI": urls["mlflow"],
        "SERVING_PORT": str(ports["serving"]),
        "SERVING_CACHE_DIR": str(home / "serving"),
        "SERVING_KEY_FOLDER": str(keys),
    }


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
