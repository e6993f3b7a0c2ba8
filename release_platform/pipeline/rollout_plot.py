"""The plot of a rollout's stage: the bad share of both versions minute by minute, a panel for each gate."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from release_platform.domain.judge import Plan, arms_of, worst_question
from release_platform.domain.live_metrics import Arms, tables_of
from release_platform.domain.sequential import Counts
from release_platform.domain.strategy import LiveGateSpec
from release_platform.domain.windows import Window
from release_platform.pipeline.plots import png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STABLE, _CANDIDATE, _GREY = "#1f5fa8", "#c75b12", "#8a8f98"
_WIDTH, _PANEL, _MARGIN = 6.4, 1.5, 0.75
MOST_MINUTES = 240
"""The last four hours are drawn."""


def draw_arms(planned: Plan, windows: Iterable[Window], *, until: int) -> bytes | None:
    """Returns the plot of what the judge compares, as PNG bytes; None while no minute has both versions."""
    arms = arms_of(planned, windows, until=until)[-MOST_MINUTES:]
    if not arms or not planned.gates:
        return None
    from matplotlib.figure import Figure

    n = len(planned.gates)
    figure = Figure(figsize=(_WIDTH, _PANEL * n + _MARGIN), dpi=100)
    panels: list[Axes] = list(figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0])
    for gate, axes in zip(planned.gates, panels, strict=True):
        _draw(gate, arms, planned.first_minute, axes)
    panels[0].set_title(
        f"{planned.model}: version {planned.candidate} ({planned.route}) beside version {planned.stable}",
        fontsize=10,
        loc="left",
    )
    panels[-1].set_xlabel("minutes of this stage")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, frameon=False, fontsize=8)
    figure.subplots_adjust(
        left=0.17, right=0.97, top=1 - 0.32 / figure.get_figheight(), bottom=0.45 / figure.get_figheight()
    )
    return png_of(figure)


def as_markdown(image: bytes) -> str:
    """Returns a PNG image as Markdown that needs no file."""
    return f"![arms](data:image/png;base64,{base64.b64encode(image).decode()})"


def _draw(gate: LiveGateSpec, arms: Sequence[Arms], since: int, axes: Axes) -> None:
    minutes = np.array([candidate.key.minute for candidate, _ in arms])
    minutes = minutes - minutes[0] + 1
    tables = tables_of(gate, arms, since=since)
    counts = tables[worst_question(tables)]
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_ylabel(f"{gate.name}\nbad share", fontsize=8)
    candidate = _share(counts[:, 0], counts[:, 1])
    axes.plot(minutes, candidate, color=_CANDIDATE, marker=".", linewidth=1, label="candidate")
    if counts.shape[-1] == 4:
        axes.plot(minutes, _share(counts[:, 2], counts[:, 3]), color=_STABLE, marker=".", linewidth=1, label="stable")
    else:
        axes.axhline(gate.accepted, color=_GREY, linestyle="--", linewidth=1, label="accepted")
    axes.set_ylim(bottom=-0.02 * max(1e-3, float(np.nanmax(candidate, initial=0.0))))


def _share(n: Counts, bad: Counts) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.where(n > 0, bad / np.maximum(n, 1), np.nan)
