"""What a server tells of itself: metrics, logs and traces, by model and version, with ids to follow a request by."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.responses import Response

from release_platform.domain.api_keys import key_text
from serving.app import create_app
from serving.permissions import PROBES
from serving.tracing import Tracing
from tests.fakes.packages import CANCER_INPUTS, build_boosted_classifier, build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

ROOT = Path(__file__).parents[2]
PATH = "/v1/models/linear/predict"
ROW = dict.fromkeys(CANCER_INPUTS, 1.5)
TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVER = """
import sys
from pathlib import Path
from serving.server import build_server
from serving.settings import Settings
from tests.fakes.registry import FakeRegistry, trust_signer
folder = Path(sys.argv[1])
registry = FakeRegistry({("linear", "7"): folder}, aliases={("linear", "production"): "7"})
build_server(Settings(key_folder=trust_signer(Path("keys"))), registry).run()
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    folders = {
        ("linear", "7"): build_linear_classifier(root / "linear", model="linear"),
        ("boosted", "7"): build_boosted_classifier(root / "boosted", model="boosted"),
    }
    return FakeRegistry(folders, aliases={(model, "production"): "7" for model, _ in folders})


def sample(text, name, **labels):
    """Returns the value of the one sample of that name that has these labels."""
    found = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
    wanted = [line for line in found if all(f'{key}="{value}"' in line for key, value in labels.items())]
    assert len(wanted) == 1, wanted or found
    return float(wanted[0].rsplit(" ", 1)[1])


@pytest.mark.parametrize("fast_path", [True, False])
def test_metrics_count_requests_problems_rows_scores_and_swaps_by_model_and_version(registry, tmp_path, fast_path):
    with (
        running(settings_for(tmp_path / "cache", fast_path=fast_path), registry) as url,
        httpx.Client(base_url=url) as client,
    ):
        until(lambda: len(client.get("/v1/models").json()["models"]) == 2)
        for _ in range(3):
            assert client.post(PATH, json={"rows": [ROW, ROW]}).status_code == 200
        assert client.post(PATH, json={"rows": []}).status_code == 422
        assert client.post("/v1/models/none/predict", json={"rows": [ROW]}).status_code == 404
        text = client.get("/metrics").text
        served = {"model": "linear", "version": "7"}
        route = "/v1/models/{model}/predict"
        assert sample(text, "serving_requests_total", route=route, status="200", **served) == 3
        assert sample(text, "serving_requests_total", route=route, status="422", **served) == 1
        assert sample(text, "serving_request_seconds_count", route=route, **served) == 4
        assert sample(text, "serving_problems_total", model="linear", kind="invalid-input") == 1
        assert sample(text, "serving_problems_total", model="", kind="unknown-model") == 1
        assert sample(text, "serving_rows_total", **served) == 6
        assert sample(text, "serving_score_count", **served) == 6
        assert sample(text, "serving_batch_requests_sum", **served) == 3
        assert sample(text, "serving_swap_seconds_count", model="boosted") == 1
        assert sample(text, "serving_waiting_requests") == 0
        assert sample(text, "serving_model_info", engine="skops", **served) == 1


def test_every_answer_has_an_id_of_its_own_that_outcomes_can_name_later(registry, tmp_path):
    with running(settings_for(tmp_path / "cache"), registry) as url, httpx.Client(base_url=url) as client:
        until(lambda: len(client.get("/v1/models").json()["models"]) == 2)
        answers = [client.post(PATH, json={"rows": [ROW]}, headers={"x-request-id": "mine"}) for _ in range(3)]
        assert {answer.headers["x-request-id"] for answer in answers} == {"mine"}
        ids = [answer.json()["prediction_id"] for answer in answers]
        assert len(set(ids)) == 3
        assert ids == [answer.headers["x-prediction-id"] for answer in answers]


class Collector(BaseHTTPRequestHandler):
    """Takes spans by OTLP over HTTP."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.spans = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_process_logs_json_and_sends_spans_of_the_callers_trace(registry, tmp_path, collector):
    folder = tmp_path / "package"
    build_linear_classifier(folder, model="linear")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SERVING_PORT": "0",
        "SERVING_CACHE_DIR": str(tmp_path / "cache"),
        "SERVING_LOG_FORMAT": "json",
        "SERVING_LOG_REQUESTS": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
    }
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder)], cwd=tmp_path, env=environment, stderr=stderr
        )
    try:
        until(lambda: b"is live" in log.read_bytes() and b"running on" in log.read_bytes(), within_s=60)
        url = re.search(r"http://127.0.0.1:\d+", log.read_text())[0]
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "followed"}
        assert httpx.post(url + PATH, json={"rows": [ROW]}, headers=headers).status_code == 200
        assert httpx.get(url + "/livez").status_code == 200
    finally:
        process.terminate()
        process.wait(30)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "followed"]
    assert (line["model"], line["version"], line["status"]) == ("linear", "7", 200)
    assert (line["method"], line["path"]) == ("POST", PATH)
    assert TRACE in line["traceparent"]
    assert not [line for line in lines if "\x1b" in "".join(map(str, line.values()))], "a line has codes for terminals"
    assert any("ANYBODY" in line["message"] for line in lines), "that no key is asked for is said loudly"
    until(lambda: collector.spans)
    (span,) = collector.spans
    noted = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    assert span.trace_id.hex() == TRACE
    assert (noted["release.model"], noted["release.version"], noted["release.request_id"]) == (
        "linear",
        "7",
        "followed",
    )


def test_probes_have_no_span_and_whatever_else_is_asked_has_one(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    tracing = Tracing()
    app = tracing.around(Response())
    probes = {*PROBES, "/metrics"}
    others = {"/v1/models/shipping_eta/predict", "/ping/", "/v1/ping", "/metrics2", "/v2/health", "/livez\n"}

    async def ask():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://ml.healthco.example"
        ) as client:
            for path in (*probes, *others):
                await client.get(quote(path))

    asyncio.run(ask())
    tracing.close()
    noted = [{one.key: one.value.string_value for one in span.attributes} for span in collector.spans]
    assert {one["http.target"] for one in noted} == others


@pytest.mark.parametrize(("method", "path"), [("GET", "/a"), ("POST", "/v1/models/a/predict")])
def test_a_request_is_one_short_line_of_the_log_whatever_its_path(tmp_path, caplog, method, path):
    caplog.set_level(logging.INFO, "serving.edge")
    app = create_app(settings_for(tmp_path / "cache", log_requests=True), FakeRegistry({}))
    forged = path.replace("a", "a%0AERROR%20forged%1B%E2%80%A8" + "x" * 60_000, 1)

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            await client.request(method, forged)

    asyncio.run(ask())
    (line,) = (record.getMessage() for record in caplog.records if record.name == "serving.edge")
    assert r"a\nERROR forged\x1b\u2028x" in line
    assert line.isprintable()
    assert len(line) < 400


def test_an_api_key_in_a_path_is_not_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO, "serving.edge")
    app = create_app(settings_for(tmp_path / "cache", log_requests=True), FakeRegistry({}))
    key = key_text("0123456789ab", "s" * 43)

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            await client.get(f"/v1/models/{key}")
            await client.get(f"/{'x' * 150}/{key}")

    asyncio.run(ask())
    said = [record.getMessage() + record.path for record in caplog.records if record.name == "serving.edge"]
    assert len(said) == 2
    assert "/v1/models/mrp_0123456789ab_..." in said[0]
    assert "sss" not in "".join(said)
