"""`release api-key`: the keys that callers show to the servers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from release_platform.cli.console import err, out, show_json, show_table
from release_platform.cli.options import Json
from release_platform.domain.api_keys import (
    ApiKey,
    KeyState,
    Scope,
    expiry_of,
    find_key_id,
    holds_key,
    is_name,
    rate_of,
)
from release_platform.domain.freeze import moment_text

if TYPE_CHECKING:
    from release_platform.adapters.api_keys import ApiKeyFile

api_key = typer.Typer(help="Make, list and revoke the keys that callers show to the servers.", no_args_is_help=True)


def _name(text: str) -> str:
    if not is_name(text):  # the text is not repeated: it may be a key
        raise typer.BadParameter(
            "a name is one line of 1 to 100 printable characters that says who or what has the key"
        )
    return text


def _rate(text: str) -> int:
    try:
        return rate_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@api_key.command("create")
def create(
    name: Annotated[
        str, typer.Argument(help="Who or what will have the key.", parser=_name, metavar="NAME", show_default=False)
    ],
    scope: Annotated[
        list[Scope], typer.Option("--scope", help="What it is for; may be given several times.", show_default=False)
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="90d, 12h, 30m, a date or a moment in UTC; default: never.", metavar="WHEN"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate", help="Most requests, e.g. 600/min; default: the server's.", metavar="RATE", parser=_rate
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    Examples:

        release api-key create dashboard --scope predict --scope read --expires 90d

        release api-key create deployment --scope admin --expires 2027-01-01 --rate 60/min
    """
    from release_platform.adapters.clock import SystemClock

    try:
        expires_at = None if expires is None else expiry_of(expires, SystemClock().now())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from None
    key, text = _file().create(name, scope, expires_at=expires_at, rate_per_minute=rate)
    if json:
        show_json({**_shown(key), "key": text})
        return
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    until = "without an end" if key.expires_at is None else f"until {moment_text(key.expires_at)}"
    err.print(
        f"This is key {key.key_id} for {', '.join(key.scopes)}, {until}. Keep it now: it is shown this once. "
        "Whoever has it sends it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@api_key.command("list")
def list_keys(
    every: Annotated[bool, typer.Option("--all", help="Those too that have expired or are revoked.")] = False,
    json: Json = False,
) -> None:
    """List the keys that are good; never what they are.

    Examples:

        release api-key list

        release api-key list --all --json
    """
    shown = [_shown(key) for key in _file().all()]
    shown = [key for key in shown if every or key["state"] == KeyState.ACTIVE]
    if json:
        show_json(shown)
        return
    columns = ("id", "name", "scopes", "rate_per_minute", "expires_at", "state")
    rows = [[", ".join(key[c]) if c == "scopes" else key[c] for c in columns] for key in shown]
    show_table("API keys", [column.replace("_", " ") for column in columns], rows)


@api_key.command("revoke")
def revoke(
    key: Annotated[
        str, typer.Argument(help="The key's id. The whole key will do too.", metavar="ID", show_default=False)
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept for good.", show_default=False)],
) -> None:
    """Revoke a key; servers refuse it within seconds. It stays in `release api-key list --all`.

    Example:

        release api-key revoke 3f9c2a71b0de --reason "the laptop was lost"
    """
    if holds_key(reason):  # the reason is kept and shown
        raise typer.BadParameter("the reason holds a key; name its id only", param_hint="--reason")
    revoked = _file().revoke(find_key_id(key) or key, reason)
    assert revoked.revoked_at is not None
    since = moment_text(revoked.revoked_at)
    out.print(
        f"{revoked.key_id} ({revoked.name}) is revoked since {since}: {revoked.revoked_because}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _file() -> "ApiKeyFile":
    from release_platform.adapters.api_keys import ApiKeyFile
    from release_platform.settings import Settings

    path: Path = Settings().known_keys
    return ApiKeyFile(path)


def _shown(key: ApiKey) -> dict[str, Any]:
    from release_platform.adapters.clock import SystemClock

    return {
        "id": key.key_id,
        "name": key.name,
        "scopes": list(key.scopes),
        "rate_per_minute": key.rate_per_minute,
        "created_at": moment_text(key.created_at),
        "expires_at": None if key.expires_at is None else moment_text(key.expires_at),
        "revoked_at": None if key.revoked_at is None else moment_text(key.revoked_at),
        "revoked_because": key.revoked_because,
        "state": key.state(SystemClock().now()),
    }
