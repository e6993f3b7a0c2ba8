"""What `release` starts is what is installed, whatever lies in the folder where it is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from release_platform.cli.processes import Processes, apart_from_here

LOAD = "from dagster._core.code_pointer import load_python_module as load; print(load({!r}, None).SAID)"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder, which is the current one, with a `serving` of its own."""
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise SystemExit('the current folder is imported')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(here: Path, name: str, *arguments: str, **variables: str) -> str:
    """Returns what a child said until it ended."""
    with Processes(here / "logs") as processes:
        processes.start(name, [sys.executable, *arguments], os.environ | variables)
        assert processes.wait_for_end() == name
    return (here / "logs" / f"{name}.log").read_text()


def test_the_server_is_the_installed_one(here: Path) -> None:
    said = ended(here, "serving", "-m", "serving", SERVING_PORT="none")
    assert said.startswith("serving: ")
    assert "port" in said


def test_what_a_child_starts_is_the_installed_one_too(here: Path) -> None:
    again = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'serving']).returncode)"
    said = ended(here, "parent", "-c", again, SERVING_PORT="none")
    assert said.startswith("serving: ")


def test_dagster_finds_all_of_a_python_path(here: Path) -> None:
    (here / "team").mkdir()
    (here / "team" / "models_of_the_team.py").write_text("SAID = 'the team'")
    variables = apart_from_here(os.environ | {"PYTHONPATH": str(here / "team")})
    done = subprocess.run(
        [sys.executable, "-c", LOAD.format("models_of_the_team")],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "the team\n", done.stderr


def test_a_run_in_dagster_finds_modules_beside_the_models_and_takes_none_for_an_installed_one(here: Path) -> None:
    (here / "models").mkdir()
    (here / "models" / "defs.yaml").write_text("")
    (here / "our_sources.py").write_text("SAID = 'beside'")
    code = (
        "from pathlib import Path\nfrom dagster._utils import alter_sys_path\n"
        "from release_platform import definitions\n"
        "with alter_sys_path([], []):\n    definitions._trees([Path('models')])\n"
        "import our_sources, serving\nprint(our_sources.SAID, serving.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=apart_from_here(os.environ), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("beside "), done.stderr
    assert str(here) not in done.stdout


def test_without_a_python_path_none_is_made() -> None:
    assert apart_from_here({"HOME": "/h"}) == {"HOME": "/h", "PYTHONSAFEPATH": "1"}
    twice = apart_from_here(apart_from_here({"PYTHONPATH": f"{os.pathsep}/a{os.pathsep}/b"}))
    assert twice["PYTHONPATH"] == os.pathsep.join([os.devnull, "/a", "/b"])
