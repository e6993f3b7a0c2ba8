"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="Name of the model; `release models` lists them.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who acts; default: RELEASE_ACTOR, or the user here.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger for good.", show_default=False)]
