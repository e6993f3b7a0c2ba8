"""`release gate --from`: two commits of a team's model, trained in clean processes on the same rows."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.homes import ROOT, Command, Done, release_in, warm_release

SOURCE = """
import numpy as np
import pandas as pd


def load() -> pd.DataFrame:
    x = np.random.default_rng(5).normal(size=400)
    noise = np.random.default_rng(6).normal(size=400)
    return pd.DataFrame({{"x": {x}, "y": 3 * x + noise}})
"""
DEFS = """
type: release_platform.component.ModelRelease
attributes:
  name: sales
  task: regression
  owner: team:sales
  source: {{python: "team_models.sales.source:load"}}
  contract: {{columns: {{x: {{type: number}}, y: {{type: number}}}}}}
  target: {{column: {target}}}
  features: [{feature}]
  estimator: {{type: sklearn.linear_model.Ridge, parameters: {{alpha: {alpha}}}}}
  gates:
    - {{name: explains, metric: r2, minimum: 0.5}}
    - {{name: no_worse, metric: rmse, against: production, margin: 0.1}}
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def write(repository: Path, *, x: str = "x", alpha: float = 1.0, target: str = "y", feature: str = "x") -> None:
    place = repository / "team_models" / "sales"
    place.mkdir(parents=True, exist_ok=True)
    for package in (place.parent, place):
        (package / "__init__.py").touch()
    (place / "source.py").write_text(SOURCE.format(x=x))
    (place / "defs.yaml").write_text(DEFS.format(alpha=alpha, target=target, feature=feature))


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "--quiet")
    (place / ".gitignore").write_text("__pycache__/\n")
    return place


def commit(repository: Path, tag: str) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", tag)
    git(repository, "tag", tag)


def test_each_side_is_trained_by_its_own_yaml_and_with_its_own_source(warm: Command, repository: Path) -> None:
    write(repository, x="x")
    commit(repository, "good")
    write(repository, x="np.random.default_rng(7).permutation(x) + 0.5 * x", alpha=50.0)
    options = ["--from", "good", "--json"]
    done = warm(repository / ".release", "gate", "sales", *options, cwd=repository, RELEASE_MODELS="team_models")
    assert done.exit_code == 4, done.err
    assert [found["gate"] for found in done.json["gates"] if found["verdict"] == "failed"] == ["explains", "no_worse"]
    compared = done.json["report"]["baseline"]["comparisons"]["r2"]
    assert compared["production"] > 0.8
    assert compared["candidate"] < 0.5
    assert done.json["changes"]["parameters"] == ["estimator.parameters.alpha: 1.0 -> 50.0"]
    assert done.json["changes"]["code"] == [
        "team_models/sales/defs.yaml is changed",
        "team_models/sales/source.py is changed",
    ]
    assert any("column 'x'" in sentence for sentence in done.json["changes"]["data"])
    left = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True, text=True)
    assert len(left.stdout.splitlines()) == 1


def test_what_cannot_be_compared_is_refused_with_its_reason(warm: Command, repository: Path, tmp_path: Path) -> None:
    (repository / "readme").touch()
    commit(repository, "empty")
    write(repository, target="x", feature="y")
    commit(repository, "other-target")
    write(repository)

    def said(ref: str, place: Path = repository) -> tuple[int, str]:
        done = warm(tmp_path / "home", "gate", "sales", "--from", ref, cwd=place, RELEASE_MODELS="team_models")
        return done.exit_code, done.err

    assert said("nowhere")[0] == 5
    assert "there is no commit 'nowhere'" in said("nowhere")[1]
    assert "there is no model sales at empty" in said("empty")[1]
    assert "predicted x then" in said("other-target")[1]


def installed(repository: Path, site: Path) -> None:
    """Copies the team's packages out of the repository, as `pip install .` does."""
    names = [path.relative_to(repository / "src") for path in sorted((repository / "src").rglob("*.py"))]
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes((repository / "src" / name).read_bytes())
    info = site / "acme-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Name: acme\nVersion: 1\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    (info / "direct_url.json").write_text(json.dumps({"url": repository.as_uri(), "dir_info": {}}))


def test_code_that_is_installed_outside_of_the_checkout_is_that_of_its_side(repository: Path, tmp_path: Path) -> None:
    packages, model = repository / "src", repository / "models" / "sales"
    for folder in (packages / "acme", packages / "shared", model):
        folder.mkdir(parents=True)
    (packages / "shared" / "noise.py").write_text("SCALE = 0.1\n")
    source = SOURCE.format(x="x + SCALE * noise[::-1]")
    (packages / "acme" / "source.py").write_text(f"from shared.noise import SCALE\n{source}")
    defs = DEFS.format(alpha=1.0, target="y", feature="x")
    (model / "defs.yaml").write_text(defs.replace("team_models.sales.source", "acme.source"))
    commit(repository, "good")
    (packages / "shared" / "noise.py").write_text("SCALE = 3.0\n")
    site = tmp_path / "site"
    installed(repository, site)

    def gate() -> Done:
        paths = {"RELEASE_MODELS": "models", "PYTHONPATH": f"{ROOT}:{site}"}
        return release_in(tmp_path / "home", "gate", "sales", "--from", "good", "--json", cwd=repository, **paths)

    done = gate()
    assert done.exit_code == 4, done.err
    compared = done.json["report"]["baseline"]["comparisons"]["r2"]
    assert compared["production"] > 0.8
    assert compared["candidate"] < 0.5
    assert done.json["changes"]["code"] == ["src/shared/noise.py is changed"]

    (packages / "acme" / "source.py").write_text(
        f"import sys\nsys.path.insert(0, {str(packages)!r})\nfrom shared.noise import SCALE\n{source}"
    )
    commit(repository, "by-path")
    git(repository, "tag", "--force", "good")
    installed(repository, site)
    refused = gate()
    assert refused.exit_code == 5
    assert "the module shared.noise was read from" in refused.err


def test_an_example_in_a_clone_of_the_platform_is_read_from_both_commits(tmp_path: Path) -> None:
    """Given a fresh clone whose own `release` is installed from it, as `make install` does, and a changed example."""
    clone = tmp_path / "clone"
    for name in ("release_platform", "requirements"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(clone, "init", "--quiet")
    (clone / ".gitignore").write_text("__pycache__/\n")
    commit(clone, "good")
    source = clone / "release_platform" / "examples" / "diabetes" / "source.py"
    source.write_text(
        source.read_text() + "\n_load = load\n\n\ndef load():\n    return _load().assign(s5=0.0, bmi=25.0)\n"
    )

    done = release_in(
        tmp_path / "home", "gate", "diabetes", "--from", "good", "--json", cwd=clone, PYTHONPATH=str(clone)
    )

    assert done.exit_code == 4, done.err
    compared = done.json["report"]["baseline"]["comparisons"]["r2"]
    assert compared["production"] > compared["candidate"] + 0.05
    assert done.json["changes"]["code"] == ["release_platform/examples/diabetes/source.py is changed"]
    assert any("column 's5'" in sentence for sentence in done.json["changes"]["data"])
