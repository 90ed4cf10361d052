"""The Pareto front of a sweep: the points that no other point beats in everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.reporting.colours import EDGE, GRID, INK, PALE, SAMPLING
from tune.findings.points import SCORES, Point, Score, losses, scores_of

PANEL_INCHES = (4.6, 3.9)
ON_FRONT, BEHIND = SAMPLING["hybrid"], "#9a9a9a"
MOST_LABELS = 12
"""Of points behind the front; more of them stay without a label."""


def pareto_front(points: Sequence[Point], benchmark: str, scores: Sequence[Score]) -> list[bool]:
    """For each point, whether no other is at least as good in the means of all `scores` and better in one."""
    losses_by_point = np.array([losses(points, benchmark, score) for score in scores]).T
    return [
        not any((other <= mine).all() and (other < mine).any() for other in losses_by_point) for mine in losses_by_point
    ]  # fmt: skip


def front_scores(benchmark: str, points: Sequence[Point], objectives: Sequence[Score] = ()) -> list[Score]:
    """The scores that are weighed against each other: the objectives of a search for several, else all that are shown.

    None where there are not two scores or two points.
    """
    scores = scores_of(benchmark, points, objectives if len(objectives) > 1 else SCORES)
    return scores if len(points) > 1 and len(scores) > 1 else []


def front_picture(benchmark: str, points: Sequence[Point], path: Path, scores: Sequence[Score]) -> None:
    """A PNG with a panel for the first score against each of the others; means over seeds, better is up and right.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across, *others = scores
    on_front = pareto_front(points, benchmark, [across, *others])
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1, wspace=0.04)
    figure = Figure(figsize=(PANEL_INCHES[0] * len(others), PANEL_INCHES[1] + 0.8), layout=layout)
    FigureCanvasAgg(figure)
    for panel, score in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        _draw(panel, benchmark, points, on_front, (across, score))
    figure.suptitle(f"{benchmark}: Pareto front (up and to the right is better)", fontsize=13, color=INK, weight="bold")
    names = ", ".join(score.title for score in [across, *others])
    figure.supxlabel(
        f"filled: no other point is at least as good in all of {names}; means over seeds", fontsize=8.5, color=PALE
    )
    figure.savefig(path, dpi=160, format="png", facecolor="white")


def _draw(
    panel: Any, benchmark: str, points: Sequence[Point], on_front: Sequence[bool], scores: tuple[Score, Score]
) -> None:
    x, y = ([point.mean(f"{benchmark}/{score.key}") for point in points] for score in scores)
    label_all = len(points) - sum(on_front) <= MOST_LABELS
    for point, best, across, up in zip(points, on_front, x, y, strict=True):
        colour = ON_FRONT if best else BEHIND
        panel.scatter(
            across, up, s=46, facecolor=colour if best else "white", edgecolor=colour, linewidth=1.6, zorder=3
        )
        if best or label_all:
            panel.annotate(
                point.label.replace("alpha=", "α "), (across, up), xytext=(6, 4), textcoords="offset points",
                fontsize=8, color=INK if best else PALE, zorder=4,
            )  # fmt: skip
    for axis, score in zip((panel.xaxis, panel.yaxis), scores, strict=True):
        better = "" if score.higher_is_better else " (lower is better)"
        axis.set_label_text(f"{score.title}{better}", color=PALE, fontsize=9.5)
        axis.set_inverted(not score.higher_is_better)
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.16, y=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["bottom", "left"]].set_color(EDGE)
    panel.tick_params(length=0, colors=PALE, labelsize=8.5)
