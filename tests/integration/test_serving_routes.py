"""A canary over a real socket: the share that was asked, the same on the fast path and through the application."""

import json
import shutil
from contextlib import ExitStack

import httpx
import pytest
from scipy.stats import binom

from serving.routing import place_of
from tests.fakes.packages import (
    CANCER_INPUTS,
    ONNX_INPUTS,
    build_boosted_classifier,
    build_linear_classifier,
    build_onnx_classifier,
)
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

QUICK, SLOW = "quick", "slow"
INPUTS = {QUICK: ONNX_INPUTS, SLOW: CANCER_INPUTS}
ROWS = {model: [dict.fromkeys(names, 1.5)] for model, names in INPUTS.items()}
KEYS = [f"customer-{n}" for n in range(300)]
MODELS = pytest.mark.parametrize("model", [QUICK, SLOW])
STABLE, CANARY, PINNED = ("1", "stable"), ("2", "canary"), ("1", "pinned")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        (QUICK, "1"): build_onnx_classifier(root / "q1", model=QUICK),
        (QUICK, "2"): build_onnx_classifier(root / "q2", model=QUICK, n_rows=300),
        (QUICK, "3"): build_linear_classifier(root / "q3", model=QUICK),  # its inputs have other names
        (SLOW, "1"): build_linear_classifier(root / "s1", model=SLOW),
        (SLOW, "2"): build_boosted_classifier(root / "s2", model=SLOW),
    }


@pytest.fixture(scope="module")
def registry(built):
    return FakeRegistry(built, aliases={(model, "production"): "1" for model in (QUICK, SLOW)})


@pytest.fixture(scope="module")
def clients(registry, tmp_path_factory):
    """A client of a server with the fast path, and one of a server without."""
    with ExitStack() as stack:
        found = []
        for fast in (True, False):
            settings = settings_for(tmp_path_factory.mktemp("cache") / "cache", fast_path=fast)
            url = stack.enter_context(running(settings, registry))
            found.append(stack.enter_context(httpx.Client(base_url=url)))
        yield found


@pytest.fixture
def put(registry, clients):
    """Puts version 2 of both models on the canary's route, or another one, until every server has it."""

    def put_beside(weight, *, version="2", models=(QUICK, SLOW)):
        for model in models:
            registry.put_beside(model, "canary", version, weight)
        until(lambda: all(shown(client, model).get("weight") == weight for client in clients for model in models))

    for model in (QUICK, SLOW):
        registry.set_alias(model, "canary", None)
    until(lambda: all(not shown(client, model) for client in clients for model in (QUICK, SLOW)))
    return put_beside


def shown(client, model):
    return client.get("/status").json()["models"].get(model, {}).get("routes", {}).get("canary", {})


def ask(client, model, *, key=None, body=None, path="predict", **headers):
    given = headers | ({} if key is None else {"x-route-key": key})
    return client.post(f"/v1/models/{model}/{path}", json={"rows": ROWS[model]} | (body or {}), headers=given)


def route_of(answer):
    """Returns version and route of an answer, which its head and its body tell alike."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == answer.headers["x-model-version"]
    assert (answer.json()["digest"], str(answer.json()["epoch"])) == (
        answer.headers["x-model-digest"],
        answer.headers["x-model-epoch"],
    )
    return answer.headers["x-model-version"], answer.headers["x-model-route"]


def expected(model, key, weight):
    return CANARY if place_of(model, key.encode()) < weight else STABLE


@MODELS
def test_a_key_goes_where_its_place_says_on_both_paths_and_nobody_moves_back(put, clients, model):
    before = set()
    for weight in (0.0, 0.1, 0.4, 1.0):
        put(weight)
        for client in clients:
            routes = {key: route_of(ask(client, model, key=key)) for key in KEYS}
            assert routes == {key: expected(model, key, weight) for key in KEYS}
        now = {key for key, route in routes.items() if route == CANARY}
        assert before <= now
        before = now
    assert before == set(KEYS)


@MODELS
def test_requests_without_a_key_are_shared_out_as_asked(put, clients, model):
    put(0.25)
    for client in clients:
        taken = sum(route_of(ask(client, model)) == CANARY for _ in range(400))
        lowest, highest = binom.interval(0.999, 400, 0.25)
        assert lowest <= taken <= highest


@MODELS
def test_a_key_in_the_body_counts_as_one_in_the_head_does_where_there_is_none(put, clients, model):
    put(0.5)
    for key in ("a:b", "ü", *KEYS[:40]):
        for client in clients:
            assert route_of(ask(client, model, body={"route_key": key})) == expected(model, key, 0.5)
    lone = next(key for key in KEYS if expected(model, key, 0.5) == CANARY)
    other = next(key for key in KEYS if expected(model, key, 0.5) == STABLE)
    for client in clients:
        assert route_of(ask(client, model, key=lone, body={"route_key": other})) == CANARY


def test_a_key_that_is_no_text_is_refused_with_and_without_a_canary(put, clients):
    for _ in range(2):
        for client in clients:
            problem = ask(client, QUICK, body={"route_key": 7})
            assert (problem.status_code, problem.json()["field"]) == (422, "route_key")
            tensors = infer_body() | {"parameters": {"route_key": 7}}
            problem = client.post(f"/v2/models/{QUICK}/infer", json=tensors)
            assert (problem.status_code, problem.json()["field"]) == (422, "route_key")
        put(1.0)


def infer_body():
    return {
        "inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.5]} for name in ONNX_INPUTS],
    }


def test_tensors_may_carry_their_key_as_a_parameter(put, clients):
    put(0.5)
    for key in KEYS[:40]:
        for client in clients:
            answer = client.post(f"/v2/models/{QUICK}/infer", json=infer_body() | {"parameters": {"route_key": key}})
            said = (answer.json()["model_version"], answer.headers["x-model-route"])
            assert said == expected(QUICK, key, 0.5)


def test_a_column_of_the_rows_is_their_key_in_the_protocols_of_others(put, clients):
    put(0.5)
    names = ",".join(["route_key", *ONNX_INPUTS])
    for key in KEYS[:20]:
        record = {"route_key": key, **dict.fromkeys(ONNX_INPUTS, 1.5)}
        line = ",".join([key, *["1.5"] * len(ONNX_INPUTS)])
        for client in clients:
            path, csv = f"/v1/models/{QUICK}/invocations", {"content-type": "text/csv"}
            given = [{"content": f"{names}\n{line}\n{line}\n", "headers": csv}, {"json": {"instances": [record] * 2}}]
            for body in given:
                answer = client.post(path, **body)
                said = (answer.headers["x-model-version"], answer.headers["x-model-route"])
                assert (answer.status_code, said) == (200, expected(QUICK, key, 0.5))


def test_every_protocol_is_routed(put, clients):
    put(1.0)
    for client in clients:
        answer = ask(client, SLOW, path="invocations", body={"inputs": ROWS[SLOW]})
        assert (answer.headers["x-model-version"], answer.headers["x-model-route"]) == CANARY
        answer = client.post(f"/v2/models/{QUICK}/infer", json=infer_body())
        assert (answer.headers["x-model-version"], answer.headers["x-model-route"]) == CANARY


@MODELS
def test_who_names_a_version_is_not_routed_and_who_asks_for_stable_gets_it(put, clients, model):
    put(1.0)
    for client in clients:
        assert route_of(ask(client, model, path="versions/1/predict")) == PINNED
        assert route_of(ask(client, model, **{"x-model-route": "stable"})) == PINNED
        assert ask(client, model, path="versions/2/predict").status_code == 404


def test_what_is_wrong_with_a_request_is_told_by_the_version_that_was_asked(put, clients):
    put(1.0)
    answers = [client.post(f"/v1/models/{QUICK}/predict", json={"rows": [{"x": 1}]}) for client in clients]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert {answer.headers["x-model-route"] for answer in answers} == {"stable"}  # neither takes it
    unread = [client.post(f"/v1/models/{QUICK}/predict", content=b"x") for client in clients]
    assert all("x-model-route" not in answer.headers for answer in unread)  # it was never decided


def test_a_canary_that_does_not_take_what_production_takes_leaves_it_to_production(put, clients):
    put(1.0, version="3", models=(QUICK,))
    for client in clients:
        assert route_of(ask(client, QUICK)) == STABLE


def test_status_and_metrics_tell_the_routes(put, clients):
    put(0.25)
    for client in clients:
        routes = client.get("/status").json()["models"][QUICK]["routes"]
        assert routes["stable"] == {"version": "1", "weight": 0.75}
        assert (routes["canary"]["version"], routes["canary"]["engine"], routes["canary"]["refusal"]) == (
            "2",
            "onnx",
            None,
        )
        text = client.get("/metrics").text
        assert 'serving_route_weight{model="quick",model_route="canary",version="2"} 0.25' in text


def test_a_canary_that_cannot_be_loaded_leaves_everything_to_production(built, tmp_path):
    copies = {place: shutil.copytree(folder, tmp_path / "_".join(place)) for place, folder in built.items()}
    registry = FakeRegistry(copies, aliases={(QUICK, "production"): "1"})
    (copies[QUICK, "2"] / "model.onnx").write_bytes(b"other bytes")
    registry.put_beside(QUICK, "canary", "2", 1.0)
    with running(settings_for(tmp_path / "cache"), registry) as url, httpx.Client(base_url=url) as client:
        until(lambda: shown(client, QUICK))
        assert "model.onnx" in shown(client, QUICK)["refusal"]["reason"]
        assert {route_of(ask(client, QUICK, key=key)) for key in KEYS[:20]} == {STABLE}


def test_weights_that_change_under_requests_never_mix_two_versions(put, registry, clients):
    put(0.5)
    answers = []
    with httpx.Client(base_url=clients[0].base_url) as other:
        for n in range(400):
            if n % 40 == 0:
                registry.put_beside(QUICK, "canary", "2", (n % 80) / 40)
            answers.append(other.post(f"/v1/models/{QUICK}/predict", json={"rows": ROWS[QUICK]}))
    said = {}
    for answer in answers:
        said.setdefault(route_of(answer), set()).add(json.dumps(answer.json()["probabilities"]))
    assert set(said) == {STABLE, CANARY}
    assert all(len(numbers) == 1 for numbers in said.values())


def test_the_documentation_tells_of_the_key(clients):
    paths = clients[0].get("/openapi.json").json()["paths"]
    for path in ("/v1/models/{model}/predict", f"/v1/models/{QUICK}/predict"):
        forms = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
        assert all(form["properties"]["route_key"]["type"] == "string" for form in forms)
        assert all("route_key" not in form["required"] for form in forms)
