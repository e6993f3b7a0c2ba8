"""The tables of whole rollouts in `docs/judging.md`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.judging.experiments import CASES

_BEGIN, _END = "<!-- begin: benchmarks/judge_rollouts.py -->", "<!-- end: benchmarks/judge_rollouts.py -->"


def tables(figures: Mapping[str, Any]) -> str:
    """Returns the figures of a run as Markdown."""
    return "\n\n".join((_alike(figures["alike"]), _worse(figures["worse"]), _holes(figures["holes"])))


def write(figures: Mapping[str, Any], docs: Path) -> None:
    """Puts the tables between their marks in `judging.md`."""
    page = docs / "judging.md"
    between = f"{_BEGIN}\n\n{tables(figures)}\n\n{_END}"
    found = re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: between, page.read_text(), flags=re.DOTALL)
    page.write_text(found)


def _alike(found: Mapping[str, Any]) -> str:
    n, failed = found["n"], found["failed"]
    return (
        f"**{n:,} rollouts of a version like the stable one**, five gates, 60 looks: {failed:,} aborted by a gate "
        f"({failed / n:.2%}, at most {found['at_most']:.2%}; promised 1%), {found['promoted']:,} promoted."
    )


def _worse(found: Mapping[str, Any]) -> str:
    head = (
        "**Rollouts of each regression**, and the minutes until its share of the traffic was 0\n\n"
        "| regression | rollouts | failed a gate | traffic back | promoted | median | 90 % | last |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join((head, *(_worse_row(f"{case.name}: {case.said}", found[case.name]) for case in CASES)))


def _worse_row(named: str, one: Mapping[str, Any]) -> str:
    n = one["n"]
    # No minutes where none came back, for which a quantile has no value.
    minutes = [f"{one[name]:.0f}" if one["back"] else "" for name in ("median", "most", "last")]
    cells = (named, f"{n:,}", f"{one['failed'] / n:.1%}", f"{one['back'] / n:.1%}", f"{one['promoted']:,}", *minutes)
    return f"| {' | '.join(cells)} |"


def _holes(found: Mapping[str, Any]) -> str:
    return (
        f"**{found['n']:,} rollouts of a good version with a blocking metric missing**: {found['holed']:,} promoted. "
        f"Of the first {found['n_whole']:,} of them without the hole, {found['whole']:,} promoted."
    )
