"""Arguments and options that several commands share."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from release_platform.domain.errors import Unavailable

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


def parse_since(text: str) -> timedelta:
    """Returns how far back a text such as `7d` is; what it is not is wrong usage."""
    found = re.fullmatch(r"([1-9]\d{0,3})([hdw])", text)
    if found is None:
        raise typer.BadParameter(f"'{text}' is no time; write e.g. 24h, 7d or 4w")
    return timedelta(**{{"h": "hours", "d": "days", "w": "weeks"}[found[2]]: int(found[1])})


def key_in(file: Path) -> str:
    """Returns the API key that a file holds.

    Raises:
        Unavailable: It cannot be read, or there is none.
    """
    try:
        key, problem = file.read_text(encoding="ascii").strip(), "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        key, problem = "", type(error).__name__
    if not key:
        raise Unavailable(
            f"the API key cannot be read from {file}: {problem}",
            remedy="let --api-key-file, or RELEASE_API_KEY_FILE for the operators' API, name a file that holds nothing "
            "but the key that `release api-key create` printed",
        )
    return key
