"""`release dev`: Dagster, MLflow and serving together; in the profile `local` with PostgreSQL and S3."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from release_platform.cli.console import err
from release_platform.cli.processes import Processes, free_port
from release_platform.domain.errors import Refused

if TYPE_CHECKING:
    from release_platform.settings import Settings

DagsterPort = Annotated[int, typer.Option("--dagster-port", help="Port of Dagster's web interface.")]
MlflowPort = Annotated[int, typer.Option("--mlflow-port", help="Port of MLflow's web interface.")]
ServingPort = Annotated[int, typer.Option("--serving-port", help="Port of the serving application.")]
S3Port = Annotated[int, typer.Option("--object-store-port", help="Port of the S3 server, with RELEASE_PROFILE=local.")]


def dev(
    dagster_port: DagsterPort = 3000,
    mlflow_port: MlflowPort = 5050,
    serving_port: ServingPort = 8000,
    s3_port: S3Port = 9000,
) -> None:
    """Start Dagster (with its daemon), MLflow and serving; one Ctrl-C stops all.

    With RELEASE_PROFILE=local they work on a real PostgreSQL and a real S3 server, which are started and stopped too.

    Examples:

        release dev

        RELEASE_PROFILE=local release dev
    """
    from release_platform.adapters.mlflow_client import wait_for_schema
    from release_platform.profiles import Profile
    from release_platform.settings import Settings

    settings = Settings()
    if settings.profile is Profile.STACK:
        raise Refused("`release dev` is not for the profile stack", remedy="`make up`, or RELEASE_PROFILE=local")
    ports = {"dagster": dagster_port, "mlflow": mlflow_port, "serving": serving_port}
    _require_free(ports | ({"object-store": s3_port} if settings.profile is Profile.LOCAL else {}))
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may hand SIGINT down as ignored
        signal.signal(number, _interrupt)
    err.print(settings.described, markup=False, highlight=False, soft_wrap=True)
    logs = settings.root / "logs"
    with ExitStack() as running:
        try:
            if settings.profile is Profile.LOCAL:
                processes, mlflow = running.enter_context(_with_servers(settings, ports["mlflow"], s3_port))
            else:
                processes = running.enter_context(Processes(logs))
                wait_for_schema(mlflow_database(settings.root))  # `release run` may make it in another terminal
                mlflow = mlflow_command(settings.root, ports["mlflow"])
            _start(processes, ports, mlflow)
            err.print("Ctrl-C stops all of them.")
            ended = processes.wait_for_end()
            raise Refused(f"{ended} ended", remedy=f"read {logs / ended}.log")
        except KeyboardInterrupt:
            err.print("\nstopping ...")


def _require_free(ports: dict[str, int]) -> None:
    for name, port in ports.items():
        if free_port(port) != port:
            raise Refused(f"port {port} is taken", remedy=f"stop what listens there, or choose --{name}-port")


@contextmanager
def _with_servers(settings: "Settings", mlflow_port: int, s3_port: int) -> Iterator[tuple[Processes, list[str]]]:
    """Runs PostgreSQL and S3 while the processes run, and says where they are; they are stopped last."""
    import boto3

    from release_platform.adapters.bucket import make_bucket
    from release_platform.adapters.local_servers import BUCKET, local_s3, running_postgres
    from release_platform.adapters.whole_files import write_whole
    from release_platform.profiles import SERVERS, Places, written

    root, file = settings.root, settings.root / SERVERS
    err.print("starting PostgreSQL and S3 ...")
    s3 = local_s3(root / "s3", s3_port)
    with running_postgres(root / "postgres") as postgres, Processes(root / "logs") as processes:
        processes.start("s3", s3.command, os.environ | s3.environment)
        processes.wait_until_ready("s3", f"{s3.url}/healthz", 60)
        places = Places(
            tracking_uri=f"http://127.0.0.1:{mlflow_port}",
            store_url=postgres.url("release"),
            snapshots=f"s3://{BUCKET}/snapshots",
            environment=s3.environment | {"DAGSTER_POSTGRES_URL": postgres.url("dagster")},
        )
        os.environ.update(places.environment)
        make_bucket(boto3.client("s3"), BUCKET)
        write_whole(file, written(places))
        try:
            err.print(f"  S3        {s3.url}")
            yield processes, served_mlflow_command(postgres.url("mlflow"), f"s3://{BUCKET}/mlflow", mlflow_port)
        finally:
            file.unlink(missing_ok=True)


def _start(processes: Processes, ports: dict[str, int], mlflow: list[str]) -> None:
    from release_platform.cli import running
    from release_platform.settings import shipped

    settings = running.services().settings
    _ = running.services().store  # its schema is made before several processes ask for it
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    env = {
        **os.environ,
        "RELEASE_DAGSTER_URL": urls["dagster"],
        "RELEASE_MLFLOW_URL": urls["mlflow"],
        "RELEASE_SERVING_URL": settings.serving_url_with(urls["serving"]),
    }
    python = sys.executable
    logs = settings.root / "logs"  # its uvicorn puts the folder where it works first on the path, whatever is said
    processes.start("mlflow", mlflow, env | MLFLOW_ENV, folder=logs)
    err.print("starting MLflow ...")
    processes.wait_until_ready("mlflow", f"{urls['mlflow']}/health", 120)
    err.print(f"  MLflow    {urls['mlflow']}")
    env["RELEASE_MLFLOW_TRACKING_URI"] = urls["mlflow"]
    workspace = Path("workspace.yaml") if Path("workspace.yaml").exists() else shipped("workspace.yaml")
    dagster = [python, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(ports["dagster"])]
    processes.start("dagster", dagster, env)
    serving_env = _serving_env(urls, ports, settings.root, settings.key_folder)
    processes.start("serving", [python, "-m", "serving"], env | serving_env)
    processes.wait_until_ready("serving", f"{urls['serving']}/livez", 60)
    err.print(f"  serving   {urls['serving']}/docs")
    err.print("starting Dagster ...")
    processes.wait_until_ready("dagster", f"{urls['dagster']}/server_info", 120)
    err.print(f"  Dagster   {urls['dagster']}")


MLFLOW_ENV = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def mlflow_database(home: Path) -> str:
    """Returns the address of the embedded default's database."""
    return f"sqlite:///{home / 'mlflow.db'}"


def mlflow_command(home: Path, port: int) -> list[str]:
    """Returns the command of an MLflow server over the embedded default's database and artefacts."""
    return [
        *_mlflow(port, mlflow_database(home)),
        *("--default-artifact-root", (home / "artifacts").as_uri(), "--no-serve-artifacts"),
    ]


def served_mlflow_command(database: str, artifacts: str, port: int) -> list[str]:
    """Returns the command of an MLflow server that hands artefacts out itself, from where they are kept."""
    return [*_mlflow(port, database), "--serve-artifacts", "--artifacts-destination", artifacts]


def _mlflow(port: int, database: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database),
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
