"""Reading raw data from a real S3 server: files, globs, and what is told when it cannot be read."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from release_platform.domain.data_spec import SourceSpec
from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.sources import read_source
from tests.integration.s3_server import S3Server, running_s3

COLUMNS = {"age": ColumnType.INTEGER, "town": ColumnType.CATEGORY}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    with running_s3(folder / "server") as running:
        client = running.client()
        client.create_bucket(Bucket="raw")
        pd.DataFrame({"age": [9], "town": ["Bregenz"]}).to_parquet(folder / "d.parquet")
        for key, body in {
            "people/1.csv": b"age,town\n30,Graz\n",
            "people/2.csv": b"age,town\n41,Linz\n",
            "people/2.csv.gz": gzip.compress(b"age,town\n50,Wien\n"),
            "people/old/3.csv": b"age,town\n60,Steyr\n",
            "bad.csv": b"age,town\n1,a\n2\n",
            "empty.csv": b"",
            "d.parquet": (folder / "d.parquet").read_bytes(),
        }.items():
            client.put_object(Bucket="raw", Key=key, Body=body)
        yield running


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def towns(source: SourceSpec) -> list[str]:
    return list(read_source(source, base=Path("/nowhere"), columns=COLUMNS)["town"])


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("s3://raw/people/1.csv", ["Graz"]),
        ("s3://raw/people/2.csv.gz", ["Wien"]),
        ("s3://raw/people/*.csv", ["Graz", "Linz"]),
        ("s3://raw/people/*", ["Graz", "Linz", "Wien"]),
        ("s3://raw/people/?.csv", ["Graz", "Linz"]),
        ("s3://raw/people/**/*.csv", ["Graz", "Linz", "Steyr"]),
        ("s3://raw/*/old/3.csv", ["Steyr"]),
    ],
)
def test_objects_and_globs_are_read_in_the_order_of_their_keys(address: str, wanted: list[str]) -> None:
    assert towns(SourceSpec(csv=address)) == wanted


def test_parquet_is_read() -> None:
    assert towns(SourceSpec(parquet="s3://raw/d.parquet")) == ["Bregenz"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://raw/nothing.csv", r"s3://raw/nothing\.csv: there is no such object"),
        ("s3://raw/nothing/*.csv", "there is no such object"),
        ("s3://nowhere/x.csv", "there is no such object"),
        ("s3://raw", "is not `s3://bucket/key`"),
        ("s3://raw/empty.csv", r"s3://raw/empty\.csv: the file is empty"),
        ("s3://raw/bad.csv", r"s3://raw/bad\.csv, row 2: has 1 field\(s\)"),
    ],
)
def test_what_cannot_be_read_is_named(address: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        towns(SourceSpec(csv=address))


@pytest.mark.parametrize("address", ["s3://raw/people/1.csv", "s3://raw/people/*.csv"])
def test_wrong_credentials_are_told_with_the_variables_to_check(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(
        SourceError, match=r"check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    ) as caught:
        towns(SourceSpec(csv=address))
    assert "wrong" not in str(caught.value)


def test_the_endpoint_may_be_named_for_s3_alone(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert towns(SourceSpec(csv="s3://raw/people/1.csv")) == ["Graz"]


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"NETWORK_CONNECTION[\s\S]*check AWS_ENDPOINT_URL"):
        towns(SourceSpec(csv="s3://raw/people/1.csv"))
