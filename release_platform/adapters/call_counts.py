"""How many calls came for a version, and were refused for what, as a small table: a row for each count."""

from collections import Counter

import pandas as pd

from release_platform.domain.refusals import Calls, Fault, Reason

_INPUT, _WHAT, _N = "input", "what", "n"
_ANSWERED, _REFUSED = "answered", "refused"


def table_of(calls: Calls) -> pd.DataFrame:
    """Returns the table of calls."""
    rows = [("", _ANSWERED, calls.answered), ("", _REFUSED, calls.refused)]
    rows += [(name, reason.value, n) for (name, reason), n in sorted(calls.faults.items())]
    return pd.DataFrame(rows, columns=[_INPUT, _WHAT, _N]).astype({_N: "int64"})


def calls_of(table: pd.DataFrame) -> Calls:
    """Returns the calls of a table, or of several below one another; none of an empty one."""
    if table.empty:
        return Calls()
    counted = Counter[tuple[str, str]]()
    for name, what, n in zip(table[_INPUT], table[_WHAT], table[_N], strict=True):
        counted[name, what] += int(n)
    answered, refused = counted.pop(("", _ANSWERED), 0), counted.pop(("", _REFUSED), 0)
    faults: dict[Fault, int] = {(name, Reason(what)): n for (name, what), n in counted.items()}
    return Calls(answered=answered, refused=refused, faults=faults)
