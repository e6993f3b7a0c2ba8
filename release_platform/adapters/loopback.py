"""Which addresses are this machine's own: a proxy of the environment cannot reach them."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Returns whether a host name or address leads back to this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
