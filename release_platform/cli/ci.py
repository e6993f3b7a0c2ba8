"""`release ci init`: a workflow that judges the models of a repository in CI."""

from pathlib import Path
from typing import Annotated

import typer

from release_platform.cli.console import out
from release_platform.domain.errors import Refused, Unavailable
from release_platform.gating.workflow import PLACES, JudgedModel, Server, workflow

ci = typer.Typer(help="Judge models in CI.", no_args_is_help=True)


@ci.callback()
def _ci() -> None:
    """Judge models in CI."""


@ci.command("init")
def init(
    server: Annotated[Server, typer.Argument(help="github or gitlab.", show_default=False)],
    path: Annotated[
        Path | None, typer.Option("--path", help="The file to write; default: where the server looks for it.")
    ] = None,
    branch: Annotated[str, typer.Option("--branch", help="The branch that is judged after each push.")] = "main",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a workflow that runs `release gate` for each model of this repository, cached and pinned.

    It installs from requirements/platform.txt or requirements.txt. It is refused where there is neither, or where
    something in it has no hash; `uv pip compile --generate-hashes requirements.in -o requirements.txt` makes them.

    Examples:

        release ci init github

        release ci init gitlab --path .gitlab/release-gates.yml
    """
    from release_platform.cli import running
    from release_platform.pipeline.environment import git_root
    from release_platform.settings import Settings

    root = git_root(Path.cwd())
    if root is None:
        raise Refused("this folder is in no Git repository", remedy="run it in a checkout, or `git init` first")
    place = path or root / PLACES[server]
    if place.exists() and not force:
        raise Refused(
            f"{place} is there already", remedy="give --force to overwrite it, or --path to write another file"
        )
    found = sorted(running.projects().items())
    folders = {name: project.folder.resolve() for name, project in found}
    models = [
        JudgedModel(name=name, folder=folder.relative_to(root.resolve()).as_posix())
        for name, folder in folders.items()
        if folder.is_relative_to(root.resolve())
    ]
    text = workflow(server, root, models, models_folder=_relative(Settings().models, root), branch=branch)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{place} cannot be written: {error}", remedy="name a file that can be written") from None
    named = ", ".join(model.name for model in models)
    out.print(f"wrote {place}: it judges {named}. Read it, then commit it.", markup=False, soft_wrap=True)


def _relative(folder: Path, root: Path) -> str:
    whole = folder.resolve()
    return whole.relative_to(root.resolve()).as_posix() if whole.is_relative_to(root.resolve()) else str(folder)
