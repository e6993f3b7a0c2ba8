"""`release new`: a working model project from a data file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from release_platform.cli.console import out
from release_platform.domain.errors import Refused


def new(
    name: Annotated[
        str, typer.Argument(help="Name of the new model: lower-case letters, digits, underscores.", show_default=False)
    ],
    source: Annotated[Path, typer.Option("--from", help="CSV or Parquet file with the data.", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="Column to predict.", show_default=False)],
    owner: Annotated[str, typer.Option("--owner", help="Owner: team:NAME or an e-mail address.")] = "team:ml",
    folder: Annotated[
        Path | None, typer.Option("--in", help="Folder of models; default: RELEASE_MODELS, or ./models.")
    ] = None,
) -> None:
    """Write a defs.yaml for a new model, inferred from its data: contract, features, estimator, gates.

    Example:

        release new churn --from churn.csv --target churned
    """
    import yaml

    from release_platform.cli import running
    from release_platform.pipeline.proposal import propose
    from release_platform.project import parse_spec

    services = running.services()
    models = (folder or services.settings.models).resolve()
    place = models / name
    if (place / "defs.yaml").exists() or name in running.projects():
        raise Refused(f"the model '{name}' exists already", remedy="choose another name, or edit its defs.yaml")
    address = os.path.relpath(source.resolve(), place)
    text = propose(name, source.resolve(), target, owner, address=address)
    parse_spec(yaml.safe_load(text)["attributes"], file=place / "defs.yaml")
    place.mkdir(parents=True)
    for package in (models, place):
        (package / "__init__.py").touch()
    (place / "defs.yaml").write_text(text, encoding="utf-8")
    out.print(
        f"wrote [bold]{place / 'defs.yaml'}[/]; read its gates, then: [bold]release run {name}[/]", soft_wrap=True
    )
