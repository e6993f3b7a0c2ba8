"""A team adds its own model without touching the platform: a file of data, a code location, and Dagster's own tools."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.homes import (
    BIN,
    ROOT,
    Command,
    Done,
    blank_home,
    environment_of,
    project_folder,
    release_in,
    warm_release,
)
from tests.integration.test_bad_input import ATTRIBUTES, customers, text

COMPONENT = "release_platform.component.ModelRelease"


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(blank_home(), tmp_path / "home"))


def tool(*arguments: str, home: Path, cwd: Path, **more: str) -> Done:
    """Runs one of Dagster's commands."""
    done = subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        env=environment_of(home, **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


# From a file of data to a release


def test_a_model_is_proposed_from_its_data_and_released_as_it_is(warm: Command, home: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "churn.csv").write_bytes(text(customers()))
    made = warm(home, "new", "churn", "--from", "churn.csv", "--target", "churned", cwd=work)
    assert made.exit_code == 0, made.err
    described = yaml.safe_load((work / "models" / "churn" / "defs.yaml").read_text())
    assert described["type"] == COMPONENT
    assert described["attributes"]["target"]["column"] == "churned"
    assert {row["model"] for row in warm(home, "models", "--json", cwd=work).json} >= {"churn", "breast_cancer"}
    done = warm(home, "run", "churn", "--json", cwd=work)
    assert done.exit_code == 0, done.err
    assert done.json["version"] == "1"
    assert {gate["verdict"] for gate in done.json["gates"] if gate["blocking"]} == {"passed"}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (
            ("breast_cancer", "--from", "churn.csv", "--target", "churned"),
            5,
            "the model 'breast_cancer' exists already",
        ),
        (("churn", "--from", "churn.csv", "--target", "chrned"), 3, "chrned"),
        (("churn", "--from", "nowhere.csv", "--target", "churned"), 3, "nowhere.csv"),
        (("Churn!", "--from", "churn.csv", "--target", "churned"), 2, "lower-case letters"),
    ],
)
def test_a_proposal_that_cannot_be_made_writes_nothing(warm, home, tmp_path, arguments, exit_code, said) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "churn.csv").write_bytes(text(customers()))
    done = warm(home, "new", *arguments, cwd=work)
    assert done.exit_code == exit_code, done.err
    assert said in done.err
    assert [path.name for path in work.rglob("*")] == ["churn.csv"]


# A second code location


TEAM_DEFINITIONS = """
from pathlib import Path

from release_platform.definitions import build_definitions

defs = build_definitions(Path(__file__).parent / "models")
"""
WORKSPACE = """
load_from:
  - python_module: {module_name: release_platform.definitions, location_name: release_platform}
  - python_module: {module_name: crm.definitions, location_name: crm, working_directory: .}
"""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A team's own package, in its own folder."""
    package = tmp_path / "repository" / "crm"
    folder = project_folder(package / "models", "churn", yaml.safe_dump({"type": COMPONENT, "attributes": ATTRIBUTES}))
    (folder / "churn.csv").write_bytes(text(customers()))
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(TEAM_DEFINITIONS)
    (package.parent / "workspace.yaml").write_text(WORKSPACE)
    return package.parent


def test_a_team_s_package_is_a_code_location_beside_the_platform(team: Path, home: Path) -> None:
    done = tool("dagster", "definitions", "validate", "-w", "workspace.yaml", home=home, cwd=team)
    assert done.exit_code == 0, done.err
    assert "Validation successful for code location crm" in done.out + done.err
    assert "Validation successful for code location release_platform" in done.out + done.err


def load(team: Path, home: Path) -> Done:
    """Loads the team's definitions in a fresh interpreter and prints its jobs."""
    program = "from crm.definitions import defs; print([job.name for job in defs.resolve_all_job_defs()])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment_of(home, PYTHONPATH=f"{team}:{ROOT}"),
        cwd=team,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_team_s_location_has_its_model_and_no_other(team: Path, home: Path) -> None:
    done = load(team, home)
    assert done.exit_code == 0, done.err
    assert {"'release_churn'", "'promote'"} <= set(done.out.strip("[]\n").split(", "))
    assert "release_breast_cancer" not in done.out


def test_a_wrong_yaml_in_a_team_s_location_is_named_by_file_and_field(team: Path, home: Path) -> None:
    place = team / "crm" / "models" / "churn" / "defs.yaml"
    place.write_text(yaml.safe_dump({"type": COMPONENT, "attributes": ATTRIBUTES | {"feetures": []}}))
    done = load(team, home)
    assert done.exit_code == 1
    assert f"{place}: feetures: there is no such key; did you mean 'features'?" in done.err


# Dagster's own tools


@pytest.mark.parametrize("what", ["defs", "yaml", "toml"])
def test_dg_checks_the_platform(what: str, home: Path) -> None:
    done = tool("dg", "check", what, home=home, cwd=ROOT)
    assert done.exit_code == 0, done.out + done.err


def test_dg_lists_every_asset_of_every_example(home: Path) -> None:
    done = tool("dg", "list", "defs", "--json", home=home, cwd=ROOT)
    assert done.exit_code == 0, done.err
    listed = json.dumps(done.json)
    for model in ("breast_cancer", "diabetes", "digits", "flight_delay"):
        for stage in ("raw_data", "registered_version", "production_version"):
            assert f"{model}/{stage}" in listed


def test_dg_scaffolds_a_model_that_its_check_accepts(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(".*", "tests", "docs", "benchmarks", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    done = tool("dg", "scaffold", "defs", COMPONENT, "fraud", home=home, cwd=copy, PYTHONPATH=str(copy))
    assert done.exit_code == 0, done.out + done.err
    written = yaml.safe_load((copy / "release_platform" / "examples" / "fraud" / "defs.yaml").read_text())
    assert written["attributes"]["name"] == "fraud"
    checked = tool("dg", "check", "yaml", home=home, cwd=copy, PYTHONPATH=str(copy))
    assert checked.exit_code == 0, checked.out + checked.err


def test_a_wrong_yaml_keeps_no_other_model_from_being_looked_at(tmp_path: Path) -> None:
    project_folder(
        tmp_path / "models", "broken", "type: release_platform.component.ModelRelease\nattributes: {name: broken}\n"
    )
    models = {"RELEASE_MODELS": str(tmp_path / "models")}
    done = release_in(tmp_path / "home", "status", "diabetes", **models)
    assert done.exit_code == 0
    assert "left out" in done.err
    wrong = release_in(tmp_path / "home", "run", "broken", **models)
    assert wrong.exit_code == 2
    assert "is missing" in wrong.err
