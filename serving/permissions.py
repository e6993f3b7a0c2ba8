"""Which scope of an API key a request needs; what is not named here needs one, whether there is such a path or not."""

from release_platform.domain.api_keys import Scope

PROBES = frozenset({"/livez", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready"})


def needed(method: str, path: str) -> Scope | None:
    """Returns the scope that a request which is no prediction needs; None when anybody may send it.

    Probes are open, and so are pushed moves: their signatures prove them, whoever brings them.

    Args:
        method: The request's method.
        path: Its path.
    """
    if path in PROBES or (method == "POST" and path.startswith("/v1/models/") and path.endswith("/certificate")):
        return None
    if path == "/v1/outcomes" or (method == "POST" and path == "/v1/outcomes/held"):
        return Scope.PREDICT
    return Scope.ADMIN if path.startswith("/admin") else Scope.READ
