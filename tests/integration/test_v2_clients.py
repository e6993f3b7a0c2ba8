"""Clients of the Open Inference Protocol, unchanged: they get what the native door answers, to the last bit."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from release_platform.domain.metrics import Task
from tests.fakes.packages import (
    CANCER_INPUTS,
    build_boosted_classifier,
    build_linear_classifier,
    build_regression,
    build_typed_classifier,
    write_package,
)
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

MAX_BYTES = 100_000
MAX_ROWS = 50
ROWS = np.array([[14.0, 20.5, 600.25], [11.0, 18.0, 380.0]])
BEFORE, LIVE = "6", "7"


def build_digits(folder):
    """Writes a classifier of three whole numbers, with labels that are whole numbers."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    names = ("p", "q", "r")
    frame = pd.DataFrame(np.arange(90.0).reshape(30, 3) % 7, columns=list(names))
    plan = FeaturePlan(
        inputs=tuple(Input(name=name, type=ColumnType.INTEGER, nullable=False) for name in names),
        derived=(),
        features=names,
    )
    fitted = LogisticRegression().fit(frame, np.arange(30) % 3)
    return write_package(folder, "digits", Task.MULTICLASS, fitted, plan, frame.astype(int), (10, 20, 30))


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    packages = {
        ("linear", BEFORE): build_linear_classifier(root / "before", model="linear", n_rows=300),
        ("linear", LIVE): build_linear_classifier(root / "linear", model="linear"),
        ("boosted", LIVE): build_boosted_classifier(root / "boosted", model="boosted"),
        ("diabetes", LIVE): build_regression(root / "diabetes"),
        ("typed", LIVE): build_typed_classifier(root / "typed"),
        ("digits", LIVE): build_digits(root / "digits"),
        ("waiting", LIVE): build_regression(root / "waiting", model="waiting"),
    }
    registry = FakeRegistry(packages, aliases={("linear", "production"): BEFORE})
    registry.set_alias("linear", "previous", BEFORE)
    for model, version in packages:
        if (model, version) != ("linear", BEFORE) and model != "waiting":
            registry.set_alias(model, "production", version)
    return registry


def serving(registry, folder, **given):
    return running(
        settings_for(folder, max_rows=MAX_ROWS, max_body_bytes=MAX_BYTES, body_timeout_s=0.5, **given), registry
    )


def wait_for_all(address):
    until(lambda: len(httpx.get(address + "/v1/models").json()["models"]) == 5)
    until(lambda: httpx.get(f"{address}/v2/models/linear/versions/{BEFORE}/ready").status_code == 200)


@pytest.fixture(scope="module")
def url(registry, tmp_path_factory):
    with serving(registry, tmp_path_factory.mktemp("fast") / "cache") as address:
        wait_for_all(address)
        yield address


@pytest.fixture(scope="module")
def detour(registry, tmp_path_factory):
    with serving(registry, tmp_path_factory.mktemp("detour") / "cache", fast_path=False) as address:
        wait_for_all(address)
        yield address


@pytest.fixture(params=["fast", "detour"])
def either(request, url, detour):
    return url if request.param == "fast" else detour


@pytest.fixture
def client(either):
    with triton.InferenceServerClient(either.removeprefix("http://")) as made:
        yield made


def tensor(name, values, *, binary=True):
    made = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return made.set_data_from_numpy(values, binary_data=binary)


def natively(url, model, columns, version=None):
    path = f"/v1/models/{model}" + (f"/versions/{version}" if version else "") + "/predict"
    response = httpx.post(url + path, json={"columns": columns})
    assert response.status_code == 200, response.text
    return response.json()


def assert_same(result, native):
    labels = result.as_numpy("predict")
    assert [one.decode() if isinstance(one, bytes) else one for one in labels.tolist()] == native["predictions"]
    if "probabilities" in native:
        found = result.as_numpy("predict_proba")
        assert found.dtype == np.float64
        assert found.tobytes() == np.array(native["probabilities"]).tobytes()


def cancer(rows=ROWS):
    return dict(zip(CANCER_INPUTS, rows.T.tolist(), strict=True))


def test_the_server_says_what_it_is_and_that_it_is_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "model-release-platform"
    assert metadata["version"]
    assert metadata["extensions"] == ["binary_tensor_data"]


def test_a_model_is_ready_when_a_version_answers(client):
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", BEFORE)
    assert client.is_model_ready("linear", LIVE)
    assert not client.is_model_ready("linear", "5")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("waiting")


def test_metadata_come_from_the_models_own_plan(client):
    typed = client.get_model_metadata("typed")
    assert (typed["name"], typed["versions"], typed["platform"]) == ("typed", [LIVE], "sklearn_skops")
    assert {one["name"]: (one["datatype"], one["shape"]) for one in typed["inputs"]} == {
        "x": ("FP64", [-1]),
        "n": ("INT64", [-1]),
        "flag": ("BOOL", [-1]),
        "carrier": ("BYTES", [-1]),
        "when": ("BYTES", [-1]),
    }
    assert typed["outputs"] == [
        {"name": "predict", "datatype": "BYTES", "shape": [-1]},
        {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
    ]
    assert client.get_model_metadata("digits")["outputs"][0]["datatype"] == "INT64"
    assert client.get_model_metadata("diabetes")["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [-1]}]
    for version in ("", BEFORE, LIVE):
        assert client.get_model_metadata("linear", version)["versions"] == [LIVE, BEFORE]


def test_the_index_lists_what_answers_and_what_does_not(client, either):
    index = client.get_model_repository_index()
    states = {(one["name"], one["version"]): one["state"] for one in index}
    assert states[("linear", LIVE)] == states[("linear", BEFORE)] == states[("typed", LIVE)] == "READY"
    (waiting,) = (one for one in index if one["name"] == "waiting")
    assert waiting["state"] == "UNAVAILABLE"
    assert "release promote waiting" in waiting["reason"]
    ready = httpx.post(either + "/v2/repository/index", json={"ready": True}).json()
    assert ready == [one for one in index if one["state"] == "READY"]
    for bad in (b"[]", b'{"ready": 1}', b"{", b" " * 5000):
        assert 400 <= httpx.post(either + "/v2/repository/index", content=bad).status_code < 500


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", ["linear", "boosted"])
def test_one_tensor_of_all_columns_is_answered_as_natively(client, either, model, binary):
    result = client.infer(model, [tensor("any name", ROWS, binary=binary)])
    assert_same(result, natively(either, model, cancer()))


@pytest.mark.parametrize("binary", [True, False])
def test_a_version_that_is_named_answers(client, either, binary):
    for version in (BEFORE, LIVE):
        result = client.infer("linear", [tensor("x", ROWS, binary=binary)], model_version=version)
        assert result.get_response()["model_version"] == version
        assert_same(result, natively(either, "linear", cancer(), version))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "dtype", ["f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"], ids=lambda name: np.dtype(name).name
)
def test_numbers_of_every_datatype_are_taken(client, either, dtype, binary):
    rows = np.array([[14, 20, 60], [11, 18, 38]]).astype(dtype) + np.array(0.3).astype(dtype)
    result = client.infer("linear", [tensor("x", rows, binary=binary)])
    assert_same(result, natively(either, "linear", cancer(rows.astype(np.float64))))
    columns = [tensor(name, rows[:, [i]], binary=binary) for i, name in enumerate(CANCER_INPUTS)]
    assert (
        result.as_numpy("predict_proba").tobytes()
        == client.infer("linear", columns).as_numpy("predict_proba").tobytes()
    )


@pytest.mark.parametrize("binary", [True, False])
def test_inputs_of_every_type_are_taken(client, either, binary):
    columns = {
        "x": np.array([0.5, 2.25]),
        "n": np.array([3, 4], dtype=np.int64),
        "flag": np.array([True, False]),
        "carrier": np.array(["c:1", "Zürich"], dtype=object),
        "when": np.array(["2013-01-01T05:15:00", "2013-02-03T12:00:00+02:00"], dtype=object),
    }
    given = [tensor(name, values, binary=binary) for name, values in columns.items()]
    result = client.infer("typed", given[::-1])
    assert_same(result, natively(either, "typed", {name: values.tolist() for name, values in columns.items()}))


def test_labels_that_are_whole_numbers_come_as_such_and_a_regression_as_numbers(client, either):
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("predict", "predict_proba")]
        result = client.infer("digits", [tensor("x", rows)], outputs=outputs)
        assert result.as_numpy("predict").dtype == np.int64
        native = natively(either, "digits", dict(zip("pqr", rows.T.tolist(), strict=True)))
        assert_same(result, native)
        output = [triton.InferRequestedOutput("predict", binary_data=binary)]
        result = client.infer("diabetes", [tensor("x", np.array([[0.1, 0.2]]))], outputs=output)
        expected = natively(either, "diabetes", {"bmi": [0.1], "bp": [0.2]})["predictions"]
        assert result.as_numpy("predict").tobytes() == np.array(expected).tobytes()


def test_outputs_are_chosen_and_each_comes_as_it_was_wanted(client):
    wanted = [
        triton.InferRequestedOutput("predict_proba", binary_data=True),
        triton.InferRequestedOutput("predict", binary_data=False),
    ]
    response = client.infer("linear", [tensor("x", ROWS)], outputs=wanted, request_id="own-7").get_response()
    assert response["id"] == "own-7"
    assert [one["name"] for one in response["outputs"]] == ["predict_proba", "predict"]
    assert response["outputs"][0]["parameters"] == {"binary_data_size": 2 * 2 * 8}
    assert len(response["outputs"][1]["data"]) == 2
    (only,) = client.infer("linear", [tensor("x", ROWS)], outputs=wanted[1:]).get_response()["outputs"]
    assert only["name"] == "predict"


def test_an_answer_says_who_gave_it(client, either):
    response = client.infer("linear", [tensor("x", ROWS)]).get_response()
    native = natively(either, "linear", cancer())
    assert (response["model_name"], response["model_version"]) == ("linear", LIVE)
    assert response["parameters"]["digest"] == native["digest"]
    assert response["parameters"]["epoch"] == native["epoch"]
    assert response["parameters"]["prediction_id"] != native["prediction_id"]


def test_what_changes_no_answer_is_taken_and_left_out(client, either):
    result = client.infer(
        "linear", [tensor("x", ROWS)], sequence_id=3, sequence_start=True, priority=1, timeout=10, parameters={"own": 1}
    )
    assert_same(result, natively(either, "linear", cancer()))


def test_a_missing_value_is_nan_in_bytes_and_null_in_json(client, either):
    rows = ROWS.copy()
    rows[1, 2] = np.nan
    native = natively(either, "boosted", {**cancer(), "mean area": [600.25, None]})
    assert_same(client.infer("boosted", [tensor("x", rows)]), native)
    body = {
        "inputs": [
            {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [[14, 20.5, 600.25], [11, 18, None]]},
        ]
    }
    said = httpx.post(either + "/v2/models/boosted/infer", json=body).json()
    assert said["outputs"][1]["data"] == np.array(native["probabilities"]).ravel().tolist()
    with pytest.raises(InferenceServerException, match=r"\[422\] row 1, 'mean area': is missing"):
        client.infer("linear", [tensor("x", rows)])


def test_what_is_not_supported_is_refused_in_words_that_the_client_shows(client):
    shared = triton.InferInput("x", [1, 3], "FP64").set_shared_memory("region", 24)
    refused = [
        (lambda: client.infer("linear", [shared]), "422", "shared memory"),
        (
            lambda: client.infer(
                "linear", [tensor("x", ROWS)], outputs=[triton.InferRequestedOutput("predict", class_count=2)]
            ),
            "422",
            "classification",
        ),
        (
            lambda: client.infer("linear", [tensor("x", ROWS)], outputs=[triton.InferRequestedOutput("logits")]),
            "422",
            "there are: predict, predict_proba",
        ),
        (lambda: client.infer("linear", [tensor("x", ROWS[:, :2])]), "422", "all 3"),
        (lambda: client.infer("linear", [tensor("x", np.ones((MAX_ROWS + 1, 3)))]), "422", "rows"),
        (lambda: client.infer("linear", [tensor("x", np.ones((5000, 3)))]), "413", "bytes"),
        (lambda: client.infer("linear", [tensor("x", ROWS)], request_compression_algorithm="gzip"), "415", "gzip"),
        (lambda: client.infer("nobody", [tensor("x", ROWS)]), "404", "nobody"),
        (lambda: client.infer("waiting", [tensor("x", ROWS)]), "503", "promote"),
        (lambda: client.infer("linear", [tensor("x", ROWS)], model_version="5"), "404", "version '5'"),
        (lambda: client.get_model_metadata("nobody"), "404", "nobody"),
        (lambda: client.get_model_metadata("linear", "5"), "404", "version '5'"),
        (lambda: client.load_model("linear"), "404", "promotion"),
        (lambda: client.unload_model("linear"), "404", "promotion"),
        (lambda: client.get_model_config("linear"), "404", "does not offer"),
        (lambda: client.get_model_config("linear", LIVE), "404", "does not offer"),
        (lambda: client.get_inference_statistics("linear", LIVE), "404", "does not offer"),
        (lambda: client.update_trace_settings("linear"), "404", "does not offer"),
        (client.get_trace_settings, "404", "does not offer"),
        (client.get_log_settings, "404", "does not offer"),
        (client.get_system_shared_memory_status, "404", "does not offer"),
        (lambda: client.register_cuda_shared_memory("a", b"", 0, 1), "404", "does not offer"),
    ]
    for ask, status, words in refused:
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == status, caught.value
        assert words in caught.value.message()


def test_many_rows_are_answered_as_natively(client, either):
    rows = np.random.default_rng(0).uniform(5, 900, size=(MAX_ROWS, 3))
    for binary in (True, False):
        assert_same(
            client.infer("boosted", [tensor("x", rows, binary=binary)]), natively(either, "boosted", cancer(rows))
        )


GOOD = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP64", "data": ROWS.ravel().tolist()}]}
TEXT = json.dumps(
    {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP64", "parameters": {"binary_data_size": 48}}]}
).encode()
LENGTH = {"Inference-Header-Content-Length": str(len(TEXT))}
JSON_TYPE = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
EXCHANGES = {
    "JSON": (json.dumps(GOOD).encode(), JSON_TYPE, 200),
    "JSON, no content type": (json.dumps(GOOD).encode(), {}, 200),
    "JSON, bytes wanted": (json.dumps(GOOD | {"parameters": {"binary_data_output": True}}).encode(), JSON_TYPE, 200),
    "bytes": (TEXT + ROWS.tobytes(), OCTETS | LENGTH, 200),
    "bytes, no content type": (TEXT + ROWS.tobytes(), LENGTH, 200),
    "a wrong content type": (TEXT + ROWS.tobytes(), {"content-type": "text/plain"} | LENGTH, 415),
    "compressed": (TEXT + ROWS.tobytes(), {"content-encoding": "deflate"} | LENGTH, 415),
    "a byte too few": (TEXT + ROWS.tobytes()[:-1], OCTETS | LENGTH, 422),
    "a byte too many": (TEXT + ROWS.tobytes() + b"\0", OCTETS | LENGTH, 422),
    "no length of the JSON": (TEXT + ROWS.tobytes(), OCTETS, 400),
    "a length beyond the body": (TEXT, {"Inference-Header-Content-Length": "1" + "0" * 18}, 422),
    "a length that is none": (TEXT, {"Inference-Header-Content-Length": "many"}, 422),
    "no JSON": (b"\xff", JSON_TYPE, 400),
    "nothing": (b"", {}, 400),
    "a huge shape": (TEXT.replace(b"[2, 3]", b"[9223372036854775807, 3]"), {}, 422),
    "NaN": (json.dumps(GOOD).replace("20.5", "NaN").encode(), JSON_TYPE, 422),
    "too large": (b" " * (MAX_BYTES + 1), JSON_TYPE, 413),
    "threaded": (json.dumps(GOOD).encode().ljust(MAX_BYTES), JSON_TYPE, 200),
}


def sent(url, content, headers, path="/v2/models/linear/infer"):
    """Returns what a server answers to exactly these bytes, without the ids."""
    where = urlsplit(url)
    given = {"Host": "x", "Content-Length": str(len(content)), "Connection": "close"} | headers
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
        connection.sendall(head.encode())
        connection.sendall(content)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    found = dict(line.lower().split(": ", 1) for line in lines)
    ids = {found.pop(name) for name in ("x-request-id", "x-prediction-id") if name in found}
    found.pop("date")
    for one in ids:
        body = body.replace(one.encode(), b"?")
    # The numbers in the ids grow, and with them the lengths that count them.
    for name in ("content-length", "inference-header-content-length"):
        if name in found:
            found[name] = str(int(found[name]) - sum(len(one) for one in ids if one.encode() in answer[len(top) :]))
    return int(status.split()[1]), found, body


@pytest.mark.parametrize("case", EXCHANGES)
def test_both_ways_give_the_same_answer_to_the_same_bytes(url, detour, case):
    content, headers, status = EXCHANGES[case]
    fast, slow = sent(url, content, headers), sent(detour, content, headers)
    assert fast == slow
    assert fast[0] == status
    if status != 200:
        said = json.loads(fast[2])
        assert said["error"] == said["detail"]
        assert said["status"] == status


def test_bytes_come_behind_as_much_json_as_the_header_says(url):
    content, headers, _ = EXCHANGES["bytes"]
    wanted = content.replace(b'{"inputs"', b'{"parameters": {"binary_data_output": true}, "inputs"')
    added = len(wanted) - len(content)
    response = httpx.post(
        url + "/v2/models/linear/infer",
        content=wanted,
        headers=headers | {"Inference-Header-Content-Length": str(len(TEXT) + added)},
    )
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    said = json.loads(response.content[:length])
    sizes = [one["parameters"]["binary_data_size"] for one in said["outputs"]]
    assert length + sum(sizes) == len(response.content)
    assert all("data" not in one for one in said["outputs"])


def test_only_posts_predict_and_the_documentation_has_them(url):
    for method, path, status in (("GET", "/v2/models/linear/infer", 405), ("POST", "/v2/models/linear/generate", 404)):
        answer = httpx.request(method, url + path)
        assert answer.status_code == status
        assert answer.json()["error"] == answer.json()["detail"]  # what clients show
    paths = httpx.get(url + "/openapi.json").json()["paths"]
    assert {"/v2", "/v2/models/{model}", "/v2/models/{model}/infer", "/v2/repository/index"} <= paths.keys()
    assert "/v2/models/{model}/config" not in paths


def test_a_server_without_a_model_is_live_and_not_ready(tmp_path):
    empty = FakeRegistry({})
    with (
        serving(empty, tmp_path / "cache") as address,
        triton.InferenceServerClient(address.removeprefix("http://")) as client,
    ):
        assert client.is_server_live()
        assert not client.is_server_ready()
        until(lambda: httpx.get(address + "/v2/health/ready").json()["error"].startswith("no model is loaded"))
        assert client.get_model_repository_index() == []
