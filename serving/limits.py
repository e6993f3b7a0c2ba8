"""What one request may hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may hold, and how strictly its columns are named.

    Attributes:
        max_rows: Most rows.
        ignore_extra: Whether a column that the model does not take is left out instead of refused.
        refuse_unknown: Whether a category that the contract does not list is refused; otherwise the model makes of it
            what it makes of one that training did not see.
        takes_nat: Whether the text `NaT` for a time is a missing one: pandas writes it so.
    """

    max_rows: int = 10_000
    ignore_extra: bool = False
    refuse_unknown: bool = False
    takes_nat: bool = False
