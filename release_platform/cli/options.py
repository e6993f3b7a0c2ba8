"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="Name of the model; `release models` lists them.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def _named(actor: str | None) -> str | None:
    if actor is not None and not actor.strip():
        raise typer.BadParameter("it is empty; say who acts, or leave it out")
    return actor


Actor = Annotated[
    str | None, typer.Option("--actor", help="Who acts; default: RELEASE_ACTOR, or the user here.", callback=_named)
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger for good.", show_default=False)]
