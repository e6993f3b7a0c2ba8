"""The pages for people name everything that there is, and nothing that there is not."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.core import TyperCommand, TyperGroup

from release_platform.cli.app import app
from release_platform.cli.gate import GateGroup
from release_platform.domain import data_spec, errors, gate_spec, policy_spec, spec, training_spec
from release_platform.domain.drift_spec import DriftSpec, OnAlarm
from release_platform.domain.features import ColumnType, Operation
from release_platform.domain.freeze import FreezeWindow, Weekday, yaml_key
from release_platform.domain.freshness_spec import Aging, FreshnessSpec
from release_platform.domain.gates import Verdict
from release_platform.domain.metrics import METRICS, Direction, Task
from release_platform.domain.replay_spec import ReplaySpec
from release_platform.domain.retrain_spec import RetrainSpec
from release_platform.domain.rollback_spec import RollbackSpec
from release_platform.domain.strategy import LiveGateSpec, LiveMetric, RolloutSpec, ShadowSpec, StepSpec, Strategy
from release_platform.project import parse_spec
from release_platform.settings import Settings
from serving.errors import Problem
from serving.settings import Settings as ServingSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
WITH_COMMANDS = [page for page in PAGES if page.name != "CHANGELOG.md"]
TARGETS = frozenset(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
MAKE_VARIABLES = frozenset({"VERBOSE", "MODEL", "VERSION", "REASON", "URL", "SEEDS", "PYTHON"})
OF_SPEC = [
    kind
    for module in (spec, data_spec, training_spec, gate_spec, policy_spec)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__ == module.__name__
]
SPECS = [
    *filter(dataclasses.is_dataclass, OF_SPEC),
    FreezeWindow,
    RolloutSpec,
    ShadowSpec,
    StepSpec,
    LiveGateSpec,
    RollbackSpec,
    ReplaySpec,
    DriftSpec,
    RetrainSpec,
    FreshnessSpec,
]
ENUMS: list[type[StrEnum]] = [
    *(kind for kind in OF_SPEC if issubclass(kind, StrEnum)),
    ColumnType,
    Operation,
    Weekday,
    Task,
    Direction,
    Strategy,
    LiveMetric,
    OnAlarm,
    Aging,
]
MODEL_YAML = (ROOT / "docs" / "model-yaml.md").read_text()


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code(text: str) -> set[str]:
    """Returns what stands in backticks, and the words of it."""
    spans = re.findall(r"`([^`\n]+)`", text)
    return {*spans, *(word for span in spans for word in re.split(r"[\s,/]+", span))}


def section(text: str, title: str) -> str:
    """Returns a section of a page with its subsections."""
    marks, _, rest = text.partition(f"# {title}\n")
    level = len(marks) - len(marks.rstrip("#")) + 1
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def fences(text: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in body.splitlines()) for indent, body in found]


def every_command(group: TyperGroup, before: str = "release") -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, GateGroup):  # whose default command needs no name
            yield f"{before} {name}", command.commands[command.default]
            yield from (
                c for c in every_command(command, f"{before} {name}") if not c[0].endswith(f" {command.default}")
            )
        elif isinstance(command, TyperGroup):
            yield from every_command(command, f"{before} {name}")
        else:
            assert isinstance(command, TyperCommand)
            yield f"{before} {name}", command


def release_commands() -> dict[str, TyperCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(every_command(group))


COMMANDS = release_commands()


def options_of(command: TyperCommand) -> set[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    return {option for parameter in shown for option in parameter.opts if option.startswith("--")} | {"--help"}


SECTIONS = {
    "ModelSpec": "The model",
    "SourceSpec": "source",
    "SqlSource": "source",
    "PackageSource": "source",
    "ContractSpec": "contract",
    "ColumnContract": "contract",
    "PartitionSpec": "partitions",
    "TargetSpec": "target",
    "SplitSpec": "split",
    "DerivedSpec": "features",
    "EstimatorSpec": "estimator",
    "PreprocessingSpec": "preprocessing",
    "SearchSpec": "search",
    "TrainingSpec": "training",
    "GateSpec": "gates",
    "PolicySpec": "policy",
    "FreezeWindow": "freeze",
    "RolloutSpec": "rollout",
    "ShadowSpec": "rollout",
    "StepSpec": "rollout",
    "LiveGateSpec": "rollout",
    "RollbackSpec": "rollback_policy",
    "ReplaySpec": "replay",
    "DriftSpec": "drift",
    "RetrainSpec": "retrain",
    "FreshnessSpec": "freshness",
}


def test_every_spec_has_a_section() -> None:
    assert {kind.__name__ for kind in SPECS} == set(SECTIONS)


@pytest.mark.parametrize(
    ("kind", "key"), [(kind.__name__, yaml_key(field.name)) for kind in SPECS for field in dataclasses.fields(kind)]
)
def test_every_key_of_the_yaml_is_described_in_its_section(kind: str, key: str) -> None:
    assert key in code(section(MODEL_YAML, SECTIONS[kind]))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_described_with_its_direction(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (\w+) \|", section(MODEL_YAML, "metrics"), flags=re.MULTILINE)
    assert row is not None
    assert row[1] == METRICS[name].direction


@pytest.mark.parametrize("value", [member.value for kind in ENUMS if kind is not Direction for member in kind])
def test_every_value_that_a_key_takes_is_described(value: str) -> None:
    assert value in code(MODEL_YAML)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_described(verdict: Verdict) -> None:
    assert verdict in code(section((ROOT / "docs/gates.md").read_text(), "Verdicts"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_release_command_is_described_with_its_options(command: str) -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    row = re.search(rf"^\| `{command}(?![\w-])[^`]*` \|(.*)$", text, flags=re.MULTILINE)
    assert row is not None
    assert options_of(COMMANDS[command]) - {"--help"} == set(re.findall(r"`(--[a-z-]+)", row[1]))


def test_every_make_target_is_in_the_readme() -> None:
    assert set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / "README.md").read_text())) == TARGETS


def test_every_exit_code_is_described() -> None:
    rows = re.findall(r"^\| (\d) \|", section((ROOT / "docs/command-line.md").read_text(), "Exit codes"), re.MULTILINE)
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.ReleaseError)]
    assert {int(row) for row in rows} == {0} | {kind.exit_code for kind in kinds}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_of_the_platform_is_described(name: str) -> None:
    assert f"| `RELEASE_{name.upper()}` |" in (ROOT / "docs/command-line.md").read_text()


@pytest.mark.parametrize("name", ServingSettings.model_fields)
def test_every_setting_of_serving_is_described(name: str) -> None:
    assert f"| `SERVING_{name.upper()}` |" in (ROOT / "docs/serving.md").read_text()


def leaves(kind: type[Problem]) -> Iterator[type[Problem]]:
    if not kind.__subclasses__():
        yield kind
    for below in kind.__subclasses__():
        yield from leaves(below)


@pytest.mark.parametrize("problem", list(leaves(Problem)), ids=lambda kind: kind.slug)
def test_every_problem_of_serving_is_described_with_its_status(problem: type[Problem]) -> None:
    rows = section((ROOT / "docs/serving.md").read_text(), "Errors").splitlines()
    (row,) = [row for row in rows if f"`{problem.slug}`" in row]
    assert row.startswith(f"| {problem.status} |")


def test_the_whole_models_of_the_pages_are_valid() -> None:
    models = [body for page in PAGES for body in fences(page.read_text(), "yaml") if body.startswith("type: release")]
    assert models
    for body in models:
        parse_spec(yaml.safe_load(body)["attributes"], file=Path("docs"))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def console_lines() -> list[tuple[str, str]]:
    blocks = [(named(page), body) for page in WITH_COMMANDS for body in fences(page.read_text(), "console")]
    return [(page, line) for page, body in blocks for line in body.splitlines()]


@pytest.mark.parametrize(("page", "line"), console_lines())
def test_every_shell_line_names_what_exists(page: str, line: str) -> None:
    assert line.startswith("$ "), f"{page}: a console block holds commands only"
    words = shlex.split(line.removeprefix("$ "))
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
        assert {word.split("=")[0] for word in words[1:] if "=" in word} <= MAKE_VARIABLES
    elif words[0] == "release":
        command = " ".join(words[:3]) if " ".join(words[:3]) in COMMANDS else " ".join(words[:2])
        assert command in COMMANDS
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options_of(COMMANDS[command])
    else:
        assert words[0] in {"curl", "dg", "export"}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_in_the_text_exist(page: Path) -> None:
    spans = re.findall(r"`((?:make|release) [^`\n]+)`", page.read_text())
    for words in (span.split() for span in spans):
        if words[0] == "make":
            assert words[1] in TARGETS, words
        else:
            assert any(name.split()[: len(words)] == words[: len(name.split())] for name in COMMANDS), words


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_no_place_of_one_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", page.read_text())
