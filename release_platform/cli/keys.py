"""`release keys`: the key that signs versions and moves, and the keys that are trusted."""

from pathlib import Path
from typing import Annotated

import typer

from release_platform.cli.console import out, show_json, show_table
from release_platform.cli.options import Json
from release_platform.domain.errors import NotFound, Refused

keys = typer.Typer(help="Show, rotate, trust and distrust the keys that sign versions and moves.", no_args_is_help=True)


@keys.command("list")
def list_keys(json: Json = False) -> None:
    """List the trusted keys; one of them signs.

    Example:

        release keys list
    """
    signing, trusted = _keys()
    rows = [(identity, "signs" if identity == signing else "trusted") for identity in trusted]
    if json:
        show_json([{"key": identity, "role": role} for identity, role in rows])
        return
    show_table("keys", ("key", "role"), rows)


@keys.command("rotate")
def rotate() -> None:
    """Make a new signing key; the one before stays trusted until `release keys distrust`.

    Example:

        release keys rotate
    """
    from release_platform.adapters.signing import key_id
    from release_platform.cli import running

    signer = running.services().keys.rotate()
    out.print(f"{key_id(signer.public_key)} signs from now on", soft_wrap=True)


@keys.command("trust")
def trust(
    file: Annotated[Path, typer.Argument(help="A public key in PEM: Ed25519 or ECDSA.", show_default=False)],
) -> None:
    """Trust a public key from now on, e.g. that of another machine which releases.

    Example:

        release keys trust build-machine.pub.pem
    """
    from release_platform.adapters.signing import key_id, load_public_key
    from release_platform.cli import running

    try:
        key = load_public_key(file.read_bytes())
    except OSError as error:
        raise NotFound(f"{file} cannot be read ({error.strerror})", remedy="give the path of a public key") from None
    running.services().keys.trust(key)
    out.print(f"{key_id(key)} is trusted from now on", soft_wrap=True)


@keys.command("distrust")
def distrust(key: Annotated[str, typer.Argument(help="The key's id, or how it begins.", show_default=False)]) -> None:
    """Trust a key no more; what it signed and is still needed is verified and signed by the present key first.

    Example:

        release keys distrust 3f9c2a71b0de
    """
    from release_platform.cli import running

    signing, trusted = _keys()
    found = [identity for identity in trusted if identity.startswith(key)]
    if len(found) != 1:
        raise NotFound(f"{len(found)} trusted keys begin with '{key}'", remedy="`release keys list` shows all of them")
    if found[0] == signing:
        raise Refused("this key signs", remedy="`release keys rotate` makes another one first")
    services = running.services()
    services.releases.distrust_key(found[0], services.store.models())
    out.print(f"{found[0]} is trusted no more", soft_wrap=True)


def _keys() -> tuple[str, tuple[str, ...]]:
    from release_platform.adapters.signing import key_id
    from release_platform.cli import running

    folder = running.services().keys
    return key_id(folder.signer().public_key), folder.trusted().ids
