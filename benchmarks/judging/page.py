"""The tables and the plot of `docs/judging.md`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.judging.experiments import CASES, GATES, PAIRED, at_most, requests_to_pass

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "judging.svg"
_BEGIN, _END = "<!-- begin: benchmarks/judge.py -->", "<!-- end: benchmarks/judge.py -->"


def tables(figures: Mapping[str, Any]) -> str:
    """Returns the figures of a run as Markdown."""
    parts = (_alike, _at_margin, _worse, _late, _strictness, _holes)
    return "\n\n".join((*(part(figures) for part in parts), _margins()))


def write(figures: Mapping[str, Any], docs: Path) -> None:
    """Puts the tables between their marks in `judging.md`, and the plot beside it."""
    page = docs / "judging.md"
    between = f"{_BEGIN}\n\n{tables(figures)}\n\n{_END}"
    found = re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: between, page.read_text(), flags=re.DOTALL)
    page.write_text(found)
    draw(figures, docs / PLOT)


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """Draws after how many requests each regression is found by whom, as SVG; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "judging", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        _paint(figure.add_subplot(), figures)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.read_text()
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


_MARKS = {"judge": ("o", "#1f5fa8"), "fixed": ("|", "#222222"), "kayenta": ("x", "#b8860b")}
_NAMES = {"judge": "the judge: median, to 90 %", "fixed": "z-test at a fixed horizon", "kayenta": "Kayenta's rule"}


def _paint(axes: "Axes", figures: Mapping[str, Any]) -> None:
    for rule, (mark, colour) in _MARKS.items():
        found = [(row, figures["worse"][case.name].get(rule)) for row, case in enumerate(CASES)]
        shown = [(row, one) for row, one in found if one is not None and one["median"] is not None]
        places, medians = [row for row, _ in shown], [one["median"] for _, one in shown]
        axes.plot(medians, places, mark, color=colour, markersize=9, markeredgewidth=2, label=_NAMES[rule])
        for row, one in shown if rule == "judge" else []:
            axes.plot([one["median"], one["most"] or one["median"]], [row, row], color=colour, linewidth=2)
    axes.set_yticks(range(len(CASES)), [f"{case.name}: {case.said}" for case in CASES])
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = (200, 500, 1000, 2000, 5000)
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("the candidate's requests until it is aborted")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _alike(figures: Mapping[str, Any]) -> str:
    n = figures["n"]["alike"]
    head = (
        f"**{n:,} A/A streams**, looked at after each of 60 windows: aborted\n\n"
        "| gate | judge | at most | naive z-test | Kayenta | requests to pass, median | 90 % |\n"
        "|---|---|---|---|---|---|---|"
    )
    rows = [_alike_row(gate.name, figures, n) for gate in (*GATES, *PAIRED)]
    every = figures["alike"]["any"]
    rows.append(_row("any of the first five", _rates(every, n), "", ""))
    return "\n".join((head, *rows))


def _alike_row(name: str, figures: Mapping[str, Any], n: int) -> str:
    passed = figures["to_pass"][name]
    return _row(f"`{name}`", _rates(figures["alike"][name], n), _count(passed["median"]), _count(passed["most"]))


def _rates(found: Mapping[str, int], n: int) -> str:
    aborted = found["judge"]
    others = [f"{found[rule] / n:.1%}" if rule in found else "" for rule in ("naive", "kayenta")]
    return " | ".join((f"{aborted / n:.2%}", f"{at_most(aborted, n):.2%}", *others))


def _at_margin(figures: Mapping[str, Any]) -> str:
    n = figures["n"]["alike"]
    head = (
        f"**{n:,} streams exactly at the margin**, where the levels are all that protects\n\n"
        "| case | aborted by the judge | at most | level | by the z-test at each look | passed | at most | level |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join((head, *(_margin_row(name, one, n) for name, one in figures["at_margin"].items())))


def _margin_row(name: str, one: Mapping[str, Any], n: int) -> str:
    peeking = f"{one['peeking'] / n:.1%}" if name != "disagreement" else ""
    aborted, passed = one["judge"], one["passed"]
    return _row(
        name, f"{aborted / n:.2%}", f"{at_most(aborted, n):.2%}", f"{one['level_worse']:.2%}", peeking,
        f"{passed / n:.1%}", f"{at_most(passed, n):.1%}", f"{one['level_fine']:.0%}",
    )  # fmt: skip


def _worse(figures: Mapping[str, Any]) -> str:
    head = (
        f"**{figures['n']['worse']:,} streams of each regression**: found within 60 windows, "
        "and the candidate's requests until then\n\n"
        "| regression | found | passed | median | 90 % | fixed horizon | peeking, median | Kayenta, median |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join((head, *(_worse_row(case.name, case.said, figures["worse"][case.name]) for case in CASES)))


def _worse_row(name: str, said: str, found: Mapping[str, Any]) -> str:
    judge = found["judge"]
    others = [_count(found.get(rule, {}).get("median")) for rule in ("fixed", "peeking", "kayenta")]
    shares = (f"{judge['found']:.1%}", f"{found['passed']['found']:.1%}")
    return _row(f"{name}: {said}", *shares, _count(judge["median"]), _count(judge["most"]), *others)


def _strictness(figures: Mapping[str, Any]) -> str:
    head = "**Errors threefold, by `false_abort`**\n\n| `false_abort` | found | median | 90 % |\n|---|---|---|---|"
    rows = [
        _row(stated, f"{found['found']:.1%}", _count(found["median"]), _count(found["most"]))
        for stated, found in figures["strictness"].items()
    ]
    return "\n".join((head, *rows))


def _margins() -> str:
    margins = (0.005, 0.01, 0.02, 0.05, 0.1)
    head = "**Requests to pass, by margin**, if both versions have this share, at a quarter of the traffic\n\n"
    head += f"| share of both | {' | '.join(f'{margin:g}' for margin in margins)} |\n|---{'|---' * len(margins)}|"
    shares = ((1e-9, "0"), (0.01, "0.01"), (0.05, "0.05"), (0.1, "0.1"), (0.5, "0.5"))
    rows = [_row(said, *(_count(requests_to_pass(share, margin)) for margin in margins)) for share, said in shares]
    return "\n".join((head, *rows))


def _late(figures: Mapping[str, Any]) -> str:
    n, found = figures["n"], figures["late"]
    return (
        "**Labels that come late**, a tenth after a minute and 40 % of these wrong, the others after an hour and 2 % "
        f"wrong: of {n['alike']:,} A/A streams {found['aborted']:,} were aborted; of {n['worse']:,} of a version that "
        f"is 10 points worse at each age {found['found']:,} were found, and {found['passed']:,} passed before."
    )


def _holes(figures: Mapping[str, Any]) -> str:
    n, passed = figures["n"]["holed"], figures["holes"]
    return (
        f"**{n:,} streams of a good version with a blocking metric missing**: {passed['holed']:,} passed. "
        f"Of the first {passed['n_whole']:,} of them without the hole, {passed['whole']:,} passed."
    )


def _count(n: float | None) -> str:
    return "" if n is None else f"{n:,.0f}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
