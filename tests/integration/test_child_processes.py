"""What `release` starts is what is installed, whatever lies in the folder where it is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from release_platform.cli.processes import Processes, apart_from_here

COMPONENT = {
    "type": "release_platform.component.ModelRelease",
    "attributes": {
        "name": "orders",
        "task": "binary",
        "owner": "team:ml",
        "source": {"csv": "orders.csv"},
        "contract": {"columns": {"amount": {"type": "number"}, "late": {"type": "category"}}},
        "target": {"column": "late", "positive": "yes"},
        "features": ["amount"],
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.6}],
    },
}
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


def test_modules_beside_the_models_are_found_and_none_is_taken_for_an_installed_one(here: Path) -> None:
    (here / "models" / "orders").mkdir(parents=True)
    (here / "models" / "__init__.py").write_text("NAMED = 'ours'")
    (here / "our_sources.py").write_text("SAID = 'beside'")
    code = (
        "from release_platform.definitions import load_projects\nload_projects(Path('models'))\n"
        "import multiprocessing.spawn as spawn, models, our_sources, serving\n"
        "print(models.NAMED, our_sources.SAID, serving.__file__, spawn.get_preparation_data('run')['sys_path'][-1])"
    )
    (here / "models" / "orders" / "defs.yaml").write_text(yaml.safe_dump(COMPONENT))
    done = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\n{code}"],
        env=apart_from_here(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    named, said, serving, last = (done.stdout or done.stderr).split()
    assert (named, said, last) == ("ours", "beside", str(here))
    assert not serving.startswith(str(here))


def test_without_a_python_path_none_is_made() -> None:
    assert apart_from_here({"HOME": "/h"}) == {"HOME": "/h", "PYTHONSAFEPATH": "1"}
    twice = apart_from_here(apart_from_here({"PYTHONPATH": f"{os.pathsep}/a{os.pathsep}/b"}))
    assert twice["PYTHONPATH"] == os.pathsep.join([os.devnull, "/a", "/b"])
