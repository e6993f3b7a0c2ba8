"""Every `release` command as a person and as a script use it: help, JSON, exit codes, and what it leaves behind."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from release_platform.cli.app import app
from release_platform.domain.ledger import genesis
from tests.fakes.server import until
from tests.integration.homes import BIN, ROOT, Command, environment_of, free_port, release_in, warm_release

MODEL = "breast_cancer"
COMMANDS = sorted(str(command.name) for command in app.registered_commands)


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The home that `release demo` made from nothing, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        [str(BIN / "release"), "demo", MODEL, "--port", str(free_port())],
        env=environment_of(folder / "home"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return folder / "home", out + err


@pytest.fixture(scope="module")
def home(demo: tuple[Path, str], release: Command) -> Path:
    """A home with version 1 in Production and version 2 in Staging."""
    made = release(demo[0], "run", MODEL, "--json")
    assert made.exit_code == 0, made.err
    return demo[0]


def test_the_demo_shows_each_stage_and_ends_with_what_where_who_and_why(demo: tuple[Path, str]) -> None:
    _, said = demo
    for words in (
        "1/4",
        "2/4",
        "3/4",
        "4/4",
        "raw_data",
        "registered_version",
        "auc_floor",
        "version 1 is in Production",
    ):
        assert words in said
    assert re.search(r"data fingerprint +sha256:", said)
    assert re.search(r"smoke test +passed: \d+ golden rows of version 1", said)
    assert "release lineage breast_cancer" in said


def test_the_demo_leaves_no_process_behind(demo: tuple[Path, str]) -> None:
    home, _ = demo
    assert [process for process in psutil.process_iter() if _belongs_to(process, home)] == []


def test_the_demo_of_a_model_that_demands_a_canary_begins_it_and_says_how_it_goes_on(
    release: Command, tmp_path: Path
) -> None:
    example = (ROOT / "release_platform" / "examples" / MODEL / "defs.yaml").read_text()
    (tmp_path / "models" / "biopsies").mkdir(parents=True)
    written = example.replace(f"name: {MODEL}", "name: biopsies", 1) + "  rollout: {strategy: canary}\n"
    (tmp_path / "models" / "biopsies" / "defs.yaml").write_text(written)
    home = tmp_path / "home"
    for words in (("run", "biopsies"), ("promote", "biopsies", "--reason", "first")):
        assert release(home, *words).exit_code == 0
    done = release(home, "demo", "biopsies", "--port", str(free_port()))
    assert done.exit_code == 0, done.err
    assert "2 (beside version 1 in Production: running in stage 1 of 4, canary 5 %)" in done.out
    assert "golden rows of version 1 equal to the last bit" in done.out
    assert "release rollout status biopsies --watch" in done.out


def _belongs_to(process: psutil.Process, home: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("RELEASE_HOME") == str(home)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_and_gives_an_example(release: Command, command: str, tmp_path: Path) -> None:
    done = release(tmp_path / "none", command, "--help")
    assert done.exit_code == 0
    assert re.search(rf"Examples?:\s+.*release {command}", done.out, re.DOTALL)
    assert not (tmp_path / "none").exists()


def test_the_help_lists_every_command_and_every_exit_code(tmp_path: Path) -> None:
    done = release_in(tmp_path / "none", "--help")
    assert done.exit_code == 0
    assert all(command in done.out for command in COMMANDS)
    for code in range(8):
        assert re.search(rf"\b{code} [a-z]", done.out)


def test_models_are_listed_with_where_they_stand(release: Command, home: Path) -> None:
    found = {row["model"]: row for row in release(home, "models", "--json").json}
    assert set(found) >= {"breast_cancer", "diabetes", "digits", "flight_delay"}
    assert (found[MODEL]["staging"], found[MODEL]["production"]) == ("2", "1")
    assert found["diabetes"]["production"] is None
    assert "breast_cancer" in release(home, "models").out


def test_status_shows_the_head_its_aliases_and_what_open_requests_wait_for(release: Command, home: Path) -> None:
    found = release(home, "status", MODEL, "--json").json
    assert (found["epoch"], found["production"], found["staging"]) == (3, "1", "2")
    assert (found["registry_wrong"], found["requests"]) == ([], [])
    assert "production: 1  staging: 2" in release(home, "status", MODEL).out
    assert {state["model"] for state in release(home, "status", "--json").json} >= {MODEL, "digits"}


def test_history_tells_who_moved_what_when_and_why_in_a_chain_of_hashes(release: Command, home: Path) -> None:
    rows = release(home, "history", MODEL, "--json").json
    assert [(row["epoch"], row["move"], row["version"]) for row in rows] == [
        (1, "staged", "1"),
        (2, "promoted", "1"),
        (3, "staged", "2"),
    ]
    assert rows[1]["reason"] == "demo: every gate passed"
    assert rows[0]["previous_hash"] == genesis(MODEL)
    assert [row["previous_hash"] for row in rows[1:]] == [row["hash"] for row in rows[:-1]]
    table = release(home, "history", MODEL).out
    assert "demo: every gate passed" in table


def test_lineage_goes_back_to_data_code_parameters_gates_and_runs(release: Command, home: Path) -> None:
    found = release(home, "lineage", MODEL, "1", "--json").json
    assert found["data"]["fingerprint"].startswith("sha256:")
    assert all(Path(snapshot["uri"]).is_file() for snapshot in found["data"]["snapshots"])
    assert found["code"]["lock"].startswith("sha256:")
    assert found["parameters"]["estimator.C"] == "0.5"
    assert found["metrics"]["roc_auc"]["value"] > 0.97
    assert {gate["verdict"] for gate in found["gates"]} == {"passed"}
    assert found["compared_with"] == "nothing: first release"
    assert (found["consistent"], found["missing"]) == (True, [])
    assert [move["move"] for move in found["moves"]] == ["staged", "promoted"]
    assert release(home, "lineage", MODEL, "2", "--json").json["compared_with"] == "1"
    assert release(home, "lineage", MODEL, "--json").json["version"] == "1"
    assert "fingerprint" in release(home, "lineage", MODEL).out


def test_a_run_prints_the_identity_of_its_version_and_its_gates(release: Command, demo: tuple[Path, str]) -> None:
    found = release(demo[0], "run", "diabetes", "--json").json
    assert (found["model"], found["version"]) == ("diabetes", "1")
    assert {gate["verdict"] for gate in found["gates"]} == {"passed"}
    lineage = release(demo[0], "lineage", "diabetes", "--json").json
    assert lineage["digest"] == found["digest"]


def test_what_is_in_production_is_served_and_verified(release: Command, home: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [str(BIN / "release"), "serve", "--port", str(port)],
        env=environment_of(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with server:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: is_ready(url), within_s=60)
            found = release(home, "verify", MODEL, "--url", url, "--json").json
            assert (found["version"], found["largest_difference"]) == ("1", 0)
            assert "passed: breast_cancer version 1 of epoch " in release(home, "verify", MODEL, "--url", url).out
        finally:
            os.killpg(server.pid, signal.SIGINT)
    assert server.returncode is not None


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ((), 2),
        (("no-such-command",), 2),
        (("run",), 2),
        (("promote", MODEL), 2),
        (("run", "no_such_model"), 5),
        (("promote", MODEL, "--version", "99", "--reason", "r"), 5),
        (("approve", "nope"), 5),
        (("lineage", "digits"), 5),
        (("verify", MODEL, "--url", "http://127.0.0.1:1"), 6),
    ],
)
def test_exit_codes_are_those_that_the_help_lists(release, home: Path, arguments, exit_code: int) -> None:
    done = release(home, *arguments)
    assert done.exit_code == exit_code, done.err


def test_bytes_that_were_changed_end_with_7(release: Command, home: Path) -> None:
    uri = MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_model_version_download_uri(MODEL, "1")
    file = Path(uri.removeprefix("file://")) / "model.onnx"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"x")
    try:
        done = release(home, "verify", MODEL, "--url", "http://127.0.0.1:1")
    finally:
        file.write_bytes(before)
    assert done.exit_code == 7, done.err
    assert "was changed" in done.err


def test_a_home_is_made_where_it_is_asked_for_and_nowhere_else(release: Command, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    assert release(tmp_path / "home", "models", cwd=work).exit_code == 0
    assert list(work.iterdir()) == []
    assert (tmp_path / "home" / "release.db").exists()


def test_a_promotion_and_its_rollback_print_their_ledger_rows(release: Command, home: Path) -> None:
    row = release(home, "promote", MODEL, "--reason", "a [bold] step", "--actor", "ada", "--json").json
    assert (row["move"], row["version"], row["actor"], row["reason"]) == ("promoted", "2", "ada", "a [bold] step")
    said = release(home, "rollback", MODEL, "--reason", "it hurts", "--actor", "grace")
    assert said.exit_code == 0, said.err
    assert "breast_cancer: version 1 is in Production" in said.out
    assert "by grace: it hurts" in said.out
