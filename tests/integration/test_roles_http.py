"""Who may do what at our own servers: every route by every role, as the tables of docs/access.md say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.staticfiles import StaticFiles

from release_platform.adapters.api_keys import ApiKeyFile
from release_platform.domain.api_keys import Scope
from serving.server import build_server
from tests.fakes.operators import client_of, running_api
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import FakeRegistry
from tests.fakes.server import on_a_thread, settings_for

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
ROLES = ("nobody", *(scope.value for scope in Scope))
MODEL = "cancer"
FILLED = {"model": MODEL, "version": "1", "request_id": "none", "order": "pause", "drill_id": "none", "rest": "x"}
DENIALS = {"urn:model-release:problem:unauthenticated": 401, "urn:model-release:problem:forbidden": 403}


def table(title: str) -> dict[str, set[str]]:
    """Returns the roles that may send each call, as a table of the page says."""
    rows = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    columns = cells[0][1:]
    assert set(columns) == set(ROLES)
    return {
        row[0].strip("`"): {role for role, cell in zip(columns, row[1:], strict=True) if cell == "yes"}
        for row in cells[2:]
    }


def routes_of(app: FastAPI) -> set[str]:
    """Returns every call that an application answers, those that its documentation does not show too."""
    found = set()
    for route in iter_route_contexts(app.routes):
        if route.methods is None:  # a folder of files
            assert isinstance(route.app, StaticFiles), route.path
            found.add(f"GET {route.path}/{{rest}}")
            continue
        path = re.sub(r"{(\w+):\w+}", r"{\1}", str(route.path))
        found |= {f"{method} {path}" for method in route.methods - {"HEAD"}}
    documented = {
        f"{method.upper()} {path.replace(f'/{MODEL}/', '/{model}/')}"  # it has paths of each model's own
        for path, of in app.openapi()["paths"].items()
        for method in of
    }
    assert {re.sub(r"{(\w+):\w+}", r"{\1}", call) for call in documented} <= found
    return found


@dataclass(frozen=True)
class Server:
    """A running server, its routes, and a client of each role."""

    title: str
    routes: set[str]
    clients: dict[str, httpx.Client]

    def is_denied(self, role: str, call: str) -> bool:
        method, _, template = call.partition(" ")
        with self.clients[role].stream(
            method, template.format(**FILLED), json={} if method == "POST" else None
        ) as sent:
            if sent.headers["content-type"] != "application/problem+json":
                return False
            sent.read()
            kind = sent.json()["type"]
            assert DENIALS.get(kind, sent.status_code) == sent.status_code
            return kind in DENIALS


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    file = ApiKeyFile(folder / "api-keys.json")
    keys = {scope.value: file.create(scope.value, [scope])[1] for scope in Scope}
    package = build_linear_classifier(folder / "1", n_rows=300)
    registry = FakeRegistry({(MODEL, "1"): package}, aliases={(MODEL, "production"): "1"})
    server = build_server(settings_for(folder / "cache", api_keys=folder / "api-keys.json"), registry)
    app = server.config.app
    assert isinstance(app, FastAPI)
    with on_a_thread(server) as url:
        clients = {role: httpx.Client(base_url=url, headers={"x-api-key": keys.get(role, "")}) for role in ROLES}
        del clients["nobody"].headers["x-api-key"]
        yield Server("Serving", routes_of(app), clients)
        for client in clients.values():
            client.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_api(tmp_path_factory.mktemp("api"), {}) as operators:
        named = {"predict": "client", "read": "reader", "admin": "admin", "operator": "ada", "nobody": ""}
        clients = {role: client_of(operators, name) for role, name in named.items()}
        yield Server("The operators' API", routes_of(operators.app), clients)
        for client in clients.values():
            client.close()


@pytest.fixture(params=["serving", "api"])
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


def test_every_route_is_in_the_table_and_every_row_is_a_route(server: Server) -> None:
    assert set(table(server.title)) == server.routes


@pytest.mark.parametrize("role", ROLES)
def test_every_call_is_open_to_the_roles_of_its_row_and_to_no_other(server: Server, role: str) -> None:
    decided = table(server.title)
    found = {call: not server.is_denied(role, call) for call in server.routes}
    assert found == {call: role in decided[call] for call in server.routes}


@pytest.mark.parametrize("call", ["GET /unknown", "POST /v1/unknown", "DELETE /v1/models", "PUT /v1/models/{model}"])
def test_what_there_is_not_needs_a_key_as_well(server: Server, call: str) -> None:
    assert server.is_denied("nobody", call)


SPELLINGS = """
//v1/models /v1//models /v1/models/ /V1/models /v1/%6dodels /livez/../v1/models /livez/%2e%2e/v1/models /livez/
/livez;/v1/models /livez%2f..%2fv1/models /v1/models;x /v1/models%00
"""


@pytest.mark.parametrize("path", SPELLINGS.split())
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE"])
def test_no_spelling_of_a_path_opens_a_door_without_a_key(server: Server, method: str, path: str) -> None:
    client = server.clients["nobody"]
    url = httpx.URL(str(client.base_url)).copy_with(raw_path=path.encode())
    answer = client.send(client.build_request(method, url))
    assert answer.status_code in {401, 404, 400}, answer.text


@pytest.mark.parametrize("header", ["x-http-method-override", "x-original-url", "x-rewrite-url", "x-forwarded-user"])
def test_no_header_opens_a_door_without_a_key(server: Server, header: str) -> None:
    client = server.clients["nobody"]
    for value in ("GET", "/livez", "ada"):
        assert client.get("/v1/models", headers={header: value}).status_code == 401
        assert client.post("/v1/models", headers={header: value}).status_code == 401
