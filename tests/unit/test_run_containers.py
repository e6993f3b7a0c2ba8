"""The optional compose file that gives each run a container: what Dagster's launcher takes, in step with the stack."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster_docker import DockerRunLauncher

ROOT = Path(__file__).resolve().parents[2]
FILE = "deploy/compose.run-containers.yml"
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
ADDED = yaml.safe_load((ROOT / FILE).read_text())
WRITTEN = ADDED["x-run-launcher"]
GIVEN = {"COMPOSE_PROJECT_NAME": "stack", "PWD": "/srv/project"}
CODE = STACK["dagster-code"]


def filled(text: str) -> str:
    """Returns a text with its variables replaced as compose does."""

    def value(found: "re.Match[str]") -> str:
        return GIVEN.get(found[1]) or (found[2] or "").removeprefix(":-")

    return re.sub(r"\$\{(\w+)(:-[^}]*)?\}", value, text)


LAUNCHER: dict[str, Any] = yaml.safe_load(filled(WRITTEN))["run_launcher"]


def test_the_launcher_takes_its_configuration() -> None:
    assert (LAUNCHER["module"], LAUNCHER["class"]) == ("dagster_docker", DockerRunLauncher.__name__)
    judged = process_config(DockerRunLauncher.config_type(), LAUNCHER["config"])
    assert judged.success, judged.errors
    wrong = process_config(DockerRunLauncher.config_type(), LAUNCHER["config"] | {"netwoks": []})
    assert not wrong.success


def test_it_goes_behind_the_instance_of_the_image() -> None:
    parts = [(ROOT / name).read_text() for name in ("dagster.yaml", "deploy/dagster/storage.yaml")]
    before, after = yaml.safe_load("\n".join(parts)), yaml.safe_load("\n".join([*parts, filled(WRITTEN)]))
    assert after == before | {"run_launcher": LAUNCHER}
    assert "run_launcher" not in before  # of two, one would be lost


def test_a_run_has_the_environment_of_the_code_server_and_the_daemon_has_it_to_give() -> None:
    of_messages = {"RELEASE_NOTIFY_URL", "RELEASE_NOTIFY_SECRET"}  # a sensor sends them: no run holds their secrets
    given = {name: str(value) for name, value in CODE["environment"].items() if name not in of_messages}
    assert sorted(LAUNCHER["config"]["env_vars"]) == sorted(given)
    added = ADDED["services"]["dagster-daemon"]["environment"]
    daemon = STACK["dagster-daemon"]["environment"] | added
    assert {name: str(daemon[name]) for name in given} == given
    assert set(added) - {"RUN_LAUNCHER"} <= set(given)


def test_a_run_has_the_volumes_and_networks_of_the_code_server() -> None:
    volumes = [text.replace("stack_", "").replace("/srv/project/", "./") for text in _kwargs("volumes")]
    assert volumes == CODE["volumes"]
    assert sorted(LAUNCHER["config"]["networks"]) == sorted(f"stack_{name}" for name in CODE["networks"])


def test_a_run_is_bounded_and_can_become_nothing() -> None:
    for name in ("user", "read_only", "cap_drop", "security_opt"):
        assert _kwargs(name) == CODE[name]
    limits = CODE["deploy"]["resources"]["limits"]
    assert _kwargs("mem_limit") == filled(limits["memory"])
    assert _kwargs("pids_limit") == limits["pids"]


def test_it_runs_in_the_image_of_the_code_server() -> None:
    assert LAUNCHER["config"]["image"] == filled(CODE["image"])


def test_only_daemon_and_writable_web_server_get_the_socket() -> None:
    with_socket = {name for name, one in ADDED["services"].items() if "docker.sock" in str(one.get("volumes"))}
    assert with_socket == set(ADDED["services"]) == {"dagster-daemon", "dagster-webserver"}
    for one in ADDED["services"].values():
        assert "user" not in one
        assert "privileged" not in one


def test_no_secret_of_it_has_a_default() -> None:
    text = (ROOT / FILE).read_text()
    for name, how in re.findall(r"(?<!\$)\$\{(\w*(?:PASSWORD|SECRET|ACCESS)\w*)([^}]*)\}", text):
        assert how == ":?run make up", name


def test_compose_takes_the_files_together(tmp_path: Path) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not on this machine")
    subprocess.run([ROOT / "deploy" / "write-env", tmp_path / "env"], check=True)
    files = ["--env-file", str(tmp_path / "env"), "-f", "docker-compose.yml", "-f", FILE]
    done = subprocess.run(
        ["docker", "compose", *files, "--profile", "*", "config"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PWD": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    merged = yaml.safe_load(done.stdout)
    daemon = merged["services"]["dagster-daemon"]
    assert daemon["command"][:2] == ["dagster-daemon", "run"]
    assert {one["target"] for one in daemon["volumes"]} == {"/var/lib/dagster", "/var/run/docker.sock"}
    (written,) = {merged["services"][name]["environment"]["RUN_LAUNCHER"] for name in ADDED["services"]}
    launcher = yaml.safe_load(written)["run_launcher"]["config"]
    assert f"{merged['name']}_signing-key" in {text.split(":")[0] for text in launcher["container_kwargs"]["volumes"]}
    assert {merged["networks"][name]["name"] for name in CODE["networks"]} == set(launcher["networks"])
    assert launcher["container_kwargs"]["volumes"][-1] == f"{ROOT}/models:/srv/models:ro"


def _kwargs(name: str) -> Any:
    return LAUNCHER["config"]["container_kwargs"][name]
