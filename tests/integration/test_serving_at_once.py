"""A prediction that needs no wait is answered where its last byte is read, exactly as the application answers it."""

import json
import socket
from contextlib import ExitStack

import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.domain.api_keys import Scope
from tests.fakes.packages import ONNX_INPUTS, build_onnx_classifier
from tests.fakes.raw_client import RawAnswer, RawClient, post, request
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

QUICK, SLOW = "/v1/models/quick/predict", "/v1/models/slow/predict"
BODY = json.dumps({"rows": [dict.fromkeys(ONNX_INPUTS, 1.5)]}).encode()
WRONG = json.dumps({"rows": [dict.fromkeys(ONNX_INPUTS, "x")]}).encode()
OF_ONE_REQUEST = {"content-length", "date", "x-request-id", "x-prediction-id"}
PER_MINUTE = 5


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    packages = {
        ("quick", "1"): build_onnx_classifier(root / "quick", model="quick"),
        ("slow", "1"): build_onnx_classifier(root / "slow", model="slow", engine="skops"),
    }
    return FakeRegistry(packages, aliases={(model, "production"): "1" for model in ("quick", "slow")})


@pytest.fixture(scope="module")
def urls(registry, tmp_path_factory):
    """A server that answers at once, and one that leaves everything to the application."""
    with ExitStack() as stack:
        found = []
        for fast in (True, False):
            settings = settings_for(tmp_path_factory.mktemp("cache") / "cache", fast_path=fast)
            found.append(stack.enter_context(running(settings, registry)))
        until(lambda: all(ready(url) for url in found))
        yield found


@pytest.fixture(scope="module")
def ports(urls):
    return [port_of(url) for url in urls]


@pytest.fixture(scope="module")
def port(ports):
    return ports[0]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def ready(url: str) -> bool:
    return len(httpx.get(f"{url}/v1/models").json().get("models", ())) == 2


def whole(path: str, body: bytes, *headers: str) -> bytes:
    return post(path, len(body), *headers) + body


def content_of(answer: RawAnswer) -> tuple[object, ...]:
    headers = {name: value for name, value in answer.headers.items() if name not in OF_ONE_REQUEST}
    members = json.loads(answer.body)
    return answer.status, headers, {name: members[name] for name in members.keys() - {"request_id", "prediction_id"}}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (whole(QUICK, BODY), 200),
        (whole(SLOW, BODY), 200),
        (whole("/v1/models/quick/versions/1/predict", BODY), 200),
        (whole("/v1/models/quick/versions/2/predict", BODY), 404),
        (whole("/v1/models/quick%2Fx/predict", BODY), 404),
        (whole("/v1/models/qu%69ck/predict", BODY), 200),
        (whole(f"{QUICK}?a=1", BODY), 200),
        (whole(QUICK, WRONG), 422),
        (whole(QUICK, BODY[:-1]), 400),
        (whole("/v1/models/none/predict", BODY), 404),
        (whole(QUICK, b""), 400),
        (whole(QUICK, BODY, "Connection: close"), 200),
        (whole(QUICK, BODY, "Content-Encoding: gzip"), 415),
        (whole(QUICK, BODY).replace(b"HTTP/1.1", b"HTTP/1.0", 1), 200),
        (whole(QUICK, BODY).replace(b"POST", b"PUT", 1), 405),
        (whole(QUICK, BODY).replace(b"application/json", b"text/html", 1), 415),
        (whole(QUICK, BODY).replace(b"POST /", b"POST http://x/", 1), 200),
    ],
)
def test_it_is_what_the_application_answers(ports, sent, status):
    answers = []
    for port in ports:
        with RawClient(port) as client:
            client.send(sent)
            answers.append(content_of(client.answer()))
    assert answers[0] == answers[1]
    assert answers[0][0] == status


def test_it_does_not_matter_how_the_bytes_arrive(port):
    sent = whole(QUICK, BODY)
    for cut in (1, 5, 20, len(sent) - len(BODY) - 2, len(sent) - len(BODY), len(sent) - len(BODY) + 1, len(sent) - 1):
        with RawClient(port) as client:
            client.send(sent)
            expected = content_of(client.answer())
            client.send(sent + sent[:cut])
            assert content_of(client.answer()) == expected
            client.send(sent[cut:])
            assert content_of(client.answer()) == expected


@pytest.mark.parametrize("paths", [[QUICK], [SLOW], [SLOW, QUICK, SLOW]])
def test_a_client_that_has_said_all_is_still_answered(port, paths):
    with RawClient(port) as client:
        client.send(b"".join(whole(path, BODY) for path in paths))
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.answer().status for _ in paths] == [200] * len(paths)
        assert client.ended_after() < 5


def test_half_a_request_is_not_waited_for(port):
    with RawClient(port) as client:
        client.send(whole(SLOW, BODY)[:-1])
        client.socket.shutdown(socket.SHUT_WR)
        assert client.ended_after() < 5


def test_who_is_read_together_gets_each_an_own_answer(port):
    rows = [dict.fromkeys(ONNX_INPUTS, 0.1 * number) for number in range(40)]
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in rows]
        for client, row in zip(clients, rows, strict=True):
            client.send(whole(QUICK, json.dumps({"rows": [row]}).encode()))
        together = [json.loads(client.answer().body)["probabilities"] for client in clients]
        for client, row, given in zip(clients, rows, together, strict=True):
            client.send(whole(QUICK, json.dumps({"rows": [row]}).encode()))
            assert json.loads(client.answer().body)["probabilities"] == given
    assert len({str(given) for given in together}) == len(rows)
    counted = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    assert any(line.startswith('serving_batch_requests_count{model="quick"') for line in counted)


def test_requests_that_are_sent_ahead_are_answered_in_their_order(port):
    paths = [QUICK, SLOW, "/livez", QUICK, SLOW, QUICK, QUICK, "/livez"] * 3
    with RawClient(port) as client:
        client.send(
            b"".join(
                request(path, f"X-Request-Id: {n}") if path == "/livez" else whole(path, BODY, f"X-Request-Id: {n}")
                for n, path in enumerate(paths)
            )
        )
        answers = [client.answer() for _ in paths]
    assert [answer.headers["x-request-id"] for answer in answers] == [str(n) for n in range(len(paths))]
    assert {answer.status for answer in answers} == {200}
    assert [json.loads(answer.body).get("model") for answer in answers] == [
        {QUICK: "quick", SLOW: "slow"}.get(path) for path in paths
    ]


def test_what_follows_a_body_in_chunks_is_no_part_of_the_head(ports):
    head = post(QUICK, 0, "X-Request-Id: named").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for port in ports:
        with RawClient(port) as client:
            client.send(head + b"%x\r\n%b\r\n0\r\nX-Request-Id: other\r\n\r\n" % (len(BODY), BODY) + request("/livez"))
            answer = client.answer()
            assert (answer.status, answer.headers["x-request-id"]) == (200, "named")
            assert client.answer().status == 200


def test_a_client_that_waits_to_be_told_to_go_on_is_told(port):
    with RawClient(port) as client:
        client.send(whole(QUICK, BODY, "Expect: 100-continue"))
        assert client.socket.makefile("rb").readline() == b"HTTP/1.1 100 Continue\r\n"


@pytest.mark.parametrize("path", [QUICK, SLOW])
def test_a_request_counts_once_for_the_rate_of_its_key_and_for_the_metrics(registry, tmp_path, path):
    keys = tmp_path / "api-keys.json"
    _, key = ApiKeyFile(keys, SystemClock()).create("caller", [Scope.PREDICT], rate_per_minute=PER_MINUTE)
    _, reader = ApiKeyFile(keys, SystemClock()).create("reader", [Scope.READ])
    with (
        running(settings_for(tmp_path / "cache", api_keys=keys), registry) as url,
        httpx.Client(base_url=url, headers={"x-api-key": reader}) as read,
        RawClient(port_of(url)) as client,
    ):
        until(lambda: len(read.get("/v1/models").json().get("models", ())) == 2)
        statuses = []
        for _ in range(PER_MINUTE + 2):
            client.send(whole(path, BODY, f"X-API-Key: {key}"))
            statuses.append(client.answer().status)
        assert statuses == [200] * PER_MINUTE + [429] * 2
        counted = [line for line in read.get("/metrics").text.splitlines() if "serving_requests_total{" in line]
    of_route = {line.partition('status="')[2][:3]: line.split()[-1] for line in counted if "{model}/predict" in line}
    assert of_route == {"200": f"{PER_MINUTE}.0", "429": "2.0"}
