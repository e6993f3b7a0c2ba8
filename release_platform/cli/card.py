"""`release card`: the model card of a version, from what is recorded."""

from pathlib import Path
from typing import Annotated

import typer

from release_platform.cli.console import err
from release_platform.cli.options import Model
from release_platform.domain.errors import Unavailable


def card(
    model: Model,
    version: Annotated[
        str | None, typer.Option("--version", help="The version; default: the one in Production, else Staging.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write Markdown to this file.")] = None,
    bom: Annotated[
        Path | None, typer.Option("--bom", help="Write a CycloneDX bill of materials (JSON) to this file.")
    ] = None,
) -> None:
    """Show what is recorded of a version: use, limits, data, metrics, slices, gates, lineage, who approved it.

    Without a file it prints Markdown. Approvals and moves since the registration are in it.

    Examples:

        release card breast_cancer

        release card breast_cancer --version 3 --html card.html --bom bom.cdx.json
    """
    from release_platform.cli import running
    from release_platform.model_card import bom_json, gather_card
    from release_platform.pipeline.card import card_html, card_markdown

    found = gather_card(running.services(), running.project(model), version)
    if html is None and markdown is None and bom is None:
        typer.echo(card_markdown(found))
    for file, form in ((html, card_html), (markdown, card_markdown), (bom, bom_json)):
        if file is not None:
            try:
                file.write_text(form(found), encoding="utf-8")
            except OSError as error:
                raise Unavailable(
                    f"{file} cannot be written: {error}", remedy="name a file that can be written"
                ) from None
            err.print(f"written to {file}", markup=False, soft_wrap=True)
