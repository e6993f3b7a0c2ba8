"""The MLflow client and the one place where MLflow's errors become ours."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from release_platform.domain.errors import NotFound, Refused, ReleaseError, Unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "PERMISSION_DENIED", "INVALID_STATE"}


@lru_cache(maxsize=8)
def mlflow_client(tracking_uri: str) -> "MlflowClient":
    """Returns a client that gives up within seconds when the server does not answer."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is for `--json`
    with mlflow_errors(tracking_uri):
        from mlflow import MlflowClient

        with _alone_at_schema(tracking_uri):
            return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def wait_for_schema(tracking_uri: str) -> None:
    """Makes the schema of an embedded MLflow that has none, and waits while another process makes it.

    A server that is started after that finds it whole. An MLflow server makes its own: nothing is done for it.
    """
    file = _embedded_file(tracking_uri)
    if file is not None and not file.exists():
        mlflow_client(tracking_uri)
    with _alone_at_schema(tracking_uri):
        pass


@contextmanager
def _alone_at_schema(tracking_uri: str) -> Iterator[None]:
    """Lets one process at a time open an embedded MLflow: two that make its tables together break each other."""
    file = _embedded_file(tracking_uri)
    if file is None or not os.access(file.parent, os.W_OK):  # who may not write makes no tables either
        yield
        return
    with file.with_name(f"{file.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file, and the end of the process, let go of it
        yield


def _embedded_file(tracking_uri: str) -> Path | None:
    path = tracking_uri.removeprefix(_SQLITE)
    return Path(path.partition("?")[0]) if path != tracking_uri else None


@contextmanager
def as_mlflow_default(tracking_uri: str) -> Iterator[None]:
    """Makes a URI MLflow's own default: its fluent interface and its SQL registry look there, whatever the client says.

    MLflow writes its default into the environment, where the platform's settings read it, so it is put back.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None takes it out of the environment again


@contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Translates MLflow's and the network's exceptions.

    Raises:
        NotFound: MLflow has no such thing.
        Refused: MLflow refuses it.
        Unavailable: MLflow or its storage does not answer, or has no room.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except ReleaseError:
        raise
    except MlflowException as error:
        raise refusal_of(tracking_uri, error.error_code, str(error)) from error
    except _database_errors() as error:
        raise refusal_of(tracking_uri, "", str(error)) from error
    except OSError as error:
        raise Unavailable(
            f"MLflow's artefact storage ({tracking_uri}) failed: {error}",
            remedy="check that the storage answers and that the disk has room, then run again; nothing was registered",
        ) from error


def _database_errors() -> tuple[type[Exception], ...]:
    """Returns what an embedded MLflow lets through of its database; a serving image has no SQLAlchemy to ask."""
    loaded = sys.modules.get("sqlalchemy.exc")
    return (loaded.SQLAlchemyError,) if loaded else ()


def refusal_of(tracking_uri: str, code: str, message: str) -> ReleaseError:
    """Returns the error of ours that MLflow's error code and message mean."""
    first = message.partition("\n")[0][:300] or code
    if code in _MISSING:
        return NotFound(f"MLflow: {first}", remedy="`release models` and `release history MODEL` list what there is")
    if code in _REFUSED:
        return Refused(f"MLflow refused: {first}", remedy="correct what it names, then run again")
    return Unavailable(
        f"MLflow ({tracking_uri}) does not answer: {first}",
        remedy="check that it runs and RELEASE_MLFLOW_TRACKING_URI, then run again",
    )
