"""How a share is said to people."""


def percent(share: float) -> str:
    """Returns a share, 0 to 1, to four digits: `0.858 %` for 0.00858."""
    return f"{share * 100:.4g} %"
