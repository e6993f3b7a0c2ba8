"""The bucket of artefacts and snapshots, made over plain S3, so that any server that speaks it will do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from release_platform.domain.errors import Refused, Unavailable

_OURS_ALREADY = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_UNKNOWN_THERE = {"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed"}
_NOT_LOCKED = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", *_UNKNOWN_THERE}

_PATIENCE = Config(connect_timeout=5, read_timeout=30, tcp_keepalive=True, retries={"total_max_attempts": 3})


def s3_client() -> Any:
    """Returns a client of the S3 server of the environment, which gives up on one that does not answer."""
    return boto3.client("s3", config=_PATIENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What a bucket keeps of objects that are overwritten or deleted.

    Attributes:
        name: Its name.
        versioned: Former versions are kept.
        lockable: Versions can be locked, so that nobody deletes them before their time.
    """

    name: str
    versioned: bool
    lockable: bool


def make_bucket(client: Any, name: str, *, retain_days: int = 0) -> Bucket:
    """Makes a bucket unless it is there, with versions and locks where the server has them, and returns what it got.

    Args:
        client: A boto3 client of S3.
        name: Its name.
        retain_days: For how many days every new version is locked, in governance mode; 0 for none.

    Raises:
        Unavailable: The server does not answer.
        Refused: It does not let us, or locks are asked for and it has none.
    """
    with s3_errors(name):
        _create(client, name)
        bucket = Bucket(name=name, versioned=_version(client, name), lockable=_is_lockable(client, name))
        if retain_days and not bucket.lockable:
            raise Refused(
                f"the bucket {name} cannot lock versions", remedy="ask for no lock, or use a server and bucket that can"
            )
        if retain_days:
            rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": retain_days}}
            client.put_object_lock_configuration(
                Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
            )
    return bucket


def _create(client: Any, name: str) -> None:
    try:
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    except ClientError as error:
        if _code(error) in _OURS_ALREADY:
            client.head_bucket(Bucket=name)  # it exists: may we use it?
        elif _code(error) in _UNKNOWN_THERE:
            client.create_bucket(Bucket=name)
        else:
            raise


def _version(client: Any, name: str) -> bool:
    try:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except ClientError as error:
        if _code(error) not in _UNKNOWN_THERE:
            raise
        return False
    return bool(client.get_bucket_versioning(Bucket=name).get("Status") == "Enabled")


def _is_lockable(client: Any, name: str) -> bool:
    try:
        found = client.get_object_lock_configuration(Bucket=name)
    except ClientError as error:
        if _code(error) not in _NOT_LOCKED:
            raise
        return False
    return bool(found["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def s3_errors(name: str) -> Iterator[None]:
    """The one place where boto's errors become the platform's.

    Raises:
        Unavailable: The server does not answer.
        Refused: It does not let us.
    """
    try:
        yield
    except (ClientError, S3UploadFailedError) as error:
        raise Refused(
            f"the bucket {name}: the S3 server refuses: {error}",
            remedy="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that the name is free",
        ) from None
    except BotoCoreError as error:
        raise Unavailable(
            f"the bucket {name}: the S3 server does not answer: {error}", remedy="check AWS_ENDPOINT_URL"
        ) from None
