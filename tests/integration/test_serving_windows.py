"""What routed requests came to, fetched over a real socket, with the fast path and without."""

from contextlib import ExitStack
from datetime import UTC, datetime

import httpx
import pytest

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.adapters.clock import SystemClock
from release_platform.domain.api_keys import Scope
from release_platform.domain.windows import NOT_FINITE, Window, number_bucket
from serving.routing import place_of
from tests.fakes.clock import FakeClock
from tests.fakes.packages import ONNX_INPUTS, build_linear_classifier, build_onnx_classifier, build_regression
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until

QUICK, SLOW = "quick", "slow"
ROWS = {QUICK: [dict.fromkeys(ONNX_INPUTS, 1.5)] * 2, SLOW: [{"bmi": 0.1, "bp": 0.1}]}
KEYS = [f"customer-{n}" for n in range(40)]
START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = int(START.timestamp() // 60)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return {
        (QUICK, "1"): build_onnx_classifier(root / "q1", model=QUICK),
        (QUICK, "2"): build_onnx_classifier(root / "q2", model=QUICK, n_rows=300),
        (QUICK, "3"): build_linear_classifier(root / "q3", model=QUICK),  # its inputs have other names
        (SLOW, "1"): build_regression(root / "s1", model=SLOW),
        (SLOW, "2"): build_regression(root / "s2", model=SLOW, overflows=True),
    }


@pytest.fixture(params=[True, False], ids=["fast", "declared"])
def served(request, built, tmp_path):
    """A client of a server on which both models have a canary of one half, and the server's clock."""
    registry = FakeRegistry(built, aliases={(model, "production"): "1" for model in (QUICK, SLOW)})
    for model in (QUICK, SLOW):
        registry.put_beside(model, "canary", "2", 0.5)
    clock = FakeClock(START)
    with ExitStack() as stack:
        settings = settings_for(tmp_path / "cache", fast_path=request.param)
        client = httpx.Client(base_url=stack.enter_context(running(settings, registry, clock=clock)))
        stack.enter_context(client)
        until(lambda: all(on_canary(client, model) == "2" for model in (QUICK, SLOW)))
        yield client, clock, registry


def on_canary(client, model):
    return client.get("/status").json()["models"].get(model, {}).get("routes", {}).get("canary", {}).get("version")


def ask(client, model, *, key=None, rows=None, path="predict"):
    headers = {} if key is None else {"x-route-key": key}
    return client.post(f"/v1/models/{model}/{path}", json={"rows": rows or ROWS[model]}, headers=headers)


def told(client, **parameters):
    answer = client.get("/v1/windows", params=parameters)
    assert answer.status_code == 200, answer.text
    (replica,) = answer.json()["replicas"]
    assert (answer.json()["silent"], answer.json()["closed"]) == (0, replica["closed"])
    return {(w.key.model, w.key.route, w.key.minute): w for w in map(Window.from_json, replica["windows"])}


def let_pass(client, clock, seconds):
    told(client)  # so that what is put down belongs to the minute before
    clock.pass_s(seconds)


def n_canary(model):
    return sum(place_of(model, key.encode()) < 0.5 for key in KEYS)


def test_each_arm_has_its_requests_latencies_and_predictions(served):
    client, clock, _ = served
    answers = {model: [ask(client, model, key=key).json() for key in KEYS] for model in (QUICK, SLOW)}
    assert told(client) == {}
    let_pass(client, clock, 31)
    windows = told(client)
    assert set(windows) == {(model, route, MINUTE) for model in (QUICK, SLOW) for route in ("stable", "canary")}
    for model in (QUICK, SLOW):
        n = n_canary(model)
        for route, version, requests in (("stable", "1", len(KEYS) - n), ("canary", "2", n)):
            window = windows[model, route, MINUTE]
            assert (window.key.version, window.requests, window.errors) == (version, requests, {})
            assert sum(window.latency.values()) == sum(window.predictions.values()) == requests
    said = {answer["version"]: answer["probabilities"][0][1] for answer in answers[QUICK]}
    for route, version in (("stable", "1"), ("canary", "2")):
        assert set(windows[QUICK, route, MINUTE].predictions) == {int(said[version] * 100)}


def test_what_the_version_failed_counts_and_what_the_client_did_wrong_does_not(served):
    client, clock, _ = served
    statuses = [ask(client, SLOW, key=key, rows=[{"bmi": 1e30, "bp": 0.1}]).status_code for key in KEYS]
    assert statuses.count(500) == n_canary(SLOW)
    for key in KEYS:
        assert ask(client, SLOW, key=key, rows=[{"bmi": "x", "bp": 0.1}]).status_code == 422
    assert client.post(f"/v1/models/{SLOW}/predict", content=b"{", headers={"content-type": "text/html"}).is_error
    let_pass(client, clock, 31)
    stable, canary = (told(client)[SLOW, route, MINUTE] for route in ("stable", "canary"))
    assert (stable.requests, stable.errors) == (len(KEYS) - n_canary(SLOW), {})
    assert (canary.requests, canary.errors) == (n_canary(SLOW), {NOT_FINITE: n_canary(SLOW)})


def test_a_request_that_only_production_takes_is_an_error_of_the_canary_and_counts_once(served):
    client, clock, registry = served
    registry.put_beside(QUICK, "canary", "3", 1.0)
    until(lambda: on_canary(client, QUICK) == "3")
    assert {ask(client, QUICK, key=key).headers["x-model-version"] for key in KEYS} == {"1"}
    let_pass(client, clock, 31)
    windows = told(client)
    assert windows[QUICK, "canary", MINUTE].errors == {"input_refused": len(KEYS)}
    assert windows[QUICK, "stable", MINUTE].requests == 0


def test_a_request_that_only_the_version_before_takes_is_an_error_of_the_one_in_production(served):
    client, clock, registry = served
    for alias, version in (("canary", None), ("production", "3"), ("previous", "1")):
        registry.set_alias(QUICK, alias, version)
    until(lambda: ask(client, QUICK).is_error and ask(client, QUICK, path="versions/1/predict").is_success)
    let_pass(client, clock, 31)
    answers = [ask(client, QUICK) for _ in range(5)] + [ask(client, QUICK, rows=[{"bmi": "what no version takes"}])]
    assert {(answer.status_code, answer.headers["x-model-version"]) for answer in answers} == {(422, "3")}
    let_pass(client, clock, 60)
    window = told(client)[QUICK, "stable", MINUTE + 1]
    assert (window.key.version, window.requests, window.errors) == ("3", 5, {"input_refused": 5})


@pytest.mark.parametrize("route", ["canary", "shadow"])
def test_while_a_version_is_judged_beside_it_no_refusal_counts_against_the_one_in_production(served, route):
    client, clock, registry = served
    for alias, version in (("canary", None), ("production", "3"), ("previous", "1")):
        registry.set_alias(QUICK, alias, version)
    registry.put_beside(QUICK, route, "2", 0.5)
    key = next(key for key in KEYS if place_of(QUICK, key.encode()) >= 0.5)
    until(lambda: ask(client, QUICK, key=key).is_error and ask(client, QUICK, path="versions/1/predict").is_success)
    until(lambda: route in client.get("/status").json()["models"][QUICK]["routes"])
    let_pass(client, clock, 31)
    assert {ask(client, QUICK, key=key).status_code for _ in range(5)} == {422}
    let_pass(client, clock, 60)
    window = told(client)[QUICK, "stable", MINUTE + 1]
    assert (window.key.version, window.requests, window.errors) == ("3", 0, {})


def test_who_chose_a_version_does_not_count_and_a_quiet_minute_does(served):
    client, clock, _ = served
    assert ask(client, QUICK, path="versions/1/predict").is_success
    let_pass(client, clock, 31)
    assert {window.requests for window in told(client).values()} == {0}
    let_pass(client, clock, 60)
    assert set(told(client, after=MINUTE)) == {
        (model, route, MINUTE + 1) for model in (QUICK, SLOW) for route in ("stable", "canary")
    }
    assert told(client, after=MINUTE + 1) == {}


def test_metrics_tell_the_routes_too(served):
    client, _, _ = served
    for key in KEYS:
        ask(client, QUICK, key=key)
    line = 'serving_routed_requests_total{{model="quick",model_route="{}",result="answered",version="{}"}} {}.0'
    until(lambda: line.format("canary", "2", n_canary(QUICK)) in client.get("/metrics").text)
    assert line.format("stable", "1", len(KEYS) - n_canary(QUICK)) in client.get("/metrics").text


def test_labels_that_are_told_later_count_for_the_arm_that_answered(served):
    client, clock, _ = served
    answers = [ask(client, QUICK, key=key) for key in KEYS]
    values = [ask(client, SLOW, key=key) for key in KEYS]
    pinned = ask(client, QUICK, path="versions/1/predict")
    let_pass(client, clock, 60)
    outcomes = [
        {"prediction_id": answer.headers["x-prediction-id"], "label": "benign", "cost": 2.0} for answer in answers
    ]
    outcomes += [
        {"prediction_id": answer.json()["prediction_id"], "label": answer.json()["predictions"][0] + 8.0}
        for answer in values
    ]
    unknown = pinned.headers["x-prediction-id"]  # it was not routed
    outcomes += [{"prediction_id": unknown, "label": "benign"}, outcomes[0]]
    told = client.post("/v1/outcomes", json=outcomes).json()
    again = {"repeated": [outcomes[0]["prediction_id"]] * 2, "unknown": [unknown]}
    assert told == {"counted": 3 * len(KEYS), **again, "held": [], "unanswered": [], "refused": []}
    let_pass(client, clock, 60)
    windows = told_in(client, MINUTE + 1)
    for model in (QUICK, SLOW):
        for route, n in (("stable", len(KEYS) - n_canary(model)), ("canary", n_canary(model))):
            assert sum(windows[model, route].outcomes_since("label", 0).values()) == n
    said = {answer.headers["x-model-route"]: answer.json()["predictions"][0] for answer in answers}
    for route, label in said.items():
        assert set(windows[QUICK, route].outcomes_since("label", 0)) == {number_bucket(float(label != "benign"))}
        assert set(windows[QUICK, route].outcomes_since("cost", 0)) == {number_bucket(2.0)}
    assert set(windows[SLOW, "stable"].outcomes_since("label", 0)) <= {number_bucket(8.0), number_bucket(7.9999)}


def told_in(client, minute):
    return {(model, route): window for (model, route, at), window in told(client).items() if at == minute}


def test_sampled_rows_are_told_to_who_has_a_key_for_it_and_give_the_same_answer_again(built, tmp_path):
    file = ApiKeyFile(tmp_path / "keys.json", SystemClock())
    _, key = file.create("all", list(Scope))
    registry = FakeRegistry(built, aliases={(QUICK, "production"): "1"})
    clock = FakeClock(START)
    settings = settings_for(tmp_path / "cache", api_keys=tmp_path / "keys.json", sample_share=1.0)
    with (
        running(settings, registry, clock=clock) as url,
        httpx.Client(base_url=url, headers={"x-api-key": key}) as client,
    ):
        until(lambda: client.get("/readyz").is_success)
        answer = ask(client, QUICK)
        assert ask(client, QUICK, path="versions/1/predict").is_success  # it was not routed
        ask_amiss(client)
        client.get("/v1/windows")  # counts what came so far in its minute, before the clock leaps
        clock.pass_s(60)
        (replica,) = client.get("/admin/samples").json()["replicas"]
        (calls,) = replica["calls"]
        assert (calls["model"], calls["answered"], calls["refused"]) == (QUICK, 1, 3)
        assert sorted(calls["faults"]) == [
            [ONNX_INPUTS[0], "missing", 2],
            [ONNX_INPUTS[0], "value", 1],
            ["other", "unknown", 1],
        ]
        (sample,) = replica["samples"]
        assert sample["prediction_id"] == answer.headers["x-prediction-id"]
        again = client.post(f"/v1/models/{QUICK}/predict", json={"columns": sample["columns"]})
        assert again.json()["predictions"] == answer.json()["predictions"] == sample["predictions"]


def ask_amiss(client):
    """Sends a row without an input, one that calls it otherwise, and one with text for a number."""
    whole, first = ROWS[QUICK][0], ONNX_INPUTS[0]
    lacks = {name: value for name, value in whole.items() if name != first}
    for row in (lacks, {**lacks, "made up": 1.0}, {**whole, first: "much"}):
        assert ask(client, QUICK, rows=[row]).status_code == 422


def test_without_api_keys_nobody_gets_samples(served):
    client, _, _ = served
    assert client.get("/admin/samples").status_code == 403


@pytest.mark.parametrize("after", ["-2", "x", "1e999", ""])
def test_what_is_no_minute_is_refused(served, after):
    client, _, _ = served
    answer = client.get("/v1/windows", params={"after": after})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_with_api_keys_it_takes_one_of_the_scope_read(built, tmp_path):
    keys = ApiKeyFile(tmp_path / "keys.json", SystemClock())
    shown = {scope: keys.create(scope.value, [scope])[1] for scope in Scope}
    registry = FakeRegistry(built, aliases={(QUICK, "production"): "1"})
    with running(settings_for(tmp_path / "cache", api_keys=tmp_path / "keys.json"), registry) as url:
        for scope, text in shown.items():
            answer = httpx.get(f"{url}/v1/windows", headers={"x-api-key": text})
            assert answer.status_code == (200 if scope is Scope.READ else 403)
        assert httpx.get(f"{url}/v1/windows").status_code == 401
