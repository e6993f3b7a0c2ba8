"""The addresses of all servers behind one name, where their number changes: `dns+http://serving-pods:8000`.

The prefix is that of Thanos and Cortex. In Kubernetes the name is that of a headless service.
"""

import socket
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urlsplit, urlunsplit

_PREFIX = "dns+"


def lookup(host: str, port: int | None) -> list[str]:
    """Returns the IP addresses that a name has now, in order.

    Raises:
        OSError: It has none, or nobody can be asked.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def each_server(urls: Iterable[str], look_up: Callable[[str, int | None], list[str]] = lookup) -> tuple[str, ...]:
    """Returns one address for each server that there is now.

    Args:
        urls: Addresses, of which those that begin with `dns+` are taken apart.
        look_up: How a name is looked up.

    Returns:
        The addresses, each once. A name that cannot be looked up stays as it is, without the prefix: who calls it is
        told why nobody answers there.
    """
    return tuple(dict.fromkeys(found for url in urls for found in _expanded(url, look_up)))


def _expanded(url: str, look_up: Callable[[str, int | None], list[str]]) -> list[str]:
    if not url.startswith(_PREFIX):
        return [url]
    parts = urlsplit(url.removeprefix(_PREFIX))
    try:
        found = look_up(parts.hostname or "", parts.port)
    except OSError:
        found = []
    return [_at(parts, address) for address in found] or [urlunsplit(parts)]


def _at(parts: SplitResult, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return urlunsplit(parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}"))
