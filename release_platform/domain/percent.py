"""How a share, and a difference of two, is said to people."""


def percent(share: float) -> str:
    """Returns a share, 0 to 1, to four digits: `0.858 %` for 0.00858."""
    return f"{share * 100:.4g} %"


def points(difference: float) -> str:
    """Returns a difference of two shares in percentage points, with its sign: `+19 points` for 0.19."""
    return f"{difference * 100:+.4g} points"
