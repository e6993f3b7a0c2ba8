"""A real server over a real socket: answers, headers, and a problem document for every bad request."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.adapters.model_package import load_package
from release_platform.domain.api_keys import Scope
from release_platform.domain.features import as_column
from tests.fakes.packages import (
    CANCER_INPUTS,
    build_boosted_classifier,
    build_linear_classifier,
    build_regression,
    build_typed_classifier,
    manifest_of,
)
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

MAX_BYTES = 100_000
MAX_ROWS = 50
PROBLEM = "application/problem+json"
ROW = dict.fromkeys(CANCER_INPUTS, 1.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        "linear": build_linear_classifier(root / "linear", model="linear"),
        "boosted": build_boosted_classifier(root / "boosted", model="boosted"),
        "diabetes": build_regression(root / "diabetes"),
        "typed": build_typed_classifier(root / "typed"),
        "overflows": build_regression(root / "overflows", model="overflows", overflows=True),
        "waiting": build_regression(root / "waiting", model="waiting"),
    }


@pytest.fixture(scope="module")
def url(folders, tmp_path_factory):
    registry = FakeRegistry(
        {(model, "7"): folder for model, folder in folders.items()},
        aliases={(model, "production"): "7" for model in folders if model != "waiting"},
    )
    settings = settings_for(
        tmp_path_factory.mktemp("cache"), max_rows=MAX_ROWS, max_body_bytes=MAX_BYTES, body_timeout_s=0.5
    )
    with running(settings, registry) as address:
        until(lambda: len(httpx.get(address + "/v1/models").json()["models"]) == len(folders) - 1)
        yield address


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url) as made:
        yield made


@pytest.fixture
def connection(url):
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=5) as made:
        yield made


def golden_of(folder):
    return json.loads((folder / "golden.json").read_text())["inputs"]


@pytest.mark.parametrize("model", ["linear", "boosted", "diabetes", "typed"])
def test_rows_and_columns_get_the_answer_of_the_package_to_the_last_bit(client, folders, model):
    package = load_package(folders[model], manifest_of(folders[model]))
    inputs = golden_of(folders[model])
    expected = package.predict({c.name: as_column(c, inputs[c.name]) for c in package.plan.inputs}).to_json()
    rows = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
    for body in ({"columns": inputs}, {"rows": rows}):
        response = client.post(f"/v1/models/{model}/predict", json=body)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["model"], answer["version"], answer["engine"]) == (model, "7", "skops")
        assert answer["digest"] == package.digest == response.headers["x-model-digest"]
        assert response.headers["x-model-version"] == "7"
        assert {name: answer[name] for name in expected} == expected
        assert answer.get("classes") == (list(package.classes) or None)


def test_a_null_is_taken_where_the_plan_allows_it(client):
    body = {"rows": [ROW | {"mean area": None}]}
    assert client.post("/v1/models/boosted/predict", json=body).status_code == 200
    problem = client.post("/v1/models/linear/predict", json=body).json()
    assert (problem["status"], problem["field"], problem["row"]) == (422, "mean area", 0)


def test_the_example_of_a_model_is_a_request_that_it_answers(client):
    for entry in client.get("/v1/models").json()["models"]:
        described = client.get(f"/v1/models/{entry['model']}").json()
        assert [column["name"] for column in described["inputs"]] == list(described["example"]["rows"][0])
        assert client.post(f"/v1/models/{entry['model']}/predict", json=described["example"]).status_code == 200


def post(client, content, model="linear", **headers):
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/v1/models/{model}/predict", content=content, headers=given)


def test_every_bad_body_gets_a_problem_that_names_what_is_wrong(client):
    good = json.dumps(ROW)
    cases = [
        (b"", 400, "malformed-body", None, None),
        (b"\xff\xfe", 400, "malformed-body", None, None),
        (b"[" * 50_000, 400, "malformed-body", None, None),
        (b'{"rows": [' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"]}", 400, "malformed-body", None, None),
        (b'{"rows": [], "rows": []}', 400, "duplicate-key", "rows", None),
        (f'{{"rows": [{good}, {good[:-1]}, "mean area": 1}}]}}', 400, "duplicate-key", "mean area", 1),
        (b"[]", 422, "invalid-input", None, None),
        (b"{}", 422, "invalid-input", None, None),
        (b'{"rows": []}', 422, "invalid-input", "rows", None),
        (f'{{"rows": [{", ".join([good] * (MAX_ROWS + 1))}]}}', 422, "invalid-input", "rows", None),
        (f'{{"rows": [{good}, {{}}]}}', 422, "invalid-input", "mean radius", 1),
        (f'{{"rows": [{good[:-1]}, "x": 1}}]}}', 422, "invalid-input", "x", 0),
        (f'{{"rows": [{good[:-1]}, "\\ud800": 1}}]}}', 422, "invalid-input", "\\ud800", 0),
        (
            b'{"columns": {"mean radius": [1], "mean texture": [1, 2], "mean area": [1]}}',
            422,
            None,
            "mean texture",
            None,
        ),
    ]
    for value in ("true", '"1"', "null", "NaN", "Infinity", "-Infinity", "1e999", "[1]", "{}", "9" * 400, '"\\ud800"'):
        body = f'{{"rows": [{good}, {{"mean radius": 1, "mean texture": {value}, "mean area": 1}}]}}'
        cases.append((body, 422, "invalid-input", "mean texture", 1))
    for content, status, slug, field, row in cases:
        response = post(client, content)
        problem = response.json()
        assert (response.status_code, problem.get("field"), problem.get("row")) == (status, field, row), problem
        assert response.headers["content-type"] == PROBLEM
        assert problem["status"] == status
        assert slug is None or problem["type"].endswith(":" + slug)
        assert {"type", "title", "detail", "instance", "request_id"} <= problem.keys()
        assert problem["instance"] == "/v1/models/linear/predict"


@pytest.mark.parametrize(
    ("field", "bad"),
    [("n", 1.5), ("n", True), ("flag", 1), ("flag", "true"), ("carrier", 1), ("when", "yesterday"), ("when", 5)],
)
def test_each_type_of_input_refuses_the_others(client, folders, field, bad):
    row = {name: values[0] for name, values in golden_of(folders["typed"]).items()}
    assert client.post("/v1/models/typed/predict", json={"rows": [row]}).status_code == 200
    problem = client.post("/v1/models/typed/predict", json={"rows": [row, row | {field: bad}]}).json()
    assert (problem["status"], problem["field"], problem["row"]) == (422, field, 1)


def test_an_unknown_model_is_404_and_one_that_is_not_in_production_is_503(client):
    for method, path in (("POST", "/v1/models/nobody/predict"), ("GET", "/v1/models/nobody")):
        response = client.request(method, path)
        assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
        assert response.json()["type"].endswith(":unknown-model")
    response = client.post("/v1/models/waiting/predict", json={"rows": [{}]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "release promote waiting" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin-1", 415),
        ("application/json; charset=UTF-8", 200),
        ('Application/JSON; charset="utf-8"', 200),
    ],
)
def test_only_json_in_utf8_is_read(client, content_type, status):
    body = json.dumps({"rows": [ROW]})
    assert post(client, body, content_type=content_type).status_code == status


def test_a_compressed_body_is_refused(client):
    assert post(client, b"\x1f\x8b", content_encoding="gzip").status_code == 415


def test_paths_and_methods_that_there_are_not_get_problems_too(client):
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/models/linear/predict", 405)):
        response = client.request(method, path)
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert 'serving_problems_total{kind="http-error"' in client.get("/metrics").text


def head(length_header):
    return (
        "POST /v1/models/linear/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"{length_header}\r\n\r\n"
    ).encode()


def status_of(connection):
    return int(connection.recv(65536).split(b" ", 2)[1])


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(connection):
    connection.sendall(head(f"Content-Length: {MAX_BYTES + 1}"))
    assert status_of(connection) == 413


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(connection):
    connection.sendall(head("Transfer-Encoding: chunked"))
    chunk = b" " * 10_000
    for _ in range(MAX_BYTES // len(chunk) + 1):
        connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    assert status_of(connection) == 413


def test_a_body_of_just_the_allowed_size_is_read(client):
    body = json.dumps({"rows": [ROW]}).encode()
    assert post(client, body.ljust(MAX_BYTES)).status_code == 200
    assert post(client, body.ljust(MAX_BYTES + 1)).status_code == 413


def test_a_body_that_does_not_arrive_is_given_up(connection):
    connection.sendall(head("Content-Length: 100") + b'{"rows"')
    assert status_of(connection) == 408


def test_a_client_that_goes_away_hurts_nobody(url, client):
    for _ in range(5):
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as gone:
            gone.sendall(head("Content-Length: 100") + b'{"rows"')
    assert post(client, json.dumps({"rows": [ROW]})).status_code == 200


def test_a_sane_request_id_is_echoed_and_another_replaced(client):
    assert client.get("/livez", headers={"x-request-id": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    for insane in ("a b", "x" * 129, "<script>", ""):
        given = client.get("/nothing", headers={"x-request-id": insane})
        assert given.headers["x-request-id"] == given.json()["request_id"] != insane


def test_an_answer_that_is_not_finite_is_the_models_fault_and_counted(client):
    response = client.post("/v1/models/overflows/predict", json={"rows": [{"bmi": 0, "bp": 0}, {"bmi": 1e30, "bp": 0}]})
    problem = response.json()
    assert (response.status_code, problem["row"]) == (500, 1)
    assert problem["type"].endswith(":non-finite-prediction")
    metrics = client.get("/metrics").text
    assert 'serving_model_failures_total{kind="non-finite-prediction",model="overflows",version="7"} 1.0' in metrics


def test_a_number_beyond_the_models_arithmetic_is_the_requests_fault(client):
    response = client.post(
        "/v1/models/overflows/predict", json={"rows": [{"bmi": 0, "bp": 0}, {"bmi": 1e300, "bp": 0}]}
    )
    assert (response.status_code, response.json()["field"], response.json()["row"]) == (422, "bmi", 1)


def test_metrics_name_model_version_and_status(client):
    for _ in range(2):
        client.post("/v1/models/diabetes/predict", json={"rows": [{"bmi": 0.1, "bp": 0.2}] * 3})
    client.post("/v1/models/diabetes/predict", json={"rows": []})
    for path in ("/v1/models/a/predict", "/v1/models/b/predict"):
        client.post(path)
    text = client.get("/metrics").text
    route = 'route="/v1/models/{model}/predict"'
    assert f'serving_requests_total{{model="diabetes",{route},status="422",version="7"}} 1.0' in text
    assert f'serving_request_seconds_count{{model="diabetes",{route},version="7"}}' in text
    assert 'serving_rows_total{model="diabetes",version="7"}' in text
    assert 'serving_model_info{digest="sha256:' in text
    assert "serving_registry_reachable 1.0" in text
    assert 'model="a"' not in text  # names that clients make up never become labels


def test_the_documentation_has_an_example_of_both_forms(client):
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/models/{model}/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"rows", "columns"}


def test_the_documentation_shows_what_each_model_takes_with_a_request_that_it_answers(client):
    paths = client.get("/openapi.json").json()["paths"]
    content = paths["/v1/models/diabetes/predict"]["post"]["requestBody"]["content"]["application/json"]
    rows, columns = (form["properties"] for form in content["schema"]["oneOf"])
    for described in (rows["rows"]["items"], columns["columns"]):
        assert set(described["properties"]) == set(described["required"]) == {"bmi", "bp"}
        assert described["additionalProperties"] is False
    for form in ("rows", "columns"):
        assert client.post("/v1/models/diabetes/predict", json=content["examples"][form]["value"]).status_code == 200


def test_the_documentation_says_how_a_key_is_shown_where_one_is_asked_for(client, tmp_path):
    assert "security" not in client.get("/openapi.json").json()
    keys = tmp_path / "keys.json"
    _, key = ApiKeyFile(keys, SystemClock()).create("reader", [Scope.READ])
    settings = settings_for(tmp_path / "cache", api_keys=keys)
    with running(settings, FakeRegistry({})) as url, httpx.Client(base_url=url) as closed:
        assert "Basic" in closed.get("/docs").headers["www-authenticate"]
        assert closed.get("/docs", auth=("anybody", key)).status_code == 200
        schema = closed.get("/openapi.json", auth=("anybody", key)).json()
    assert schema["security"] == [{"bearer": []}, {"header": []}]
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "header"}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_probe_may_ask_for_the_head_alone(client, path):
    assert (client.head(path).status_code, client.head(path).content) == (200, b"")


def test_the_documentation_loads_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith("./docs/files/")
        assert client.get(address.removeprefix(".")).status_code == 200
    assert "http:" not in page
    assert "https:" not in page


def test_many_clients_at_once_each_get_their_own_answer(client, url):
    values = np.linspace(-0.1, 0.1, 64)
    expected = client.post(
        "/v1/models/diabetes/predict", json={"columns": {"bmi": values[:50].tolist(), "bp": [0.0] * 50}}
    ).json()["predictions"]

    def ask(value):
        answer = httpx.post(f"{url}/v1/models/diabetes/predict", json={"rows": [{"bmi": value, "bp": 0.0}]})
        return answer.json()["predictions"][0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, values[:50]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
