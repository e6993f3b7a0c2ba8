"""Who may do what to MLflow: every call by every role through a real proxy in front of a real server."""

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.mlflow_rules import Call
from release_platform.adapters.mlflow_rest import reader_at
from release_platform.domain.api_keys import Scope
from tests.contract.registries import KeptOverRest, blank_mlflow, mlflow_server
from tests.fakes.mlflow_calls import path_of, present, word_of
from tests.fakes.operators import Operators, running_api
from tests.fakes.proxy import SECRET, running_proxy
from tests.integration.homes import blank_home

MODEL = "cancer"
BEHIND = "uvicorn"
"""What MLflow calls itself in every answer; the proxy's own answers do not."""


@dataclass(frozen=True)
class World:
    """MLflow, the proxy in front of it, and who has which key."""

    home: Path
    direct: str
    proxied: str
    operators: Operators

    def login(self, role: str) -> tuple[str, str] | None:
        """Returns what a person of a role types at the login; None for who types nothing."""
        match role:
            case "nobody":
                return None
            case "forger":
                return ("ada", "mrp_0123456789ab_" + "x" * 43)
            case "operator":
                return ("whoever", self.operators.key("ada"))
            case _:
                return ("whoever", self.operators.key(role))

    def content(self) -> str:
        """Returns everything that MLflow's database holds."""
        with closing(sqlite3.connect(self.home / "mlflow.db")) as database:
            return "\n".join(database.iterdump())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    home = blank_mlflow(blank_home(), folder / "home")
    with (
        mlflow_server(home, proxied=True) as direct,
        running_api(folder / "api", {}) as operators,
        running_proxy(folder / "proxy", mlflow=direct.removeprefix("http://"), api=operators.url[7:]) as proxy,
    ):
        KeptOverRest(folder / "kept", direct)
        yield World(home, direct, proxy.mlflow, operators)


ROLES = {
    # Which decisions let a role through, and what it is told otherwise.
    "nobody": ({"read"}, {"write": 401, "closed": 403}),
    "reader": (set(), {"read": 401, "write": 401, "closed": 401}),
    "client": (set(), {"read": 401, "write": 401, "closed": 401}),
    "admin": (set(), {"read": 401, "write": 401, "closed": 401}),
    "forger": (set(), {"read": 401, "write": 401, "closed": 401}),
    "operator": ({"read", "write"}, {"closed": 403}),
}


def send(client: httpx.Client, call: Call) -> tuple[bool, int]:
    """Sends a call with an empty body; returns whether it reached MLflow, and the status."""
    body = {} if call[0] in {"POST", "PUT", "PATCH"} else None
    with client.stream(call[0], path_of(call), json=body) as answer:
        return answer.headers.get("server") == BEHIND, answer.status_code


@pytest.mark.parametrize("role", ROLES)
def test_every_call_of_every_role_is_passed_or_refused_as_decided(world: World, role: str) -> None:
    let_through, told = ROLES[role]
    before = world.content()
    wrong = []
    with httpx.Client(base_url=world.proxied, auth=world.login(role), timeout=60) as client:
        for call in present():
            word = word_of(call)
            reached, status = send(client, call)
            if reached != (word in let_through) or (not reached and status != told[word]):
                wrong.append((*call, word, reached, status))
    assert wrong == []
    if role != "operator":
        assert world.content() == before, "a call that was decided to read has written"


def test_a_head_is_a_get_and_everything_else_is_unknown(world: World) -> None:
    methods = {
        "HEAD": True,
        "GET": True,
        "OPTIONS": False,
        "TRACE": False,
        "get": False,
        "PROPFIND": False,
        "POST": False,
        "CONNECT": False,
    }
    for method, passed in methods.items():
        assert b"uvicorn" in raw(world, f"{method} /version HTTP/1.1") or not passed, method
        assert (b"uvicorn" in raw(world, f"{method} /version HTTP/1.1")) is passed, method


def raw(world: World, line: str, *headers: str) -> bytes:
    """Sends a request as it is written, and returns what is answered."""
    host, _, port = world.proxied.removeprefix("http://").partition(":")
    head = "\r\n".join([line, "Host: localhost", "Content-Length: 2", "Connection: close", *headers, "", "{}"])
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode("latin-1"))
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


WRITE = "/api/2.0/mlflow/experiments/create"
READ = "/api/2.0/mlflow/experiments/search"
TRICKS = f"""
/{WRITE} {WRITE}/ {WRITE}// {WRITE};x {WRITE}%20 {WRITE}%00 {WRITE}%3b {WRITE}. {WRITE}%2f
/api//2.0/mlflow/experiments/create /./api/2.0/mlflow/experiments/create /x/..{WRITE} /%2e{WRITE}
/api/2.0/mlflow/experiments/%63reate /api/2.0/mlflow/experiments/Create /API/2.0/mlflow/experiments/create
/api/2.0/mlflow%2fexperiments/create /api/2.0/mlflow/experiments%2Fcreate /api%2f2.0/mlflow/experiments/create
{READ}/../create {READ}/%2e%2e/create {READ}/..;/create {READ}/..%2fcreate {READ}%2f..%2fcreate {READ}\\..\\create
/api/2.0/mlflow-artifacts/artifacts/../../mlflow/experiments/create
/api/2.0/mlflow-artifacts/artifacts/%2e%2e/%2e%2e/mlflow/experiments/create
/static-files/../api/2.0/mlflow/experiments/create /build/..%2f..{WRITE} {WRITE}#{READ} {READ}#/../create
http://localhost{WRITE} http://localhost/{WRITE} //localhost{WRITE} *
/api/2.0/mlflow/experiments/create?x={READ} /graphql/..{WRITE} /ajax-api/2.0/mlflow/experiments/create
""".split()


@pytest.mark.parametrize("path", TRICKS)
def test_no_spelling_of_a_write_is_passed_for_who_did_not_sign_in(world: World, path: str) -> None:
    before = world.content()
    answer = raw(world, f"POST {path} HTTP/1.1", "Content-Type: application/json")
    assert b"uvicorn" not in answer, answer
    assert world.content() == before


OVERRIDES = (
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: PUT",
    f"X-Original-URL: {WRITE}",
    f"X-Rewrite-URL: {WRITE}",
    f"X-Forwarded-Prefix: {WRITE}",
    f"X-Forwarded-Path: {WRITE}",
    f"X-Forwarded-Uri: {WRITE}",
    "X-Forwarded-User: ada",
    "X-Release-Operator: ada",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-For: 127.0.0.1",
    "Forwarded: for=127.0.0.1;host=evil.example",
    f"X-Proxy-Secret: {SECRET[:-1]}",
    "X-Proxy-Secret: ",
    "Authorization: ",
)


@pytest.mark.parametrize("header", OVERRIDES)
def test_no_header_makes_a_read_a_write_or_a_stranger_an_operator(world: World, header: str) -> None:
    before = world.content()
    body = ("Content-Type: application/json", header)
    raw(world, f"POST {READ} HTTP/1.1", *body)
    raw(world, f"GET {READ} HTTP/1.1", *body)
    assert b"uvicorn" not in raw(world, f"POST {WRITE} HTTP/1.1", *body)
    assert world.content() == before


def test_two_requests_in_one_are_two(world: World) -> None:
    inner = f"POST {WRITE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n" + '{"name": "two"}'
    before = world.content()
    raw(world, f"POST {READ} HTTP/1.1", "Transfer-Encoding: chunked", "", f"0\r\n\r\n{inner}")
    raw(world, f"POST {READ} HTTP/1.1", "Transfer-Encoding: xchunked", "", f"0\r\n\r\n{inner}")
    raw(world, f"POST {READ} HTTP/1.1", "Content-Length: 0", "", inner)
    assert world.content() == before


@pytest.mark.parametrize("name", ["Authorization", "X-Forwarded-User", "X-Proxy-Secret"])
def test_a_header_that_names_somebody_comes_once_or_not_at_all(world: World, name: str) -> None:
    assert b" 400 " in raw(world, "GET /version HTTP/1.1", f"{name}: a", f"{name}: b")[:20]


def test_another_host_name_is_refused(world: World) -> None:
    assert httpx.get(f"{world.proxied}/version", headers={"host": "evil.example"}).status_code == 421


def test_a_page_of_another_site_may_not_use_the_login_of_a_browser(world: World) -> None:
    login, foreign = world.login("operator"), {"origin": "http://evil.example"}
    answer = httpx.post(f"{world.proxied}{WRITE}", auth=login, headers=foreign, json={"name": "evil"})
    assert answer.status_code == 403
    own = {"origin": world.proxied}
    assert httpx.post(f"{world.proxied}{WRITE}", auth=login, headers=own, json={"name": "own"}).status_code == 200


def test_an_outer_proxy_that_proves_itself_names_who_signed_in(world: World) -> None:
    proof = {"x-proxy-secret": SECRET, "x-forwarded-user": "ada@example.org"}
    assert httpx.post(f"{world.proxied}{WRITE}", headers=proof, json={"name": "outer"}).status_code == 200
    nameless = {"x-proxy-secret": SECRET}
    assert httpx.post(f"{world.proxied}{WRITE}", headers=nameless, json={"name": "nameless"}).status_code == 401


def test_without_the_api_a_login_opens_nothing(world: World, tmp_path: Path) -> None:
    with running_proxy(tmp_path, mlflow=world.direct.removeprefix("http://")) as proxy:
        login = world.login("operator")
        assert httpx.post(f"{proxy.mlflow}{WRITE}", auth=login, json={"name": "x"}).status_code == 503
        assert httpx.get(f"{proxy.mlflow}/version").status_code == 200


def test_a_proxy_whose_secret_could_be_guessed_lets_nobody_in(world: World, tmp_path: Path) -> None:
    with running_proxy(tmp_path, mlflow=world.direct.removeprefix("http://"), PROXY_SHARED_SECRET="short") as proxy:
        headers = {"x-proxy-secret": "short", "x-forwarded-user": "ada"}
        assert httpx.get(f"{proxy.mlflow}/version", headers=headers).status_code == 500
        assert httpx.get(f"{proxy.mlflow}/version").status_code == 500


def test_a_browser_is_asked_to_sign_in_at_login(world: World) -> None:
    asked = httpx.get(f"{world.proxied}/login")
    assert (asked.status_code, asked.headers["www-authenticate"]) == (401, 'Basic realm="operators"')
    signed_in = httpx.get(f"{world.proxied}/login", auth=world.login("operator"))
    assert (signed_in.status_code, signed_in.headers["location"]) == (302, "/")


def test_a_revoked_key_signs_in_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("release_platform.adapters.key_ring.LOOK_EVERY_S", 0.0)
    world.operators.key("leaver", Scope.OPERATOR)
    login = world.login("leaver")
    assert httpx.get(f"{world.proxied}/login", auth=login).status_code == 302
    (key,) = [key for key in world.operators.key_file.all() if key.name == "leaver"]
    world.operators.key_file.revoke(key.key_id, "left")
    assert httpx.get(f"{world.proxied}/login", auth=login).status_code == 401


def test_serving_reads_the_registry_through_the_proxy_without_a_key(world: World, tmp_path: Path) -> None:
    reader = reader_at(world.proxied)
    assert MODEL in reader.models()
    first = next(iter(reader.versions(MODEL)))
    (tmp_path / "package").mkdir()
    assert reader.fetch(MODEL, first.version, tmp_path / "package").digest == first.digest
