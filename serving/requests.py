"""What is noted of each request in its ASGI scope, by whoever answers it, for the edge to count and log."""

from typing import Any

from starlette.types import Scope

from serving.models import LoadedModel


def request_id_of(scope: Scope) -> str:
    """Returns the id of a request that went through `Edge`."""
    return str(scope["state"]["request_id"])


def mark_served(scope: Scope, loaded: LoadedModel | None, problem: str = "", caller_id: str = "") -> None:
    """Notes which version a request is answered from, the kind of its problem, and whose API key it came with."""
    state: dict[str, Any] = scope["state"]
    if loaded is not None:
        state["served"] = (loaded.model, loaded.version)
    if caller_id:
        state["caller"] = caller_id
    if problem:
        state["problem"] = problem
