"""The operators' API: what named holders of keys may do, and that a retry has one effect."""

import base64
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from release_platform.domain.api_keys import Scope
from release_platform.project import read_projects
from release_platform.rollouts import Rollouts
from tests.fakes.operators import MODEL, POLICY, Operators, client_of, running_api, secret_of
from tests.fakes.packages import build_linear_classifier
from tests.unit.test_drift_day import DRIFTED


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("packages")
    return {(MODEL, str(n)): build_linear_classifier(root / str(n), n_rows=300 + n) for n in (1, 2, 3)}


@pytest.fixture
def operators(tmp_path: Path, packages: dict[tuple[str, str], Path]) -> Iterator[Operators]:
    with running_api(tmp_path, packages) as running:
        yield running


@pytest.fixture
def ada(operators: Operators) -> Iterator[httpx.Client]:
    with client_of(operators, "ada") as client:
        yield client


@pytest.fixture
def grace(operators: Operators) -> Iterator[httpx.Client]:
    with client_of(operators, "grace") as client:
        yield client


def ask(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post(f"/v1/models/{MODEL}/requests", json={"reason": "better", **body})


def back(client: httpx.Client, once: str, **body: object) -> httpx.Response:
    body = {"reason": "errors", **body}
    return client.post(f"/v1/models/{MODEL}/rollback", json=body, headers={"idempotency-key": once})


# Who


def test_a_request_is_in_the_name_of_the_key(operators: Operators, ada: httpx.Client) -> None:
    operators.stage("1")
    answer = ask(ada)
    assert answer.status_code == 201
    (request,) = operators.releases.store.requests(MODEL)
    assert (request.actor, request.version, request.reason) == ("ada", "1", "better")
    assert answer.json()["request_id"] == request.request_id
    assert answer.json()["missing"] == [
        f"1 of 1 approval(s) by others than ada are missing: `release approve {request.request_id}`"
    ]


@pytest.mark.parametrize("field", ["actor", "name", "requester"])
def test_a_name_in_the_body_is_refused(operators: Operators, ada: httpx.Client, field: str) -> None:
    operators.stage("1")
    assert ask(ada, **{field: "grace"}).status_code == 422
    assert operators.releases.store.requests(MODEL) == ()


def test_headers_and_parameters_name_nobody(operators: Operators) -> None:
    operators.stage("1")
    said = {"x-forwarded-user": "grace", "x-release-operator": "grace", "x-remote-user": "grace", "from": "grace"}
    with client_of(operators, "ada") as client:
        client.headers.update(said)
        answer = client.post(f"/v1/models/{MODEL}/requests?actor=grace", json={"reason": "better"})
    assert answer.json()["actor"] == "ada"


def test_who_asked_cannot_approve_and_another_person_can(
    operators: Operators, ada: httpx.Client, grace: httpx.Client
) -> None:
    operators.stage("1")
    path = f"/v1/requests/{ask(ada).json()['request_id']}/approval"
    own = ada.post(path, json={"reason": "mine"})
    assert (own.status_code, own.json()["detail"]) == (409, "ada asked for this promotion")
    assert own.json()["remedy"] == "another person must approve it"
    given = grace.post(path, json={"reason": "read it"}).json()
    assert given["missing"] == []
    assert [(one["actor"], one["standing"]) for one in given["approvals"]] == [("grace", "valid")]


def test_whoami_tells_name_and_scopes_of_every_good_key_by_each_way_to_show_it(operators: Operators) -> None:
    key = operators.key("reader", Scope.READ)
    basic = base64.b64encode(f"whoever:{key}".encode()).decode()
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}, {"authorization": f"Basic {basic}"}):
        answer = httpx.get(f"{operators.url}/v1/whoami", headers=headers)
        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["scopes"]) == ("reader", ["read"])
        assert answer.headers["x-release-operator"] == "reader"
    asked = {"scope": "operator"}
    assert httpx.get(f"{operators.url}/v1/whoami", params=asked, headers={"x-api-key": key}).status_code == 403


def test_a_login_opens_whoami_only(operators: Operators) -> None:
    operators.stage("1")
    login = ("ada", operators.key("ada"))
    assert httpx.get(f"{operators.url}/v1/whoami", auth=login).status_code == 200
    assert httpx.get(f"{operators.url}/v1/models", auth=login).status_code == 401
    path = f"{operators.url}/v1/models/{MODEL}/requests"
    assert httpx.post(path, auth=login, json={"reason": "better"}).status_code == 401


def test_a_browser_is_asked_for_a_login_at_whoami_and_a_client_for_a_key_elsewhere(operators: Operators) -> None:
    asked = {path: httpx.get(f"{operators.url}{path}").headers["www-authenticate"] for path in ("/v1/whoami", "/v1/x")}
    assert asked == {"/v1/whoami": 'Basic realm="operators"', "/v1/x": "Bearer"}


def test_a_revoked_key_is_nobodys(operators: Operators, ada: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("release_platform.adapters.key_ring.LOOK_EVERY_S", 0.0)
    assert ada.get("/v1/whoami").status_code == 200
    (key,) = [key for key in operators.key_file.all() if key.name == "ada"]
    operators.key_file.revoke(key.key_id, "lost")
    assert ada.get("/v1/whoami").status_code == 401


# Once


def test_a_request_that_is_sent_again_is_the_same_one_whatever_happened_since(
    operators: Operators, ada: httpx.Client, grace: httpx.Client
) -> None:
    operators.stage("1")
    ada.headers["idempotency-key"] = "change-4711"
    first = ask(ada).json()["request_id"]
    operators.stage("2")
    assert ask(ada).json()["request_id"] == first
    grace.post(f"/v1/requests/{first}/approval", json={})
    operators.releases.promote(first, POLICY)
    again = ask(ada).json()
    assert (again["request_id"], again["version"], again["state"]) == (first, "1", "promoted")
    assert len(operators.releases.store.requests(MODEL)) == 1


def test_the_same_id_of_somebody_else_is_another_act(
    operators: Operators, ada: httpx.Client, grace: httpx.Client
) -> None:
    operators.stage("1")
    for client in (ada, grace):
        client.headers["idempotency-key"] = "1"
    assert ask(ada).json()["request_id"] != ask(grace).json()["request_id"]


def test_a_repeated_id_for_another_version_is_refused(operators: Operators, ada: httpx.Client) -> None:
    operators.stage("1")
    operators.stage("2")
    ada.headers["idempotency-key"] = "1"
    assert ask(ada, version="1").status_code == 201
    assert ask(ada, version="2").status_code == 409


def test_a_rollback_goes_back_once_however_often_and_at_once_it_is_sent(
    operators: Operators, ada: httpx.Client
) -> None:
    for version in ("1", "2", "3"):
        operators.promote(version)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: back(ada, "one"), range(6)))
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert done
    assert operators.production == "2"
    again = back(ada, "one").json()
    assert (again["epoch"], again["actor"], again["version"]) == (done[0]["epoch"], "ada", "2")
    assert again["servers"] == ["http://replica: serves version 2 since epoch 7"]
    assert back(ada, "two").json()["version"] == "1"


def test_a_rollback_without_an_id_is_not_taken(operators: Operators, ada: httpx.Client) -> None:
    operators.promote("1")
    operators.promote("2")
    answer = ada.post(f"/v1/models/{MODEL}/rollback", json={"reason": "errors"})
    assert (answer.status_code, operators.production) == (422, "2")
    assert "Idempotency-Key" in answer.json()["detail"]


def test_an_approval_that_is_sent_again_is_one(operators: Operators, ada: httpx.Client, grace: httpx.Client) -> None:
    operators.stage("1")
    request_id = ask(ada).json()["request_id"]
    for _ in range(3):
        assert grace.post(f"/v1/requests/{request_id}/approval", json={"reason": "read it"}).status_code == 200
    assert len(operators.releases.store.approvals(request_id)) == 1
    grace.post(f"/v1/requests/{request_id}/approval", json={"reason": "read it again, with slices"})
    assert len(operators.releases.store.approvals(request_id)) == 2


# Cancelling


def test_a_cancelled_request_is_never_carried_out(operators: Operators, ada: httpx.Client, grace: httpx.Client) -> None:
    operators.stage("1")
    request_id = ask(ada).json()["request_id"]
    grace.post(f"/v1/requests/{request_id}/approval", json={})
    for _ in range(2):
        answer = grace.post(f"/v1/requests/{request_id}/cancellation", json={"reason": "wrong version"})
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert answer.json()["outcome"] == "by grace: wrong version"
    with pytest.raises(Exception, match="is cancelled: by grace"):
        operators.releases.promote(request_id, POLICY)
    assert operators.production is None
    assert grace.post(f"/v1/requests/{request_id}/approval", json={}).status_code == 409
    assert ask(ada).json()["request_id"] != request_id


def test_what_was_promoted_cannot_be_cancelled(operators: Operators, ada: httpx.Client) -> None:
    operators.promote("1")
    (request,) = operators.releases.store.requests(MODEL)
    answer = ada.post(f"/v1/requests/{request.request_id}/cancellation", json={"reason": "too late"})
    assert (answer.status_code, operators.production) == (409, "1")
    assert "release rollback" in answer.json()["remedy"]


# Drift


def test_a_hold_is_lifted_in_the_name_of_the_key(operators: Operators, ada: httpx.Client) -> None:
    operators.promote("1")
    path = f"/v1/models/{MODEL}/drift/lift"
    nothing = ada.post(path, json={"reason": "known"})
    said = f"{MODEL}: no drift alarm holds its promotions, or is to take its version back"
    assert (nothing.status_code, nothing.json()["detail"]) == (409, said)
    operators.releases.store.drift.record(replace(DRIFTED, model=MODEL, version="1"))
    operators.stage("2")
    assert "this holds promotions" in ask(ada).json()["missing"][0]
    assert ada.get(f"/v1/models/{MODEL}").json()["drift"]["holds"] is True
    with client_of(operators, "reader") as reader:
        assert reader.post(path, json={"reason": "known"}).status_code == 403
    for _ in range(2):
        lifted = ada.post(path, json={"reason": "known"}).json()
        assert (lifted["holds"], lifted["lift"]["actor"], lifted["lift"]["reason"]) == (False, "ada", "known")
    assert "holds promotions" not in "".join(ask(ada).json()["missing"])


# Reading


def test_reading_answers_what_the_command_line_shows(operators: Operators) -> None:
    operators.promote("1")
    with client_of(operators, "reader") as reader:
        assert {one["model"]: one["production"] for one in reader.get("/v1/models").json()}[MODEL] == "1"
        assert reader.get(f"/v1/models/{MODEL}").json()["production"] == "1"
        rows = reader.get(f"/v1/models/{MODEL}/history").json()
        assert [(row["move"], row["actor"]) for row in rows] == [("staged", "trainer"), ("promoted", "ada")]
        served = reader.get(f"/v1/models/{MODEL}/who-served", params={"at": datetime.now(UTC).isoformat()}).json()
        assert (served["version"], served["by"]["actor"]) == ("1", "ada")
        (request,) = reader.get(f"/v1/models/{MODEL}/requests", params={"state": "promoted"}).json()
        assert reader.get(f"/v1/requests/{request['request_id']}").json() == request
        assert reader.get(f"/v1/models/{MODEL}/requests", params={"state": "open"}).json() == []


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models/none/history", 404),
        ("GET", "/v1/requests/none", 404),
        ("GET", f"/v1/models/{MODEL}/who-served?at=2000-01-01", 404),
        ("GET", f"/v1/models/{MODEL}/who-served?at=yesterday", 422),
        ("GET", f"/v1/models/{MODEL}/requests?state=lost", 422),
        ("POST", f"/v1/models/{MODEL}/requests", 409),  # nothing is in Staging
        ("POST", "/v1/requests/none/approval", 404),
        ("POST", "/v1/nothing", 404),
        ("DELETE", f"/v1/models/{MODEL}", 405),
    ],
)
def test_every_error_is_a_problem_that_says_what_to_do_next(
    operators: Operators, ada: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = ada.request(method, path, json={"reason": "better"} if method == "POST" else None)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["detail"]
    assert document["remedy"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"reason": " "}', b'{"reason": "x", "version": "../1"}', b"\xff"])
def test_a_body_that_is_none_changes_nothing(operators: Operators, ada: httpx.Client, body: bytes) -> None:
    operators.stage("1")
    answer = ada.post(f"/v1/models/{MODEL}/requests", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert operators.releases.store.requests(MODEL) == ()


def test_a_body_that_is_too_large_is_refused(operators: Operators, ada: httpx.Client) -> None:
    assert ask(ada, reason="x" * 100_000).status_code == 413


def test_a_database_that_does_not_answer_is_told_as_such(operators: Operators, ada: httpx.Client) -> None:
    operators.stage("1")
    operators.releases.registry.down = True
    answer = ask(ada)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_key_is_held_to_its_rate(operators: Operators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("release_platform.adapters.key_ring.LOOK_EVERY_S", 0.0)
    operators.key("slow", Scope.READ, rate_per_minute=2)
    with client_of(operators, "slow") as slow:
        answers = [slow.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) >= 1


# Secrets


def test_no_key_is_in_the_ledger_the_logs_or_an_answer(
    operators: Operators, ada: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    operators.stage("1")
    key = operators.key("ada")
    answers = [
        ask(ada, reason=f"my key is {key}"),
        ask(ada, version=key),
        ask(ada, reason={"key": key}),
        ada.get(f"/v1/models/{MODEL}/who-served", params={"at": key}),
        ada.get(f"/v1/models/{MODEL}/requests", params={"state": key}),
        ada.get(f"/v1/models/{key}"),
        ada.post(f"/v1/requests/{key}/approval", json={}),
        ask(ada),
    ]
    assert [answer.status_code for answer in answers] == [409, 422, 422, 422, 422, 404, 404, 201]
    secret = secret_of(key)
    held = [path for path in operators.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert held == []
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("release_platform")]
    assert any(line.startswith("ada (key ") for line in ours)
    assert not any(key in line for line in ours)
    assert not any(secret in answer.content for answer in answers)


# Rollouts


@pytest.fixture
def canary(operators: Operators, ada: httpx.Client, grace: httpx.Client) -> str:
    """A version 2 that is a canary beside 1; returns the id of its request."""
    operators.promote("1")
    operators.stage("2")
    asked = ask(ada, strategy="canary")
    assert (asked.status_code, asked.json()["strategy"]) == (201, "canary")
    request_id = str(asked.json()["request_id"])
    grace.post(f"/v1/requests/{request_id}/approval", json={"reason": "read it"})
    spec = read_projects(operators.folder / "models")[0][MODEL].spec
    Rollouts(operators.releases).carry_out(request_id, spec)
    return request_id


def test_a_request_says_its_steps_as_the_yaml_does_and_what_is_none_is_named(
    operators: Operators, ada: httpx.Client
) -> None:
    operators.promote("1")
    operators.stage("2")
    steps = [{"weight": 0.05, "minimum_requests": 2000, "minimum_s": 600}, {"weight": 0.25}]
    for wrong in ({"canary": [{"weight": 2}]}, {"stages": []}, {"canary": [{"weight": 0.1, "wieght": 1}]}):
        assert ask(ada, strategy="canary", rollout=wrong).status_code == 422
    unused = ask(ada, strategy="all_at_once", rollout={"canary": steps})
    assert (unused.status_code, unused.json()["type"]) == (409, "urn:model-release:problem:refused")
    assert "all_at_once has no canary" in unused.text
    asked = ask(ada, strategy="canary", rollout={"canary": steps, "gates": [{"metric": "errors", "margin": 0.005}]})
    assert asked.status_code == 201
    said = asked.json()["asked"]
    assert [(step["weight"], step["minimum_requests"], step["minimum_s"]) for step in said["canary"]] == [
        (0.05, 2000, 600),
        (0.25, 100, 300),
    ]
    assert operators.releases.store.get_request(asked.json()["request_id"]).asked.to_json() == said


def order(client: httpx.Client, name: str, reason: str = "it hurts") -> httpx.Response:
    return client.post(f"/v1/models/{MODEL}/rollout/{name}", json={"reason": reason})


def test_a_rollout_is_shown_to_who_may_read(operators: Operators, canary: str) -> None:
    with client_of(operators, "reader") as reader:
        state = reader.get(f"/v1/models/{MODEL}/rollout").json()
        request = reader.get(f"/v1/requests/{canary}").json()
        assert order(reader, "abort").status_code == 403
    assert (state["state"], state["version"], state["stable"], state["stage"]) == ("running", "2", "1", 1)
    assert request["rollout"] == "running in stage 1 of 4, canary 5 %"
    assert request["missing"] == ["its rollout is under way: running in stage 1 of 4, canary 5 %"]


def test_an_order_to_a_rollout_is_in_the_name_of_the_key(
    operators: Operators, grace: httpx.Client, canary: str
) -> None:
    first = order(grace, "abort")
    assert (first.status_code, first.json()["state"], first.json()["actor"]) == (200, "aborted", "grace")
    assert order(grace, "abort").json() == first.json()
    row = operators.releases.store.ledger(MODEL)[-1]
    assert (row.move, row.weight, row.actor) == ("canary_set", 0.0, "grace")
    assert operators.releases.store.get_request(canary).outcome == "its rollout was aborted: abort by grace: it hurts"
    late = order(grace, "resume")
    assert (late.status_code, late.json()["type"]) == (409, "urn:model-release:problem:refused")


def test_what_makes_no_sense_is_not_taken(operators: Operators, ada: httpx.Client) -> None:
    operators.stage("1")
    assert ask(ada, strategy="canray").status_code == 422
    assert order(ada, "explode").status_code == 422
    assert ada.get(f"/v1/models/{MODEL}/rollout").status_code == 404


def test_anybody_may_read_the_documentation_and_it_loads_nothing_from_elsewhere(operators: Operators) -> None:
    page = httpx.get(f"{operators.url}/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(loaded) == 3
    assert [httpx.get(f"{operators.url}/{one}").status_code for one in loaded] == [200, 200, 200]
    assert "https:" not in page
