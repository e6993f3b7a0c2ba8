"""What the stack's one-off jobs make in a real PostgreSQL and on a real S3 server, the second time as the first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from release_platform.adapters.api_keys import read_api_keys
from release_platform.adapters.bucket import Bucket, make_bucket
from release_platform.adapters.databases import Database, Login, make_databases
from release_platform.domain.api_keys import Scope, key_text
from release_platform.domain.errors import Refused, Unavailable
from tests.integration.homes import release_in
from tests.integration.s3_server import S3Server, running_s3

OWNER = Login(role="try_owner", password="o'wner")
USER = Login(role="try_user", password="user")
OTHER = Login(role="try_other", password="other")
WANTED = (
    Database(name="try_release", owner=OWNER, others=(USER,)),
    Database(name="try_dagster", owner=OTHER),
)


@pytest.fixture(scope="module")
def server(postgresql_server: str) -> Iterator[sa.URL]:
    url = sa.make_url(postgresql_server)
    yield url
    with admin(url) as connection:
        for database in WANTED:
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)"))
        for login in (OWNER, USER, OTHER):
            connection.execute(sa.text(f"DROP ROLE IF EXISTS {login.role}"))


def admin(url: sa.URL) -> sa.Connection:
    return sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect()


def rights(url: sa.URL, role: str) -> dict[str, bool]:
    """Returns which of the databases a role may connect to."""
    with admin(url) as connection:
        query = sa.text("SELECT has_database_privilege(:role, :name, 'CONNECT')")
        names = ("try_release", "try_dagster", "postgres", "template1")
        return {name: bool(connection.scalar(query, {"role": role, "name": name})) for name in names}


def test_a_role_may_connect_to_its_own_database_and_to_no_other(server: sa.URL) -> None:
    make_databases(server, WANTED)
    nowhere = {"try_release": False, "try_dagster": False, "postgres": False, "template1": False}
    assert rights(server, "try_owner") == rights(server, "try_user") == nowhere | {"try_release": True}
    assert rights(server, "try_other") == nowhere | {"try_dagster": True}


def test_a_role_may_do_nothing_to_the_server(server: sa.URL) -> None:
    make_databases(server, WANTED)
    with admin(server) as connection:
        query = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
        found = connection.execute(sa.text(f"{query} WHERE rolname LIKE 'try_%'")).all()
    assert set(map(tuple, found)) == {(False,) * 5}
    assert len(found) == 3


def test_data_is_kept_and_passwords_are_set_when_it_runs_again(server: sa.URL) -> None:
    make_databases(server, WANTED)
    with admin(server.set(database="try_release")) as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n"))
        before = connection.scalar(sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = 'try_user'"))
    changed = Database(name="try_release", owner=OWNER, others=(Login(role="try_user", password="new"),))
    make_databases(server, (changed,))
    with admin(server.set(database="try_release")) as connection:
        assert connection.scalar(sa.text("SELECT n FROM kept")) == 1
        assert connection.scalar(sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = 'try_user'")) != before


def test_a_role_that_may_not_is_refused_without_a_word_of_passwords(server: sa.URL) -> None:
    make_databases(server, WANTED)
    weak = server.set(query={**server.query, "options": "-c role=try_user"})
    with pytest.raises(Refused, match="permission denied") as refused:
        make_databases(weak, (Database(name="more", owner=Login(role="more", password="hidden")),))
    assert "hidden" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        make_databases(sa.make_url("postgresql+psycopg2://postgres:hidden@127.0.0.1:1/postgres"), WANTED)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running


def test_the_bucket_keeps_what_is_overwritten_and_may_be_made_again(s3: S3Server) -> None:
    client = s3.client()
    made = make_bucket(client, "made")
    assert made == Bucket(name="made", versioned=True, lockable=True)
    for body in (b"first", b"second"):
        client.put_object(Bucket="made", Key="file", Body=body)
    assert make_bucket(client, "made") == made
    kept = client.list_object_versions(Bucket="made", Prefix="file")["Versions"]
    bodies = {
        client.get_object(Bucket="made", Key="file", VersionId=one["VersionId"])["Body"].read(): one["IsLatest"]
        for one in kept
    }
    assert bodies == {b"first": False, b"second": True}


def test_a_bucket_that_somebody_made_without_versions_gets_them(s3: S3Server) -> None:
    s3.client().create_bucket(Bucket="plain")
    assert make_bucket(s3.client(), "plain").versioned


def test_a_locked_version_is_not_deleted(s3: S3Server) -> None:
    client = s3.client()
    make_bucket(client, "locked", retain_days=1)
    version = client.put_object(Bucket="locked", Key="file", Body=b"x")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket="locked", Key="file", VersionId=version)


def test_locks_that_a_bucket_cannot_have_are_refused(s3: S3Server) -> None:
    s3.client().create_bucket(Bucket="unlocked")
    with pytest.raises(Refused, match="cannot lock"):
        make_bucket(s3.client(), "unlocked", retain_days=1)


def test_the_wrong_key_is_refused_and_a_dead_server_named(s3: S3Server) -> None:
    import boto3
    from botocore.config import Config

    def client(endpoint: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="no",
            aws_secret_access_key="no",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, connect_timeout=2),
        )

    with pytest.raises(Refused, match="the bucket mine"):
        make_bucket(client(s3.endpoint), "mine")
    with pytest.raises(Unavailable, match="does not answer"):
        make_bucket(client("http://127.0.0.1:1"), "mine")


def test_the_commands_of_the_jobs_say_what_they_made(s3: S3Server, tmp_path: Path) -> None:
    done = release_in(tmp_path, "stack", "bucket", "by-command", **s3.environment)
    assert "bucket by-command: versioned, lockable" in done.out, done.err
    first = release_in(tmp_path / "home", "stack", "signing-key", cwd=tmp_path)
    assert "signs" in first.out
    assert release_in(tmp_path / "home", "stack", "signing-key", cwd=tmp_path).out == first.out
    variables = ("OPERATOR_KEY", "SERVING_KEY", "SERVING_ADMIN_KEY", "METRICS_KEY")
    keys = {name: key_text(f"{n:012x}", "k" * 43) for n, name in enumerate(variables)}
    done = release_in(tmp_path / "home", "stack", "api-keys", "ada", cwd=tmp_path, **keys)
    assert done.exit_code == 0, done.err
    assert "is ada's: read, operator" in done.out
    known = read_api_keys(tmp_path / "home" / "keys" / "api-keys.json")
    assert [key.scopes for key in known] == [
        (Scope.READ, Scope.OPERATOR),
        (Scope.PREDICT, Scope.READ),
        (Scope.READ, Scope.ADMIN),
        (Scope.READ,),
    ]
    done = release_in(tmp_path, "stack", "databases")
    assert done.exit_code == 5
    assert "DAGSTER_DB_PASSWORD is not set" in done.err
