"""`release stack`: what a stack of servers needs once before it starts, safe to repeat at every start."""

import os
from typing import Annotated

import typer

from release_platform.cli.console import out
from release_platform.domain.errors import Refused

stack = typer.Typer(help="What the container stack needs before it starts.", no_args_is_help=True)


@stack.command("databases")
def databases() -> None:
    """Make the databases and roles of Dagster, MLflow and the release store in PostgreSQL; data is never touched.

    Reads POSTGRES_URL, a role that may make roles and databases, and the passwords to set: DAGSTER_DB_PASSWORD,
    MLFLOW_DB_PASSWORD, RELEASE_DB_OWNER_PASSWORD, RELEASE_DB_PASSWORD.

    Example:

        release stack databases
    """
    from release_platform.adapters.databases import Database, Login, make_databases
    from release_platform.adapters.store_database import store_url

    def login(role: str) -> Login:
        return Login(role=role, password=_given(f"{role.upper()}_PASSWORD"))

    wanted = (
        Database(name="dagster", owner=login("dagster_db")),
        Database(name="mlflow", owner=login("mlflow_db")),
        Database(name="release", owner=login("release_db_owner"), others=(login("release_db"),)),
    )
    make_databases(store_url(_given("POSTGRES_URL")), wanted)
    out.print(f"databases: {', '.join(one.name for one in wanted)}")


@stack.command("bucket")
def bucket(
    name: Annotated[str, typer.Argument(help="Name of the bucket.", show_default=False)],
    retain_days: Annotated[
        int, typer.Option("--retain-days", min=0, help="Days for which each version is locked; 0: no lock.")
    ] = 0,
) -> None:
    """Make the S3 bucket of artefacts and snapshots, with versions, and locks where the server has them.

    Reads AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

    Example:

        release stack bucket release
    """
    from release_platform.adapters.bucket import make_bucket, s3_client

    made = make_bucket(s3_client(), name, retain_days=retain_days)
    kept = f"{'versioned' if made.versioned else 'NOT versioned'}, {'lockable' if made.lockable else 'without locks'}"
    out.print(f"bucket {made.name}: {kept}")


@stack.command("api-keys")
def api_keys(
    operator: Annotated[
        str, typer.Argument(help="The first operator; the ledger keeps this name.", show_default=False)
    ],
) -> None:
    """Take the API keys of the first operator and of the stack itself as good; another one of such a name is revoked.

    Reads OPERATOR_KEY, and the keys that are shown to serving: SERVING_KEY (scopes predict, read), SERVING_ADMIN_KEY
    (read, admin) and METRICS_KEY (read).

    Example:

        release stack api-keys ada
    """
    from release_platform.adapters.api_keys import ApiKeyFile
    from release_platform.adapters.clock import SystemClock
    from release_platform.domain.api_keys import Scope
    from release_platform.settings import Settings

    keys = ApiKeyFile(Settings().known_keys, SystemClock())
    for variable, name, scopes in (
        ("OPERATOR_KEY", operator, (Scope.READ, Scope.OPERATOR)),
        ("SERVING_KEY", "stack:serving", (Scope.PREDICT, Scope.READ)),
        ("SERVING_ADMIN_KEY", "stack:serving-admin", (Scope.READ, Scope.ADMIN)),
        ("METRICS_KEY", "stack:metrics", (Scope.READ,)),
    ):
        taken = keys.adopt(name, scopes, _given(variable))
        out.print(f"key {taken.key_id} is {name}'s: {', '.join(taken.scopes)}")


@stack.command("signing-key")
def signing_key() -> None:
    """Make the key that signs versions and moves, unless it is there, and trust its public half.

    Example:

        release stack signing-key
    """
    from release_platform.adapters.signing import KeyFolder, key_id
    from release_platform.settings import Settings

    settings = Settings()
    signer = KeyFolder(settings.key_folder, settings.signing_key.get_secret_value()).signer()
    out.print(f"{key_id(signer.public_key)} signs", soft_wrap=True)


def _given(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise Refused(f"{variable} is not set", remedy=f"set {variable}; `make up` does so")
    return value
