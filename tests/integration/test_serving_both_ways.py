"""MLflow's protocol and Arrow over a real socket: past FastAPI's detour and through it, the same bytes get the same."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from serving.arrow import FILE, STREAM
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, build_regression, build_typed_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

MODELS = ("linear", "diabetes", "typed")
ROWS = 50
GOOD = dict.fromkeys(CANCER_INPUTS, 1.5)
OF_ONE_REQUEST = {"content-length", "date", "x-request-id", "x-prediction-id"}
PROBLEM = "application/problem+json"
JSON = "application/json"
FROM, TO = (media_type.decode() for media_type in (STREAM, FILE))


class Ways:
    """A client of a server that skips the detour, and one of a server that does not."""

    def __init__(self, fast: httpx.Client, declared: httpx.Client) -> None:
        self.fast = fast
        self.declared = declared

    def post(self, path: str, content: bytes | str, content_type: str, **headers: str) -> httpx.Response:
        given = {"content-type": content_type} | headers
        fast, declared = (client.post(path, content=content, headers=given) for client in (self.fast, self.declared))
        assert fast.status_code == declared.status_code
        assert headers_of(fast) == headers_of(declared)
        assert body_of(fast) == body_of(declared)
        return fast

    def get(self, path: str) -> httpx.Response:
        return self.fast.get(path)


def headers_of(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in OF_ONE_REQUEST}


def body_of(response: httpx.Response) -> Any:
    if "arrow" in response.headers["content-type"]:
        table = table_of(response)
        return table.replace_schema_metadata({**table.schema.metadata, b"prediction_id": b""})
    return {name: value for name, value in response.json().items() if name not in {"request_id", "prediction_id"}}


def table_of(response: httpx.Response) -> pa.Table:
    is_file = response.headers["content-type"] == TO
    with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(response.content) as reader:
        return reader.read_all()


def arrow(columns: dict[str, Any], content_type: str = FROM) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if content_type == TO else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        "linear": build_linear_classifier(root / "linear", model="linear"),
        "diabetes": build_regression(root / "diabetes"),
        "typed": build_typed_classifier(root / "typed"),
    }


def serve(folders, tmp_path_factory, models) -> Iterator[Ways]:
    registry = FakeRegistry(
        {(model, "7"): folders[model] for model in models}, aliases={(model, "production"): "7" for model in models}
    )
    with ExitStack() as stack:
        clients = []
        for fast in (True, False):
            settings = settings_for(tmp_path_factory.mktemp("cache"), max_rows=ROWS, fast_path=fast, models=models)
            url = stack.enter_context(running(settings, registry))
            clients.append(stack.enter_context(httpx.Client(base_url=url)))
        until(lambda: all(client.get("/ping").is_success for client in clients))
        yield Ways(*clients)


@pytest.fixture(scope="module")
def ways(folders, tmp_path_factory):
    yield from serve(folders, tmp_path_factory, MODELS)


@pytest.fixture(scope="module")
def alone(folders, tmp_path_factory):
    yield from serve(folders, tmp_path_factory, ("diabetes",))


def test_a_classifier_answers_mlflow_with_the_probabilities_that_it_answers_us_with(ways):
    told = ways.post("/v1/models/linear/predict", json.dumps({"rows": [GOOD] * 2}), JSON).json()
    scored = ways.post("/v1/models/linear/invocations", json.dumps({"inputs": [GOOD] * 2}), JSON)
    assert scored.json() == {"predictions": told["probabilities"]}
    assert (scored.headers["x-model-version"], scored.headers["content-type"]) == ("7", JSON)
    assert scored.headers["x-prediction-id"]


def test_a_regression_answers_mlflow_with_its_values(alone):
    told = alone.post("/v1/models/diabetes/predict", '{"rows": [{"bmi": 0.1, "bp": 0.2}]}', JSON).json()
    for path in ("/invocations", "/v1/models/diabetes/invocations"):
        assert alone.post(path, "bmi,bp\n0.1,0.2\n", "text/csv").json() == {"predictions": told["predictions"]}


def test_invocations_names_the_models_where_there_are_several(ways):
    problem = ways.post("/invocations", "{}", JSON).json()
    assert (problem["status"], problem["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    for name in (*MODELS, "/v1/models/"):
        assert name in problem["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{", JSON, 400, "BAD_REQUEST"),
        ('{"inputs": [{"bmi": 1, "bp": 1}], "inputs": []}', JSON, 400, "BAD_REQUEST"),
        ('{"inputs": [{"bmi": 1, "bp": "x"}]}', JSON, 422, "INVALID_PARAMETER_VALUE"),
        (json.dumps({"inputs": [{"bmi": 1, "bp": 1}] * (ROWS + 1)}), JSON, 422, "INVALID_PARAMETER_VALUE"),
        ("bmi,bp\n1,x\n", "text/csv", 422, "INVALID_PARAMETER_VALUE"),
        ("bmi,bp\n1,1\n", "text/plain", 415, "BAD_REQUEST"),
        ("bmi,bp\n1,1\n", "text/csv; charset=latin-1", 415, "BAD_REQUEST"),
        ("{}", "application/json; format=pandas-split", 415, "BAD_REQUEST"),
        ("x" * (17 * 1024**2), JSON, 413, "BAD_REQUEST"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_problem_has_the_members_that_clients_of_mlflow_read(alone, body, content_type, status, code):
    response = alone.post("/invocations", body, content_type)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert (problem["error_code"], problem["message"]) == (code, problem["detail"])


def test_ping_and_health_say_what_readyz_says(ways, folders, tmp_path):
    for path in ("/ping", "/health"):
        assert (ways.get(path).status_code, ways.get(path).text) == (200, "\n")
    registry = FakeRegistry({("linear", "7"): folders["linear"]})
    with running(settings_for(tmp_path / "cache", models=("linear",)), registry) as url:
        for path in ("/ping", "/health", "/readyz"):
            assert httpx.get(url + path).status_code == 503
        assert httpx.get(url + "/ping").headers["content-type"] == PROBLEM
    version = ways.get("/version")
    assert version.headers["content-type"].startswith("text/plain")
    assert version.text.count(".") == 2


@pytest.mark.parametrize("content_type", [FROM, TO])
def test_arrow_in_is_arrow_out_with_the_same_numbers(ways, content_type):
    columns = {name: np.linspace(1, 20, 40) for name in CANCER_INPUTS}
    body = json.dumps({"columns": {name: values.tolist() for name, values in columns.items()}})
    told = ways.post("/v1/models/linear/predict", body, JSON)
    response = ways.post("/v1/models/linear/predict", arrow(columns, content_type), content_type)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)
    table = table_of(response)
    assert table.column_names == ["prediction", "probability_malignant", "probability_benign"]
    assert table["prediction"].to_pylist() == told.json()["predictions"]
    assert np.column_stack(table.columns[1:]).tolist() == told.json()["probabilities"]
    said = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert said.pop("prediction_id") == response.headers["x-prediction-id"]
    assert said == {name: str(told.json()[name]) for name in ("model", "version", "digest", "epoch", "engine")}


def test_arrow_answers_json_and_json_answers_arrow_where_it_is_accepted(ways):
    columns = {"bmi": [0.1, 0.2], "bp": [0.3, 0.4]}
    path = "/v1/models/diabetes/predict"
    told = ways.post(path, arrow(columns), FROM, accept=JSON)
    assert told.headers["content-type"] == JSON
    asked = ways.post(path, json.dumps({"columns": columns}), JSON, accept=FROM)
    assert asked.headers["content-type"] == FROM
    assert table_of(asked)["prediction"].to_pylist() == told.json()["predictions"]
    assert table_of(asked).column_names == ["prediction"]


def test_each_type_of_input_comes_by_arrow(ways, folders):
    golden = json.loads((folders["typed"] / "golden.json").read_text())["inputs"]
    told = ways.post("/v1/models/typed/predict", json.dumps({"columns": golden}), JSON).json()
    typed = golden | {
        "carrier": pa.array(golden["carrier"]).dictionary_encode(),
        "when": pa.array(np.array(golden["when"], dtype="M8[ms]"), pa.timestamp("ms", "UTC")),
    }
    table = table_of(ways.post("/v1/models/typed/versions/7/predict", arrow(typed), FROM))
    assert table["prediction"].to_pylist() == told["predictions"]


@pytest.mark.parametrize(
    ("columns", "status", "field", "row"),
    [
        ({"bmi": [0.1], "bp": ["x"]}, 422, "bp", 0),
        ({"bmi": [0.1]}, 422, "bp", None),
        ({"bmi": [0.1, 0.2], "bp": [0.1, None]}, 422, "bp", 1),
        ({"bmi": [0.1] * (ROWS + 1), "bp": [0.1] * (ROWS + 1)}, 422, "columns", None),
        (None, 400, None, None),
    ],
)
def test_what_is_wrong_in_arrow_is_a_problem_document(ways, columns, status, field, row):
    body = arrow({"bmi": [0.1], "bp": [0.1]})[:-40] if columns is None else arrow(columns)
    response = ways.post("/v1/models/diabetes/predict", body, FROM)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert (problem.get("field"), problem.get("row")) == (field, row)


def test_the_documentation_shows_the_routes(ways):
    paths = ways.get("/openapi.json").json()["paths"]
    assert {"/invocations", "/v1/models/{model}/invocations", "/ping", "/health", "/version"} <= paths.keys()
    body = paths["/invocations"]["post"]["requestBody"]["content"]
    assert set(body) == {JSON, "text/csv"}
    assert set(paths["/v1/models/{model}/predict"]["post"]["requestBody"]["content"]) == {JSON, FROM, TO}


@pytest.mark.parametrize("path", ["/v1/models/diabetes/predict%0A", "/v1/models/diabetes/invocations%0A"])
def test_a_path_with_a_line_break_at_its_end_is_none_of_the_routes(ways, path):
    response = ways.post(path, json.dumps({"rows": [{"bmi": 0.1, "bp": 0.1}]}), JSON)
    assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
    assert response.json()["type"].endswith(":http-error")


@pytest.mark.parametrize("path", ["/livez%0A", "/status%0A", "/v1/models%0A", "/docs%0A"])
def test_that_holds_for_what_is_read_too(ways, path):
    assert (ways.get(path.removesuffix("%0A")).status_code, ways.get(path).status_code) == (200, 404)
