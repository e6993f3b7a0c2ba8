"""The files of the container stack: what is published, who is root, what is secret, and that they are well-formed."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from release_platform.definitions import load_projects
from release_platform.domain.api_keys import find_key_id

ROOT = Path(__file__).resolve().parents[2]
SEAWEEDFS = "deploy/compose.seaweedfs.yml"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = sorted(name for name, one in SERVICES.items() if one["restart"] != "no")
JOBS = sorted(set(SERVICES) - set(SERVERS))
EXAMPLE = (ROOT / ".env.example").read_text()
NAMES = re.findall(r"^([A-Z0-9_]+)=", EXAMPLE, flags=re.MULTILINE)
SECRETS = re.findall(r"^([A-Z0-9_]+)=$", EXAMPLE, flags=re.MULTILINE)


def used_variables(file: str) -> dict[str, set[str]]:
    """Returns, for every variable that a compose file names, how it stands there: `:?...`, `:-...` or nothing."""
    found: dict[str, set[str]] = {}
    for name, how in re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)([^}]*)\}", (ROOT / file).read_text()):
        found.setdefault(name, set()).add(how)
    return found


def write_env(file: Path) -> dict[str, str]:
    subprocess.run([ROOT / "deploy" / "write-env", file], check=True)
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# Every server


def test_there_are_servers_and_jobs() -> None:
    assert {"postgres", "minio", "mlflow", "dagster-code", "serving-1", "serving-2", "proxy"} <= set(SERVERS)
    assert {"setup", "migrate-release", "migrate-dagster", "migrate-mlflow", "cli"} <= set(JOBS)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_looked_after_and_bounded(name: str) -> None:
    server = SERVICES[name]
    assert server["restart"] == "unless-stopped"
    assert server["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert set(server["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert server["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nothing_may_become_root_or_write_to_its_image(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"] is True
    assert "privileged" not in one


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"volumes"}))
def test_nothing_but_the_job_that_gives_volumes_away_is_root(name: str) -> None:
    assert str(SERVICES[name]["user"]).split(":")[0] not in {"", "0", "root"}
    assert "cap_add" not in SERVICES[name]


def test_that_job_has_no_network_and_one_capability() -> None:
    assert SERVICES["volumes"]["network_mode"] == "none"
    assert SERVICES["volumes"]["cap_add"] == ["CHOWN"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_is_pinned(name: str) -> None:
    image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", SERVICES[name]["image"])
    assert re.fullmatch(r"[^:]+:(local|v?\d[\w.-]*|RELEASE\.[\w-]+)", image), image


def test_an_image_is_built_here_or_fetched_before_anything_is_built() -> None:
    builds = [service["image"] for service in SERVICES.values() if "build" in service]
    built = set(builds)
    assert len(builds) == len(built)  # two that build the same image at a time would collide
    named = re.search(r"grep -xE '([a-z|]+)'", (ROOT / "deploy/pull").read_text())
    assert named
    fetched = {SERVICES[name]["image"] for name in named[1].split("|")}
    assert fetched == {service["image"] for service in SERVICES.values()} - built


# What is reachable


def test_only_proxy_and_console_are_published_and_on_loopback_by_default() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if one.get("ports")}
    assert set(published) == {"proxy", "minio"}
    for port in [port for ports in published.values() for port in ports]:
        assert re.fullmatch(r"\$\{BIND_ADDRESS:-127\.0\.0\.1\}:\$\{[A-Z]+_PORT:-\d+\}:\d+", port)
    assert [port.rpartition(":")[2] for port in published["minio"]] == ["9001"]


def test_serving_reaches_the_proxy_only_and_holds_public_keys_and_hashes_only() -> None:
    for name in ("serving-1", "serving-2"):
        assert list(SERVICES[name]["networks"]) == ["serving"]
        assert COMPOSE["networks"]["serving"] == {"internal": True}
        assert not any(
            re.search(r"\$\{\w*(PASSWORD|SECRET|_KEY)", text)
            for text in map(str, SERVICES[name]["environment"].values())
        )
        assert "api-keys:/api-keys:ro" in SERVICES[name]["volumes"]
        assert "trusted-keys:/keys/trusted:ro" in SERVICES[name]["volumes"]
        assert not any(volume.startswith("signing-key") for volume in SERVICES[name]["volumes"])
    beside = {name for name, one in SERVICES.items() if "serving" in one.get("networks", ())}
    assert beside == {"serving-1", "serving-2", "proxy", "dagster-code", "api", "cli", "prometheus"}


# Secrets


@pytest.mark.parametrize("file", ["docker-compose.yml", SEAWEEDFS])
def test_no_secret_has_a_default(file: str) -> None:
    for name, how in used_variables(file).items():
        if name in SECRETS:
            assert how == {":?run make up"}, name
        else:
            assert not re.search("PASSWORD|SECRET|TOKEN", name), name


@pytest.mark.parametrize("file", ["docker-compose.yml", SEAWEEDFS])
def test_a_default_in_the_compose_file_is_the_one_that_the_example_shows(file: str) -> None:
    shown = dict(re.findall(r"^([A-Z0-9_]+)=(.+)$", EXAMPLE, flags=re.MULTILINE))
    for name, how in used_variables(file).items():
        if name in shown:
            assert how <= {f":-{shown[name]}", ":?run make up"}, name


def test_every_setting_of_the_example_is_used_and_explained() -> None:
    used = used_variables("docker-compose.yml") | used_variables(SEAWEEDFS)
    assert set(NAMES) - {"COMPOSE_FILE"} <= set(used)
    explained = (ROOT / "docs" / "operate.md").read_text()
    assert [name for name in sorted({*NAMES, *used}) if f"`{name}`" not in explained] == []


def test_secrets_are_random_kept_and_for_the_owner_only(tmp_path: Path) -> None:
    first = write_env(tmp_path / "one")
    keys = {name for name in SECRETS if name.endswith("_KEY") and name != "S3_SECRET_KEY"}
    assert keys == {"OPERATOR_KEY", "SERVING_KEY", "SERVING_ADMIN_KEY", "METRICS_KEY"}
    assert all(find_key_id(first[name]) for name in keys)
    assert all(re.fullmatch(r"[0-9a-f]{48}", first[name]) for name in set(SECRETS) - keys)
    assert len({first[name] for name in SECRETS}) == len(SECRETS) == 13
    assert write_env(tmp_path / "one") == first
    assert write_env(tmp_path / "two")["POSTGRES_PASSWORD"] != first["POSTGRES_PASSWORD"]
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600


def test_settings_of_an_older_version_are_kept_and_new_ones_added(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("# mine\nDAGSTER_PORT=3333\nPOSTGRES_PASSWORD=chosen\nMLFLOW_DB_PASSWORD=\n")
    found = write_env(tmp_path / "old")
    assert (found["DAGSTER_PORT"], found["POSTGRES_PASSWORD"]) == ("3333", "chosen")
    assert set(found) == set(NAMES)
    assert found["MLFLOW_DB_PASSWORD"]
    assert (tmp_path / "old").read_text().startswith("# mine\n")


def test_a_file_without_an_end_of_its_last_line_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("SERVING_URLS=http://one:8000")
    found = write_env(tmp_path / "old")
    assert found["SERVING_URLS"] == "http://one:8000"
    assert set(found) >= set(NAMES)


def test_settings_are_never_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


# Well-formed


@pytest.mark.parametrize("files", [("docker-compose.yml",), ("docker-compose.yml", SEAWEEDFS)])
def test_compose_takes_the_files(tmp_path: Path, files: tuple[str, ...]) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not on this machine")
    write_env(tmp_path / "env")
    chosen = [text for file in files for text in ("-f", file)]
    command = ["docker", "compose", "--env-file", str(tmp_path / "env"), *chosen, "--profile", "*", "config", "--quiet"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_seaweedfs_is_configuration_only() -> None:
    (changed,) = yaml.safe_load((ROOT / SEAWEEDFS).read_text())["services"].items()
    assert changed[0] == "minio"
    assert set(changed[1]) == {"image", "build", "entrypoint", "command", "environment", "healthcheck"}


def test_a_folder_for_models_that_is_still_empty_holds_none(tmp_path: Path) -> None:
    assert load_projects(tmp_path) == {}
