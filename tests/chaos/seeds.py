"""How long the chaos tests go on: `CHAOS_SEEDS`, a few in the normal suite, many in `make chaos SEEDS=50`.

`CHAOS_ONLY`, names or parts of them with commas between, chooses the operations that are cut off.
"""

import os

import pytest

SEEDS = int(os.environ.get("CHAOS_SEEDS", "1"))
AT_LENGTH = SEEDS >= 10
"""Whether every point is tried, and not a sample of each seed."""
ONLY = tuple(word.strip() for word in os.environ.get("CHAOS_ONLY", "").split(",") if word.strip())
"""Words of which an operation's name holds one, where not all are tried."""

only_at_length = pytest.mark.skipif(
    not AT_LENGTH, reason="`make chaos` runs it: it takes minutes, or needs a quiet machine"
)


def bound(n_bad: int, n: int) -> str:
    """Returns "0 of n" with its 95 % bound, by the rule of three."""
    return f"{n_bad} of {n:,}" + ("" if n_bad or not n else f" (95 % bound {min(1, 3 / n):.2g})")
