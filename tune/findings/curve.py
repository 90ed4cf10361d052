"""The picture of a sweep over alpha: each score against the share of monolingual batches, with bands over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune.findings.points import Point, Score, scores_of, spread

ALPHA = "batching.alpha"
COLOURS = {
    "mono/map": "#3b6fb6",
    "cross/map": "#c8553d",
    "multi/map": "#2f8f6b",
    "multi/rank_distance": "#7a5ba6",
}
INK, PALE, GRID = "#222222", "#6b6b6b", "#e6e6e6"
PANEL_INCHES = (4.4, 2.9)


def is_curve(points: Sequence[Point]) -> bool:
    """Whether alpha, as a number, is all that varies besides the seed, and has more than one value."""
    numbers = [
        point for point in points if point.values.keys() == {ALPHA} and isinstance(point.values[ALPHA], int | float)
    ]
    return len(points) > 1 and len(numbers) == len(points)


def alpha_curve(benchmark: str, points: Sequence[Point], path: Path) -> None:
    """A PNG with a panel for each score: mean over seeds, a band of one standard deviation, a dot for each seed.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ordered = sorted(points, key=lambda point: float(point.values[ALPHA]))
    scores = scores_of(benchmark, ordered)
    columns = min(2, len(scores))
    rows = -(-len(scores) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.9), layout=layout)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for panel, score in zip(panels.flat, scores, strict=False):
        _draw(panel, score, benchmark, ordered)
    for panel in panels.flat[len(scores) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("α, share of monolingual batches", color=PALE, labelpad=8)
    seeds = sorted({len(point.runs) for point in ordered})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    figure.suptitle(f"{benchmark}: retrieval against the ratio of batches", fontsize=13, color=INK, fontweight="bold")
    figure.supxlabel(_legend(count), fontsize=8.5, color=PALE)
    figure.savefig(path, dpi=160, format="png", facecolor="white")


def _legend(seeds: str) -> str:
    if seeds == "1":
        return "one seed; ring: best value"
    return f"line: mean of {seeds} seeds; band: ± one standard deviation; dots: seeds; ring: best mean"


def _draw(panel: Any, score: Score, benchmark: str, points: Sequence[Point]) -> None:
    colour = COLOURS[score.key]
    values = [point.of(f"{benchmark}/{score.key}") for point in points]
    alphas = [float(point.values[ALPHA]) for point in points]
    means = [statistics.mean(of_seeds) for of_seeds in values]
    widths = [spread(of_seeds) if len(of_seeds) > 1 else 0.0 for of_seeds in values]
    low = [mean - width for mean, width in zip(means, widths, strict=True)]
    high = [mean + width for mean, width in zip(means, widths, strict=True)]
    panel.fill_between(alphas, low, high, color=colour, alpha=0.16, linewidth=0)
    panel.plot(alphas, means, color=colour, linewidth=2, solid_capstyle="round")
    for alpha, of_seeds in zip(alphas, values, strict=True):
        panel.scatter([alpha] * len(of_seeds), of_seeds, s=11, color=colour, alpha=0.55, linewidth=0, zorder=3)
    best = means.index(max(means) if score.higher_is_better else min(means))
    panel.scatter(alphas[best], means[best], s=58, facecolor="white", edgecolor=colour, linewidth=2, zorder=4)
    panel.annotate(
        f"{format(means[best], score.form)} at α = {alphas[best]:g}",
        # Clear of the band and of the seeds' dots.
        (alphas[best], max(high[best], *values[best]) if score.higher_is_better else min(low[best], *values[best])),
        xytext=(0, 9 if score.higher_is_better else -9),
        textcoords="offset points",
        ha="left" if best == 0 else "right" if best == len(means) - 1 else "center",
        va="bottom" if score.higher_is_better else "top",
        fontsize=9,
        color=colour,
        fontweight="bold",
    )
    _style(panel, score)


def _style(panel: Any, score: Score) -> None:
    better = "" if score.higher_is_better else " (lower is better)"
    panel.set_title(f"{score.title}{better}", loc="left", fontsize=10.5, color=INK, pad=8)
    panel.margins(x=0.04, y=0.22)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#bbbbbb")
    panel.tick_params(length=0, colors=PALE, labelsize=9)
    if not score.higher_is_better:
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
