"""Writes the workflow of a CI server that judges a repository's models."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from release_platform.domain.errors import Refused
from release_platform.gating.pinned import find_lock, install_lines

if TYPE_CHECKING:
    from jinja2 import Environment

_PLATFORM = "model-release-platform"
_LOCK_REMEDY = (
    f"write requirements.in with the line `{_PLATFORM}[platform] @ ADDRESS`, the address of its wheel, or "
    f"`{_PLATFORM}[platform]=={installed(_PLATFORM)}` where your index has it; then "
    "`uv pip compile --generate-hashes requirements.in -o requirements.txt`, and commit both"
)
_JUDGE = (
    "mkdir -p gates",
    "# A model that the base commit does not have is judged alone.",
    'git cat-file -e "${BASE:-none}:$FOLDER/defs.yaml" 2> /dev/null || BASE=',
    'release gate "$MODEL" ${BASE:+--from "$BASE"}'
    " --junit gates/gates.xml --markdown gates/summary.md --sarif gates/gates.sarif",
)


class Server(StrEnum):
    """A CI server."""

    GITHUB = "github"
    GITLAB = "gitlab"


_MORE = {Server.GITHUB: "", Server.GITLAB: " --metrics gates/metrics.txt"}
"""What only one of them shows."""

PLACES = {Server.GITHUB: Path(".github/workflows/release-gates.yml"), Server.GITLAB: Path(".gitlab-ci.yml")}
"""Where each server looks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedModel:
    """A model of the repository: its name, and its folder relative to the root."""

    name: str
    folder: str


def workflow(server: Server, root: Path, models: Sequence[JudgedModel], *, models_folder: str, branch: str) -> str:
    """Returns the workflow as YAML.

    Args:
        server: Which server.
        root: The root of the repository, whose lock file is installed from.
        models: The models.
        models_folder: The folder with the team's models, relative to the root.
        branch: The branch that is judged after each push.

    Raises:
        Refused: There is no model, nothing to install from, or something that is not pinned by a hash.
    """
    if not models:
        raise Refused("this repository has no model", remedy="write one with `release new`, then try again")
    lock = find_lock(root, remedy=_LOCK_REMEDY)
    return (
        _templates()
        .get_template(f"{server}.yml.j2")
        .render(
            models=models,
            models_folder=models_folder,
            branch=branch,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            cached=lock,
            install=install_lines(root, lock, remedy=_LOCK_REMEDY),
            judge=[*_JUDGE[:-1], _JUDGE[-1] + _MORE[server]],
        )
    )


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "workflows"),
        autoescape=False,  # noqa: S701 - it is YAML; what comes from outside is quoted by tojson
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
