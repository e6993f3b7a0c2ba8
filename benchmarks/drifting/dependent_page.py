"""The table of rows that are not independent in `docs/drift.md`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- begin: benchmarks/dependent_drift.py -->", "<!-- end: benchmarks/dependent_drift.py -->"


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Returns the figures of a run as Markdown."""
    shifts = list(figures[0]["delays"])
    head = (
        "| rows | independent rows assumed, 30 days | days 1-14 | days 15-30 | days 31-60 | at most (95 %) | "
        "next version, days 1-14 | " + " | ".join(f"+ {name}" for name in shifts) + " |"
    )
    return "\n".join((head, "|---" * (7 + len(shifts)) + "|", *map(_line, figures)))


def write(figures: Sequence[Mapping[str, Any]], docs: Path) -> None:
    """Puts the table between its marks in `drift.md`."""
    page = docs / "drift.md"
    between = f"{_BEGIN}\n\n{table(figures)}\n\n{_END}"
    page.write_text(
        re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: between, page.read_text(), flags=re.DOTALL)
    )


def _line(one: Mapping[str, Any]) -> str:
    alarms = [one[name] for name in ("independent", "first", "rest", "second_month", "at_most", "next_version")]
    cells = [one["said"], *(f"{n:.2f}" if n < 1 else f"{n:.1f}" for n in alarms), *map(_days, one["delays"].values())]
    return f"| {' | '.join(cells)} |"


def _days(found: Mapping[str, Any]) -> str:
    if found["median"] is None:
        return f"{found['found']:.0%}"
    late = f"{found['late']:.0f}" if found["late"] is not None else "more"
    return f"{found['median']:.0f} ({late})"
