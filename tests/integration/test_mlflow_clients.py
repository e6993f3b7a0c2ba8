"""What clients of `mlflow models serve` send to both servers, over the same registered version: the same comes back."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from release_platform.domain.features import FeaturePlan, as_column
from serving.settings import Settings
from tests.fakes.server import running, until, until_version
from tests.integration.homes import BIN, Home, environment_of, example, free_port, open_home, why

MODELS = ("breast_cancer", "diabetes")
JSON = "application/json"


class Servers:
    """Both servers of one model, and rows that it takes."""

    def __init__(self, theirs: str, ours: str, frame: pd.DataFrame) -> None:
        self.theirs = theirs
        self.ours = ours
        self.frame = frame

    def post(self, content: bytes, content_type: str) -> tuple[httpx.Response, httpx.Response]:
        headers = {"content-type": content_type}
        theirs, ours = (
            httpx.post(f"{url}/invocations", content=content, headers=headers, timeout=30)
            for url in (self.theirs, self.ours)
        )
        return theirs, ours

    def both_answer(self, body: Any, content_type: str = JSON) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        theirs, ours = self.post(content, content_type)
        assert (theirs.status_code, ours.status_code) == (200, 200), (theirs.text, ours.text)
        assert ours.headers["content-type"] == theirs.headers["content-type"] == JSON
        assert ours.json().keys() == theirs.json().keys()
        self.same(theirs.json()["predictions"], ours.json()["predictions"])

    @staticmethod
    def same(theirs: Any, ours: Any) -> None:
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)

    def both_refuse(self, body: Any, content_type: str = JSON) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        theirs, ours = self.post(content, content_type)
        assert (theirs.status_code // 100, ours.status_code // 100) == (4, 4), (theirs.text, ours.text)
        if theirs.status_code == 415:  # MLflow answers plain text here
            assert ours.status_code == 415
        else:
            assert {"error_code", "message"} <= theirs.json().keys() & ours.json().keys()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("clients") / "home") as opened:
        for name in MODELS:
            result = opened.release(example(name))
            assert result.success, why(result)
            form = {"model": name, "actor": "ada", "reason": "first", "request_id": name}
            assert opened.launch("request_promotion", example(name), **form).success
            promoted = opened.launch("promote", example(name), request_id=name)
            assert promoted.success, why(promoted)
        yield opened


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "declared"])
def servers(
    request: pytest.FixtureRequest, home: Home, theirs: tuple[str, Path], model: str, tmp_path_factory: Any
) -> Iterator[Servers]:
    settings = Settings(
        models=(model,),
        port=0,
        key_folder=home.folder / "keys",
        cache_dir=tmp_path_factory.mktemp("cache"),
        log_level="critical",
        fast_path=request.param,
    )
    url, package = theirs
    with running(settings, home.services.registry) as address, httpx.Client(base_url=address) as client:
        until_version(client, model, "1")
        yield Servers(url, address, features_of(package))


@pytest.fixture(scope="module")
def theirs(home: Home, model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of `mlflow models serve` over the registered version, and the folder of the version."""
    package = tmp_path_factory.mktemp("package")
    home.services.registry.fetch(model, "1", package)
    with mlflow_models_serve(package) as address:
        yield address, package


@contextmanager
def mlflow_models_serve(package: Path) -> Iterator[str]:
    port = free_port()
    command = [str(BIN / "mlflow"), "models", "serve", "-m", str(package), "-p", str(port), "--env-manager", "local"]
    environment = environment_of(package) | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    with (package.parent / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: pings(url), within_s=120)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def features_of(package: Path) -> pd.DataFrame:
    """Returns rows as MLflow's signature wants them: with what is derived, which our server computes by itself."""
    plan = FeaturePlan.from_json(json.loads((package / "release.json").read_text())["plan"])
    golden = json.loads((package / "golden.json").read_text())["inputs"]
    return pd.DataFrame(plan.apply({column.name: as_column(column, golden[column.name]) for column in plan.inputs}))


def pings(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ping").is_success
    except httpx.TransportError:
        return False


def split_of(frame: pd.DataFrame) -> dict[str, Any]:
    return {"columns": list(frame.columns), "index": list(frame.index), "data": frame.to_numpy().tolist()}


def test_every_form_of_the_protocol_gets_the_same_answer(servers: Servers) -> None:
    frame = servers.frame
    records = frame.to_dict(orient="records")
    shuffled = frame[frame.columns[::-1]]
    more = frame.assign(nobody_asked=1.0)
    for body in (
        {"dataframe_split": split_of(frame)},
        {"dataframe_split": split_of(shuffled)},
        {"dataframe_split": split_of(more)},
        {"dataframe_split": {k: v for k, v in split_of(frame).items() if k != "index"}},
        {"dataframe_records": records},
        {"dataframe_records": more.to_dict(orient="records")},
        {"instances": records},
        {"instances": frame.to_dict(orient="list")},
        {"inputs": frame.to_dict(orient="list")},
        {"inputs": records},
        {"inputs": records[0]},
        {"inputs": records, "params": {"temperature": 1}},
        {"inputs": records, "params": None, "signature_name": "serving_default"},
    ):
        servers.both_answer(body)


def test_csv_as_pandas_writes_it_gets_the_same_answer(servers: Servers) -> None:
    for text in (
        servers.frame.to_csv(index=False),
        servers.frame.to_csv(),
        servers.frame[servers.frame.columns[::-1]].to_csv(index=False, lineterminator="\r\n"),
        "\ufeff" + servers.frame.to_csv(index=False, quoting=1),
    ):
        servers.both_answer(text.encode(), "text/csv")
        servers.both_answer(text.encode(), "text/csv; charset=utf-8")


def test_both_refuse_what_is_no_request(servers: Servers) -> None:
    record = servers.frame.iloc[0].to_dict()
    first = servers.frame.columns[0]
    less = {name: value for name, value in record.items() if name != first}
    for body in (
        b"",
        b"\xff",
        b"{",
        b"[]",
        {},
        {"rows": [record]},
        {"messages": []},
        {"inputs": [record], "instances": [record]},
        {"dataframe_records": record},
        {"dataframe_split": [record]},
        {"dataframe_split": {"columns": list(record)}},
        {"dataframe_split": {"columns": list(record), "data": [], "more": 1}},
        {"dataframe_split": {"columns": list(record), "data": []}},
        {"dataframe_records": []},
        {"dataframe_records": [less]},
        {"dataframe_records": [record | {first: "big"}]},
        {"inputs": {name: [[value]] for name, value in record.items()}},
    ):
        servers.both_refuse(body)
    for text in (b"", b"a\n1\n", b"\xff", servers.frame.head(0).to_csv().encode()):
        servers.both_refuse(text, "text/csv")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/json; format=pandas-split",
        "application/json; format=pandas-records",
        "application/json-numpy-split",
        "application/json; charset=latin-1",
    ],
)
def test_both_refuse_the_content_types_of_former_times(servers: Servers, content_type: str) -> None:
    servers.both_refuse({"inputs": servers.frame.to_dict(orient="list")}, content_type)


def test_health_is_told_in_the_same_words(servers: Servers) -> None:
    for path in ("/ping", "/health"):
        theirs, ours = (httpx.get(url + path) for url in (servers.theirs, servers.ours))
        assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text) == (200, "\n")
        assert ours.headers["content-type"].startswith("text/plain"), "MLflow calls it JSON, which it is not"


def test_the_client_of_mlflow_itself_sees_no_difference(servers: Servers) -> None:
    clients = [
        ScoringServerClient(urlsplit(url).hostname, urlsplit(url).port) for url in (servers.theirs, servers.ours)
    ]
    for client in clients:
        client.wait_server_ready(timeout=10)
        assert client.get_version()
    theirs, ours = (client.invoke(servers.frame) for client in clients)
    Servers.same(theirs["predictions"], ours["predictions"])
    pd.testing.assert_frame_equal(theirs.get_predictions(), ours.get_predictions(), rtol=0, atol=1e-12)
    theirs, ours = (client.invoke(servers.frame.to_dict(orient="records"), params={}) for client in clients)
    Servers.same(theirs["predictions"], ours["predictions"])
