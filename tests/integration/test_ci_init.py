"""`release ci init` writes workflows that their servers accept, and whose shell lines do what they say."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from junitparser import JUnitXml

from release_platform.domain.errors import Refused
from release_platform.gating.pinned import install_lines
from release_platform.gating.workflow import JudgedModel, Server, workflow
from tests.integration.homes import BIN, ROOT, Command, environment_of, warm_release
from tests.integration.test_gate_commits import commit, git, write

SCHEMAS = {Server.GITHUB: "vendor.github-workflows", Server.GITLAB: "vendor.gitlab-ci"}
INSTALLED = f"pyyaml=={version('pyyaml')} \\\n    --hash=sha256:{'0' * 64}\n"
"""What is installed already is not fetched, so its hash is not asked."""
FILES = {Server.GITHUB: ".github/workflows/release-gates.yml", Server.GITLAB: ".gitlab-ci.yml"}


@pytest.fixture(scope="module")
def warm() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, warm: Command) -> Path:
    place = tmp_path_factory.mktemp("repository")
    git(place, "init", "--quiet")
    (place / ".gitignore").write_text("__pycache__/\ngates/\n.release/\n")
    (place / "requirements.txt").write_text(f"# the platform is installed here already\n{INSTALLED}")
    write(place)
    commit(place, "base")
    write(place, alpha=2.0)
    for server in Server:
        made = warm(place / ".release", "ci", "init", server.value, cwd=place, RELEASE_MODELS="team_models")
        assert made.exit_code == 0, made.err
    return place


def read(repository: Path, server: Server) -> Any:
    return yaml.load((repository / FILES[server]).read_text(), yaml.BaseLoader)


def validated(file: Path, server: Server) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", SCHEMAS[server], str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shell(repository: Path, lines: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs shell lines as a CI server does, on the platform that is installed here."""
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", lines],
        env=environment_of(repository / ".release", **paths, **variables),
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("server", Server)
def test_each_file_is_valid_by_the_schema_of_its_server(repository: Path, server: Server) -> None:
    done = validated(repository / FILES[server], server)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("server", Server)
def test_the_schema_finds_a_broken_file(repository: Path, server: Server, tmp_path: Path) -> None:
    broken = (repository / FILES[server]).read_text().replace("matrix:", "matricks:")
    (tmp_path / "broken.yml").write_text(broken)
    assert validated(tmp_path / "broken.yml", server).returncode != 0


def test_the_shell_lines_of_github_judge_the_model_beside_its_base(repository: Path) -> None:
    job = read(repository, Server.GITHUB)["jobs"]["gate"]
    (matrix,) = job["strategy"]["matrix"]["include"]
    steps: list[Mapping[str, Any]] = [step for step in job["steps"] if "run" in step]
    assert [step["name"] for step in steps] == ["Install", "Judge", "Summary"]
    summary = repository / "gates" / "job-summary.md"
    given = {"MODEL": matrix["model"], "FOLDER": matrix["folder"], "BASE": "base", "GITHUB_STEP_SUMMARY": str(summary)}
    for step in steps:
        done = shell(repository, step["run"], **job["env"], **given)
        assert done.returncode == 0, done.stderr
    assert "### Changed since commit" in summary.read_text()
    assert "estimator.parameters.alpha: 1.0 -&gt; 2.0" in summary.read_text()
    assert (repository / "gates" / "gates.sarif").exists()


def test_the_shell_lines_of_gitlab_judge_a_model_that_is_new_alone(repository: Path) -> None:
    job = read(repository, Server.GITLAB)["release-gates"]
    (matrix,) = job["parallel"]["matrix"]
    variables = {"RELEASE_MODELS": job["variables"]["RELEASE_MODELS"], "MODEL": matrix["MODEL"]}
    given = {"FOLDER": "team_models/another", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "base"}
    done = shell(repository, "\n".join(job["script"]), **variables, **given)
    assert done.returncode == 0, done.stderr
    assert "compared with nothing" in done.stdout
    metrics = (repository / job["artifacts"]["reports"]["metrics"]).read_text()
    assert 'release_gate_passed{model="sales",gate="explains"} 1' in metrics
    assert job["artifacts"]["expose_as"]
    assert JUnitXml.fromstring((repository / job["artifacts"]["reports"]["junit"]).read_bytes()).failures == 0


@pytest.mark.parametrize("server", Server)
def test_the_shell_lines_install_nothing_whose_hash_is_another(
    repository: Path, server: Server, tmp_path: Path
) -> None:
    name = "release_gates_nobody-1-py3-none-any.whl"
    with ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("release_gates_nobody.py", "")
    (tmp_path / "requirements.txt").write_text(f"./{name} --hash=sha256:{'0' * 64}\n")
    jobs = read(repository, server)
    lines = jobs["jobs"]["gate"]["steps"][2]["run"] if server is Server.GITHUB else jobs["release-gates"]["script"][0]
    assert lines.strip() == "python -m pip install --require-hashes -r requirements.txt"
    done = shell(tmp_path, lines)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_gate_that_does_not_pass_fails_the_job(repository: Path) -> None:
    job = read(repository, Server.GITLAB)["release-gates"]
    file = repository / "team_models" / "sales" / "defs.yaml"
    honest = file.read_text()
    file.write_text(honest.replace("minimum: 0.5", "minimum: 0.999"))
    try:
        given = {"RELEASE_MODELS": "team_models", "MODEL": "sales", "FOLDER": "team_models/sales"}
        assert shell(repository, "\n".join(job["script"]), **given).returncode == 4
    finally:
        file.write_text(honest)


def test_no_expression_of_the_pull_request_stands_in_a_shell_line(repository: Path) -> None:
    job = read(repository, Server.GITHUB)["jobs"]["gate"]
    assert not [step for step in job["steps"] if "${{" in step.get("run", "")]


def test_actions_of_github_are_pinned(repository: Path) -> None:
    used = [step["uses"] for step in read(repository, Server.GITHUB)["jobs"]["gate"]["steps"] if "uses" in step]
    by_commit = {name for name in used if len(name.rpartition("@")[2]) == 40}
    assert {name for name in used if name not in by_commit} == {"github/codeql-action/upload-sarif@v4"}


def test_a_file_that_is_there_is_kept(repository: Path, warm: Command) -> None:
    place = repository / FILES[Server.GITHUB]
    kept = place.read_text()
    place.write_text("mine")

    def init(*options: str, cwd: Path = repository) -> int:
        return warm(cwd / ".none", "ci", "init", "github", *options, cwd=cwd, RELEASE_MODELS="team_models").exit_code

    assert init() == 5
    assert place.read_text() == "mine"
    assert init("--force") == 0
    assert place.read_text() == kept
    assert init("--path", "other.yml") == 0
    assert init(cwd=repository.parent) == 5


@pytest.mark.parametrize("server", Server)
def test_odd_names_stay_what_they_are(server: Server, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(INSTALLED)
    model = JudgedModel(name="churn", folder="models: all/it's #1")
    text = workflow(server, tmp_path, [model], models_folder="models: all", branch="release/1.0: x")
    (tmp_path / "file.yml").write_text(text)
    assert validated(tmp_path / "file.yml", server).returncode == 0
    assert "models: all/it's #1" in str(yaml.safe_load(text))


def test_it_installs_what_the_repository_locks(tmp_path: Path) -> None:
    def lines() -> str:
        model = JudgedModel(name="churn", folder="models/churn")
        return workflow(Server.GITHUB, tmp_path, [model], models_folder="models", branch="main")

    with pytest.raises(Refused, match="nothing says what CI installs") as refused:
        lines()
    assert "uv pip compile --generate-hashes requirements.in -o requirements.txt" in refused.value.remedy
    (tmp_path / "requirements.txt").write_text(INSTALLED)
    assert "python -m pip install --require-hashes -r requirements.txt\n" in lines()
    assert 'cache-dependency-path: "requirements.txt"' in lines()


HATCH = '[build-system]\nrequires = ["hatchling>=1"]\n[project]\nname = "ours"\n'
LOCKED = "hatchling==1.27.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via ours\n"


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("", "names nothing that CI could install"),
        ("# nothing yet\n--index-url https://index.example\n", "names nothing that CI could install"),
        ("numpy\n", "has no hash for numpy"),
        (
            f"{LOCKED}numpy==2.4.6\n  # via pandas\nscipy==1\n-e .\nx==1\n",
            "no hash for numpy==2.4.6, scipy==1, -e and 1 more",
        ),
        (f"{LOCKED}numpy==2.4.6 # --hash=sha256:00\n", "has no hash for numpy==2.4.6"),
    ],
)
def test_what_is_not_pinned_by_a_hash_is_refused_with_what_makes_one(tmp_path: Path, lock: str, said: str) -> None:
    (tmp_path / "requirements.txt").write_text(lock)
    with pytest.raises(Refused, match=said) as refused:
        install_lines(tmp_path, "requirements.txt", remedy="compile it")
    assert refused.value.remedy == "compile it"


def test_a_package_of_the_repository_is_built_with_what_is_locked(tmp_path: Path) -> None:
    def lines() -> list[str]:
        return install_lines(tmp_path, "requirements.txt", remedy="compile it")

    (tmp_path / "requirements.txt").write_text(INSTALLED)
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert lines() == ["python -m pip install --require-hashes -r requirements.txt"], "settings are no package"
    (tmp_path / "pyproject.toml").write_text(HATCH)
    with pytest.raises(Refused, match=r"is built with hatchling, which requirements\.txt does not pin"):
        lines()
    built = "python -m pip install --no-deps --no-build-isolation ."
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "build.txt").write_text(LOCKED)
    both = "python -m pip install --require-hashes -r requirements.txt -r requirements/build.txt"
    assert lines() == [both, built]
    (tmp_path / "requirements.txt").write_text(LOCKED)
    assert lines() == ["python -m pip install --require-hashes -r requirements.txt", built]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ours"\n')
    with pytest.raises(Refused, match="is built with setuptools"):
        lines()
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(Refused, match=r"pyproject\.toml cannot be read"):
        lines()


def test_the_examples_of_a_clone_of_the_platform_are_judged_where_git_has_them() -> None:
    *_, built = install_lines(ROOT, "requirements/platform.txt", remedy="compile it")
    assert built == "python -m pip install --no-deps --no-build-isolation --editable ."


def test_a_repository_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has no model"):
        workflow(Server.GITHUB, tmp_path, [], models_folder="models", branch="main")
