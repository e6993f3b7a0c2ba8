"""`release api` and the operator's commands through it: real processes, each operator with a key of their own."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from release_platform.domain.policy import RequestState
from tests.chaos.operations import MODEL, POLICY, Parts, Place, log_package, open_parts, register
from tests.fakes.operators import secret_of, write_model
from tests.fakes.packages import build_linear_classifier, build_onnx_classifier, manifest_of
from tests.fakes.server import until
from tests.integration.homes import BIN, Command, Done, blank_home, environment_of, free_port, warm_release


@dataclass(frozen=True)
class Team:
    """A platform whose store takes no name that is merely said, its operators' API, and the operators' keys."""

    place: Place
    parts: Parts
    command: Command
    url: str
    log: Path

    def key_file(self, name: str) -> Path:
        return self.place.home.parent / f"{name}.key"

    def release(self, name: str, *arguments: str, **more: str) -> Done:
        """Runs `release` as an operator does on another machine: with an address and a key, and nothing else."""
        away = self.place.home.parent / "away"
        access = {"RELEASE_API_URL": self.url, "RELEASE_API_KEY_FILE": str(self.key_file(name))}
        return self.command(away, *arguments, **(access | more))

    def here(self, *arguments: str, **more: str) -> Done:
        """Runs `release` beside the store."""
        return self.command(self.place.home, *arguments, **(environment(self.place) | more))

    @property
    def production(self) -> str | None:
        return self.parts.store.head(MODEL).production


def environment(place: Place) -> dict[str, str]:
    return {"RELEASE_REQUIRE_KEYS": "true", "RELEASE_MODELS": str(place.home / "models"), "RELEASE_SERVING_URL": ""}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    place = Place(home=folder / "home", store_url=f"sqlite:///{folder / 'home' / 'release.db'}")
    shutil.copytree(blank_home(), place.home)
    write_model(place.home / "models")
    parts = open_parts(place)
    packages = [build_linear_classifier(folder / "packages" / str(n), n_rows=300 + n) for n in range(2)]
    packages.append(build_onnx_classifier(folder / "packages" / "2"))  # its columns have other names
    for name, package in zip(("first", "second", "third"), packages, strict=True):
        log_package(place, parts.store, name, package, manifest_of(package), folder / "artifacts")
        register(parts, name)
    port, log = free_port(), folder / "api.log"
    with warm_release() as command:
        for name, scope in (("ada", "operator"), ("grace", "operator"), ("reader", "read")):
            made = command(place.home, "api-key", "create", name, "--scope", scope)
            (folder / f"{name}.key").write_text(made.out)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(BIN / "release"), "api", "--port", str(port)],
                env=environment_of(place.home, **environment(place)),
                cwd=folder,
                stdout=file,
                stderr=file,
                preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
            )
        team = Team(place, parts, command, f"http://127.0.0.1:{port}", log)
        try:
            until(lambda: _answers(team, process), within_s=120)
            yield team
        finally:
            process.terminate()
            process.wait(20)
    parts.store.close()


def _answers(team: Team, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, team.log.read_text()
    try:
        return httpx.get(f"{team.url}/livez").is_success
    except httpx.TransportError:
        return False


def carry_out(team: Team) -> None:
    """Does what the promotion sensor does: waits until a request is approved, and carries it out."""

    def approved() -> bool:
        (request,) = team.parts.store.requests(MODEL, RequestState.OPEN)
        return bool(team.parts.store.approvals(request.request_id))

    until(approved, within_s=60)
    (request,) = team.parts.store.requests(MODEL, RequestState.OPEN)
    team.parts.releases.promote(request.request_id, POLICY)


def test_two_operators_release_and_take_back_in_the_names_of_their_keys(team: Team) -> None:
    waits = team.release("ada", "promote", MODEL, "--version", "1", "--reason", "better recall")
    assert waits.exit_code == 5
    assert "1 of 1 approval(s) by others than ada are missing" in waits.err
    (request,) = team.parts.store.requests(MODEL, RequestState.OPEN)

    refused = team.release("ada", "approve", request.request_id)
    assert (refused.exit_code, "ada asked for this promotion" in refused.err) == (5, True)
    assert "reader" not in refused.err
    assert team.release("reader", "approve", request.request_id).exit_code == 5

    sensor = Thread(target=carry_out, args=(team,))
    sensor.start()
    given = team.release("grace", "approve", request.request_id, "--reason", "read it", "--json")
    sensor.join()
    assert given.json["request_id"] == request.request_id
    assert team.production == "1"

    assert team.release("reader", "status", MODEL, "--json").json["production"] == "1"
    assert [one["model"] for one in team.release("reader", "models", "--json").json if one["production"]] == [MODEL]
    rows = team.release("reader", "history", MODEL, "--json").json
    assert [(row["move"], row["actor"]) for row in rows][-1] == ("promoted", "ada")
    assert team.release("reader", "history", MODEL).out.count("promoted") == 1
    served = team.release("reader", "who-served", MODEL, "--at", datetime.now(UTC).isoformat(), "--json").json
    assert (served["version"], served["by"]["actor"]) == ("1", "ada")
    assert "by ada since" in team.release("reader", "who-served", MODEL, "--at", datetime.now(UTC).isoformat()).out

    team.parts.releases.request(MODEL, version="2", actor="ada", reason="next", request_id="next")
    team.parts.releases.approve("next", actor="grace", reason="", policy=POLICY)
    team.parts.releases.promote("next", POLICY)
    taken_back = team.release("grace", "rollback", MODEL, "--reason", "errors", "--json")
    assert (taken_back.json["version"], taken_back.json["actor"]) == ("1", "grace")
    assert team.production == "1"


def test_a_request_can_be_cancelled(team: Team) -> None:
    team.parts.releases.request(MODEL, version="2", actor="ada", reason="again", request_id="again")
    done = team.release("grace", "cancel", "again", "--reason", "wrong version")
    assert "by grace: wrong version" in done.out
    assert team.parts.store.get_request("again").state is RequestState.CANCELLED


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", MODEL, "--version", "2", "--reason", "free", "--actor", "mallory"),
        ("promote", MODEL, "--version", "2", "--reason", "free"),
        ("approve", "q", "--actor", "mallory"),
        ("cancel", "q", "--reason", "free"),
        ("rollback", MODEL, "--reason", "free"),
        ("delete", MODEL, "1", "--reason", "free", "--actor", "mallory"),
    ],
)
def test_beside_the_store_no_name_that_is_merely_said_moves_anything(team: Team, arguments: tuple[str, ...]) -> None:
    before = team.parts.store.ledger(MODEL), team.parts.store.requests(MODEL)
    done = team.here(*arguments, RELEASE_ACTOR="mallory")
    assert done.exit_code == 5, done.err
    assert "RELEASE_API_URL" in done.err or "leave --actor out" in done.err
    assert (team.parts.store.ledger(MODEL), team.parts.store.requests(MODEL)) == before


def test_reading_beside_the_store_needs_no_key(team: Team) -> None:
    assert team.here("status", MODEL, "--json").json["model"] == MODEL


def test_with_the_api_nobody_may_be_named(team: Team) -> None:
    done = team.release("ada", "promote", MODEL, "--reason", "x", "--actor", "grace")
    assert (done.exit_code, "leave --actor out" in done.err) == (5, True)


@pytest.mark.parametrize(
    ("settings", "said", "code"),
    [
        ({"RELEASE_API_KEY_FILE": ""}, "asks for an API key", 5),
        ({"RELEASE_API_KEY_FILE": "none.key"}, "cannot be read", 6),
        ({"RELEASE_API_KEY_FILE": os.devnull}, "it is empty", 6),
        ({"RELEASE_API_KEY": "mrp_0123456789ab_" + "x" * 43}, "not valid", 5),
        ({"RELEASE_API_KEY": "Schl\u00fcssel"}, "is none", 5),
        ({"RELEASE_API_URL": "http://127.0.0.1:1"}, "does not answer", 6),
        ({"RELEASE_API_URL": "http://127.0.0.1:port"}, "no address", 2),
        ({"RELEASE_API_URL": "ftp://127.0.0.1"}, "does not answer", 6),
    ],
)
def test_what_is_wrong_with_address_or_key_is_said(team: Team, settings: dict[str, str], said: str, code: int) -> None:
    done = team.release("ada", "history", MODEL, **settings)
    assert (said in done.err, done.exit_code) == (True, code), done.err


def test_the_key_shows_neither_among_the_processes_nor_in_any_file_but_its_own(team: Team) -> None:
    key = team.key_file("ada").read_text().strip()
    running = subprocess.Popen(
        [str(BIN / "release"), "status", MODEL],
        env=environment_of(team.place.home, RELEASE_API_URL=team.url, RELEASE_API_KEY_FILE=str(team.key_file("ada"))),
        stdout=subprocess.DEVNULL,
    )
    assert not any(key in word for word in psutil.Process(running.pid).cmdline())
    assert running.wait(60) == 0
    httpx.get(f"{team.url}/v1/models/{MODEL}/who-served", params={"at": key}, headers={"x-api-key": key})
    secret = secret_of(key)
    files = [path for path in team.place.home.parent.rglob("*") if path.is_file() and path.suffix != ".key"]
    assert [path for path in files if secret in path.read_bytes()] == []
    assert "ada (key " in team.log.read_text()
    assert json.dumps(dict(os.environ)).count(key) == 0


# Drills


def promote(team: Team, version: str) -> None:
    team.parts.releases.request(MODEL, version=version, actor="ada", reason="next", request_id=f"to {version}")
    team.parts.releases.approve(f"to {version}", actor="grace", reason="", policy=POLICY)
    team.parts.releases.promote(f"to {version}", POLICY)


def test_a_drill_that_failed_says_as_json_what_it_showed(team: Team) -> None:
    promote(team, "3")
    epoch = team.parts.store.head(MODEL).epoch
    beside = {"RELEASE_REQUIRE_KEYS": "false", "RELEASE_SERVING_URL": "http://127.0.0.1:1"}
    done = team.here("drill", MODEL, "--json", **beside)
    assert (done.exit_code, done.json["outcome"]) == (7, "not_ready"), done.err
    assert (done.json["home"], done.json["away"], done.json["n_requests"]) == ("3", "1", 0)
    assert done.json["problems"][0] in done.err
    assert team.parts.store.head(MODEL).epoch == epoch
    none = team.here("drill", MODEL, "--json", **(beside | {"RELEASE_SERVING_URL": ""}))
    assert (none.exit_code, none.out) == (5, ""), "no drill was made"
    assert "names no server" in none.err


def test_a_drill_is_asked_for_through_the_api_and_never_in_a_name_that_is_merely_said(team: Team) -> None:
    refused = team.release("reader", "drill", MODEL)
    assert (refused.exit_code, "has no scope operator" in refused.err) == (5, True), refused.err
    none = team.release("grace", "drill", MODEL, "--json")
    assert (none.exit_code, none.out) == (5, ""), none.err
    assert "RELEASE_SERVING_URL names no server" in none.err
    named = team.release("grace", "drill", MODEL, "--actor", "ada")
    assert (named.exit_code, "leave --actor out" in named.err) == (5, True)
    beside = team.here("drill", MODEL, RELEASE_ACTOR="mallory")
    assert (beside.exit_code, "RELEASE_API_URL" in beside.err) == (5, True)


def test_a_drill_that_was_cut_off_is_said_as_json_when_it_is_brought_back(team: Team) -> None:
    team.parts.releases.rollback(MODEL, to="1", actor="ada", reason="drill: cut", request_id="cut#drill-there")
    done = team.here("drill", MODEL, "--json", RELEASE_REQUIRE_KEYS="false")
    assert (done.exit_code, done.json["drill_id"], done.json["outcome"]) == (5, "cut", "cut_off"), done.err
    team.parts.releases.rollback(MODEL, to="1", actor="ada", reason="drill: cut", request_id="far#drill-there")
    done = team.release("grace", "drill", MODEL, "--json")
    assert (done.exit_code, done.json["drill_id"], done.json["outcome"]) == (5, "far", "cut_off"), done.err
    assert "the drill was cut off; version 3 was rolled_back by grace" in done.err
    assert team.production == "3"
