"""The S3 server of the environment as a file system of Arrow that gives up on a server that does not answer."""

import os

import pyarrow.fs as pafs

CONNECT_S = 5.0
ANSWER_S = 30.0
"""Seconds without a byte; Arrow's own default is 3, thirty times over."""
ATTEMPTS = 3


def s3_files(bucket: str) -> pafs.FileSystem:
    """Returns the file system that a bucket is in.

    The standard variables count: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.

    Raises:
        OSError: No region is named, and AWS does not know the bucket.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
