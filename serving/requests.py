"""What is noted of each request in its ASGI scope, by whoever answers it, for the edge to count and log."""

from typing import Any

from starlette.types import Scope

from serving.models import LoadedModel


def request_id_of(scope: Scope) -> str:
    """Returns the id of a request that went through `Edge`."""
    return str(scope["state"]["request_id"])


def mark_served(scope: Scope, loaded: LoadedModel | None, problem: str = "") -> None:
    """Notes which version a request is answered from, and the kind of its problem."""
    state: dict[str, Any] = scope["state"]
    if loaded is not None:
        state["served"] = (loaded.model, loaded.version)
    if problem:
        state["problem"] = problem
