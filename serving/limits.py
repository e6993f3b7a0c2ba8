"""What one request may hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may hold, and how strictly its columns are named.

    Attributes:
        max_rows: Most rows.
        ignore_extra: Whether a column that the model does not take is left out instead of refused.
    """

    max_rows: int = 10_000
    ignore_extra: bool = False
