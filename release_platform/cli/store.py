"""`release store`: the release store's schema, and the role that works with it."""

from typing import TYPE_CHECKING, Annotated

import typer

from release_platform.cli.console import out

if TYPE_CHECKING:
    from release_platform.adapters.release_store import ReleaseStore

store = typer.Typer(help="The release store's schema and rights.", no_args_is_help=True)


@store.command("upgrade")
def upgrade() -> None:
    """Bring the schema of the release store up to date. Opening it does so too, where the role may.

    Example:

        RELEASE_STORE_URL=postgresql://owner@db/release release store upgrade
    """
    from release_platform.adapters.store_database import SCHEMA

    _store().models()
    out.print(f"the schema is at {SCHEMA}")


@store.command("grant")
def grant(role: Annotated[str, typer.Argument(help="An existing role of PostgreSQL.", show_default=False)]) -> None:
    """Give a role the rights that the platform needs, and no others: to the ledger it can only append.

    Run it as the owner of the tables; let Dagster and the command line use the role. It cannot switch off the triggers
    that protect the ledger.

    Example:

        RELEASE_STORE_URL=postgresql://owner@db/release release store grant releaser
    """
    _store().grant(role)
    out.print(f"{role} may read and append; it may not change or delete a row of the ledger")


def _store() -> "ReleaseStore":
    """Returns the release store alone: no model is read, and nothing else is asked."""
    from release_platform.adapters.release_store import ReleaseStore
    from release_platform.settings import Settings

    return ReleaseStore(Settings().release_store_url)
