"""Whatever an MLflow server does wrong, reading it over REST ends in seconds with a failure that says what to do."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from traceback import format_exception
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from release_platform.adapters import mlflow_http
from release_platform.adapters.mlflow_rest import RestRegistry
from release_platform.adapters.version_tags import manifest_tags
from release_platform.domain.errors import IntegrityError, NotFound, ReleaseError, Unavailable
from tests.fakes.packages import build_linear_classifier, manifest_of

ROOT = "0/models/m-1/artifacts"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
Handler = BaseHTTPRequestHandler


class Mlflow(ThreadingHTTPServer):
    """A server that speaks as MLflow does, of one version, until a test tells it to answer a path in its own way."""

    daemon_threads = True

    def __init__(self, package: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.package = package
        self.manifest = manifest_of(package)
        self.location = f"mlflow-artifacts:/{ROOT}"
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[str] = []
        self.headers: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, path: str) -> object:
        tags = [{"key": key, "value": value} for key, value in manifest_tags(self.manifest).items()]
        version = {"name": "cancer", "version": "1", "creation_timestamp": 1, "tags": tags}
        stored = [{"path": file.name, "file_size": file.stat().st_size} for file in self.package.iterdir()]
        return {
            "/api/2.0/mlflow/registered-models/search": {"registered_models": [{"name": "cancer"}]},
            "/api/2.0/mlflow/registered-models/get": {"registered_model": {"name": "cancer"}},
            "/api/2.0/mlflow/model-versions/get": {"model_version": version},
            "/api/2.0/mlflow/model-versions/get-download-uri": {"artifact_uri": self.location},
            FILES: {"files": stored},
        }.get(path)


class _Handler(BaseHTTPRequestHandler):
    server: Mlflow

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        self.server.headers.append(self.headers.get("Authorization", ""))
        if path in self.server.answers:
            self.server.answers[path](self)
        elif path.startswith(f"{FILES}/{ROOT}/"):
            send(self, 200, (self.server.package / path.rpartition("/")[2]).read_bytes())
        else:
            assert path != FILES or parse_qs(urlsplit(self.path).query) == {"path": [ROOT]}
            send(self, 200, json.dumps(self.server.says(path)).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def send(handler: Handler, status: int, body: bytes, *, n_bytes: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if n_bytes is None else n_bytes))
    handler.end_headers()
    handler.wfile.write(body)


def answering(status: int, body: bytes, *, n_bytes: int | None = None) -> Callable[[Handler], None]:
    return lambda handler: send(handler, status, body, n_bytes=n_bytes)


def endless(handler: Handler) -> None:
    """Says nothing of a length, and never stops."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        return


def dripping(handler: Handler) -> None:
    """Says a little again and again, for a minute."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(600):
            handler.wfile.write(b" ")
            time.sleep(0.1)
    except OSError:
        return


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Mlflow]:
    server = Mlflow(build_linear_classifier(tmp_path / "package"))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fetched").mkdir()
    return tmp_path / "fetched"


MODELS = "/api/2.0/mlflow/registered-models/search"
ANSWERS = {
    "500": (500, b"Internal Server Error"),
    "500 of MLflow": (500, b'{"error_code": "INTERNAL_ERROR", "message": "the database is gone"}'),
    "an error without a message": (500, b'{"error_code": "INTERNAL_ERROR"}'),
    "HTML": (200, b"<html>Log in</html>"),
    "no JSON object": (200, b"[]"),
    "another object": (200, b'{"registered_models": 5}'),
    "no UTF-8": (200, b'{"registered_models": [{"name": "\xff"}]}'),
    "nothing": (200, b""),
    "404 of another server": (404, b"<html>Not Found</html>"),
    "401": (401, b"You are not authenticated."),
}


def test_a_sound_server_is_read(mlflow: Mlflow, folder: Path) -> None:
    registry = RestRegistry(mlflow.url)
    assert (registry.models(), registry.find_alias("cancer", "production")) == (["cancer"], None)
    assert registry.fetch("cancer", "1", folder).manifest == manifest_of(folder)


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_means_that_mlflow_does_not_answer(mlflow: Mlflow, kind: str) -> None:
    mlflow.answers[MODELS] = answering(*ANSWERS[kind])
    with pytest.raises(Unavailable, match=r"does not answer: .") as caught:
        RestRegistry(mlflow.url).models()
    assert caught.value.remedy
    assert len(mlflow.asked) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("n_times", [2, 3])
def test_what_may_pass_is_asked_three_times(mlflow: Mlflow, status: int, n_times: int) -> None:
    def fail(handler: Handler) -> None:
        if len(mlflow.asked) == n_times:
            del mlflow.answers[MODELS]
        send(handler, status, b"")

    mlflow.answers[MODELS] = fail
    registry = RestRegistry(mlflow.url)
    if n_times == 2:
        assert registry.models() == ["cancer"]
    else:
        with pytest.raises(Unavailable, match=f"status {status}"):
            registry.models()
    assert len(mlflow.asked) == 3


def test_a_connection_that_breaks_is_tried_again(mlflow: Mlflow) -> None:
    def hang_up(handler: Handler) -> None:
        del mlflow.answers[MODELS]
        handler.close_connection = True

    mlflow.answers[MODELS] = hang_up
    assert RestRegistry(mlflow.url).models() == ["cancer"]


def test_a_server_that_hangs_is_given_up(mlflow: Mlflow) -> None:
    mlflow.answers[MODELS] = lambda _: time.sleep(20)
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="ReadTimeout"):
        RestRegistry(mlflow.url).models()
    assert 14 < time.monotonic() - begun < 19
    assert len(mlflow.asked) == 1


FAULTS: dict[str, tuple[Callable[[Handler], None], type[ReleaseError], str]] = {
    "truncated, and says so": (answering(200, b"{"), IntegrityError, r"golden\.json has 1 bytes"),
    "breaks off": (answering(200, b"{", n_bytes=1000), Unavailable, "does not answer"),
    "endless": (endless, IntegrityError, r"golden\.json has .* bytes"),
    "gone": (answering(404, b"{}"), IntegrityError, r"golden\.json is gone"),
    "500": (answering(500, b"oh"), Unavailable, "status 500: oh"),
}


def test_what_drips_is_given_up(mlflow: Mlflow, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_http, "ANSWER_WITHIN_S", 0.5)
    monkeypatch.setattr(mlflow_http, "FILE_WITHIN_S", 0.5)
    reader, begun = RestRegistry(mlflow.url), time.monotonic()
    mlflow.answers[MODELS] = mlflow.answers[f"{FILES}/{ROOT}/golden.json"] = dripping
    for ask in (reader.models, lambda: reader.fetch("cancer", "1", folder)):
        with pytest.raises(Unavailable, match="not whole within"):
            ask()
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_arrive_whole_is_refused(mlflow: Mlflow, folder: Path, fault: str) -> None:
    answer, kind, message = FAULTS[fault]
    mlflow.answers[f"{FILES}/{ROOT}/golden.json"] = answer
    with pytest.raises(kind, match=message):
        RestRegistry(mlflow.url).fetch("cancer", "1", folder)
    sizes = {entry.path: entry.size_bytes for entry in mlflow.manifest.files}
    assert all(file.stat().st_size <= sizes[file.name] for file in folder.iterdir())


@pytest.mark.parametrize(
    "path", ["/../../mlflow/x", "/0/../../x", "/0/%2e%2e/x", "/0/%252e%252e/x", "/", "/0//x", "/0/..\\x", "/0/a%00b"]
)
def test_a_location_that_tries_to_leave_is_not_asked(mlflow: Mlflow, folder: Path, path: str) -> None:
    mlflow.location = f"mlflow-artifacts:{path}"
    with pytest.raises(IntegrityError, match="leads nowhere"):
        RestRegistry(mlflow.url).fetch("cancer", "1", folder)
    assert not [asked for asked in mlflow.asked if asked.startswith(FILES)]


def test_a_version_that_is_not_there_is_not_found(mlflow: Mlflow) -> None:
    missing = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}).encode()
    mlflow.answers["/api/2.0/mlflow/model-versions/get"] = answering(404, missing)
    with pytest.raises(NotFound, match="no version 7"):
        RestRegistry(mlflow.url).get_version("cancer", "7")


# Credentials and addresses

BASIC = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "secret"}
TOKEN = {"MLFLOW_TRACKING_TOKEN": "token"}


@pytest.mark.parametrize(
    ("userinfo", "environment", "wanted"),
    [
        ("", {}, ""),
        ("", BASIC, "Basic ann:secret"),
        ("", TOKEN, "Bearer token"),
        ("", {"MLFLOW_TRACKING_TOKEN": " token\n"}, "Bearer token"),
        ("", BASIC | TOKEN, "Basic ann:secret"),
        ("bob:p%40ss@", BASIC | TOKEN, "Basic bob:p@ss"),
    ],
)
def test_credentials_are_those_of_the_address_else_of_the_environment(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, userinfo: str, environment, wanted: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in BASIC | TOKEN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    RestRegistry(mlflow.url.replace("//", f"//{userinfo}")).models()
    scheme, _, said = wanted.partition(" ")
    assert mlflow.headers == [f"Basic {b64encode(said.encode()).decode()}" if scheme == "Basic" else wanted]


def test_no_message_holds_a_password(mlflow: Mlflow) -> None:
    mlflow.answers[MODELS] = answering(401, b"no")
    with pytest.raises(Unavailable) as caught:
        RestRegistry(mlflow.url.replace("//", "//bob:secret@")).models()
    assert mlflow.url in caught.value.problem
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_WORKSPACE"])
@pytest.mark.parametrize("value", ["secret\nX: y", "secret\x7f", "secr\xe9t", "secret\udcff"])
def test_what_no_header_can_hold_is_named_and_not_shown(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    with pytest.raises(Unavailable, match=f"{variable} holds characters that no header can") as caught:
        RestRegistry(mlflow.url).models()
    assert "secr" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize("url", ["", "127.0.0.1:5000", "ftp://x", "http://[", "http://a:b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Unavailable):
        RestRegistry(url).models()


def test_certificates_of_the_environment_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "none.pem"))
    with pytest.raises(Unavailable, match="cannot be read"):
        RestRegistry("https://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with pytest.raises(Unavailable, match="exclude each other"):
        RestRegistry("https://127.0.0.1:1")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert RestRegistry(mlflow.url).models() == ["cancer"]
