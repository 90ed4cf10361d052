"""The pictures of a sweep: each score against alpha, the share of monolingual batches, and the Pareto front; those of
mixtures are in `triangle.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.reporting.colours import EDGE, GRID, INK, PALE, SAMPLING
from hbtrain.reporting.figures import grid_of, new_figure, panels, save_png
from hbtrain.reporting.metric_names import shown
from hbtrain.sweeps.points import Point, pareto_front, scores_of, spread, title_of, title_with_direction
from hbtrain.sweeps.ranges import ALPHA
from hbtrain.sweeps.search_methods import is_minimised
from hbtrain.sweeps.triangle import corners_of

COLOURS = {
    "mono/map": "#3b6fb6",
    "cross/map": "#c8553d",
    "multi/map": "#2f8f6b",
    "multi/rank_distance": "#7a5ba6",
}
ON_FRONT, BEHIND = SAMPLING["hybrid"], "#9a9a9a"
MOST_LABELS = 12  # if more points than these are not on the front, only those on it have labels
CURVE_INCHES, FRONT_INCHES = (4.4, 2.9), (4.6, 3.9)  # (width, height) of a panel


def is_curve(points: Sequence[Point]) -> bool:
    """Whether alpha, as a number, is all that varies besides the seed, and has more than one value."""
    numbers = [
        point for point in points if point.values.keys() == {ALPHA} and isinstance(point.values[ALPHA], int | float)
    ]
    return len(points) > 1 and len(numbers) == len(points)


def alpha_curve(benchmark: str, points: Sequence[Point], path: Path) -> None:
    """A PNG with a panel for each score: mean over seeds, a band of one standard deviation, a dot for each seed."""
    ordered = sorted(points, key=lambda point: float(point.values[ALPHA]))
    scores = scores_of(benchmark, ordered)
    rows, columns = grid_of(len(scores), most_columns=2)
    size = CURVE_INCHES[0] * columns, CURVE_INCHES[1] * rows + 0.9
    figure = new_figure(*size, w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    for panel, score in panels(figure, scores, (rows, columns), sharex=True):
        _draw_curve(panel, score, benchmark, ordered)
    for panel in figure.axes[-columns:]:
        panel.set_xlabel("α, share of monolingual batches", color=PALE, labelpad=8)
    figure.suptitle(f"{benchmark}: retrieval against the ratio of batches", fontsize=13, color=INK, fontweight="bold")
    figure.supxlabel(_legend({len(point.runs) for point in ordered}), fontsize=8.5, color=PALE)
    save_png(figure, path)


def _legend(seeds: set[int]) -> str:
    if seeds == {1}:
        return "one seed; ring: best value"
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"line: mean of {count} seeds; band: ± one standard deviation; dots: seeds; ring: best mean"


def _draw_curve(panel: Any, score: str, benchmark: str, points: Sequence[Point]) -> None:
    colour, minimised = COLOURS[score], is_minimised(score)
    values = [point.of(f"{benchmark}/{score}") for point in points]
    alphas = [float(point.values[ALPHA]) for point in points]
    means = np.array([statistics.mean(of_seeds) for of_seeds in values])
    widths = np.array([spread(of_seeds) if len(of_seeds) > 1 else 0.0 for of_seeds in values])
    low, high = means - widths, means + widths
    panel.fill_between(alphas, low, high, color=colour, alpha=0.16, linewidth=0)
    panel.plot(alphas, means, color=colour, linewidth=2, solid_capstyle="round")
    for alpha, of_seeds in zip(alphas, values, strict=True):
        panel.scatter([alpha] * len(of_seeds), of_seeds, s=11, color=colour, alpha=0.55, linewidth=0, zorder=3)
    best = int(means.argmin() if minimised else means.argmax())
    panel.scatter(alphas[best], means[best], s=58, facecolor="white", edgecolor=colour, linewidth=2, zorder=4)
    panel.annotate(
        f"{shown(means[best], score.rpartition('/')[2])} at α = {alphas[best]:g}",
        # Outside the band and the dots of the seeds.
        (alphas[best], min(low[best], *values[best]) if minimised else max(high[best], *values[best])),
        xytext=(0, -9 if minimised else 9),
        textcoords="offset points",
        ha="left" if best == 0 else "right" if best == len(means) - 1 else "center",
        va="top" if minimised else "bottom",
        fontsize=9,
        color=colour,
        fontweight="bold",
    )
    panel.set_title(title_with_direction(score), loc="left", fontsize=10.5, color=INK, pad=8)
    panel.margins(x=0.04, y=0.22)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(EDGE)
    panel.tick_params(length=0, colors=PALE, labelsize=9)
    if minimised:
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def front_picture(benchmark: str, points: Sequence[Point], path: Path, scores: Sequence[str]) -> None:
    """A PNG with a panel for the first score against each of the others: means over seeds, better is up and right."""
    across, *others = scores
    corners = corners_of(points)
    labels = [_short_label(point, corners) for point in points]
    on_front = pareto_front(points, benchmark, scores)
    figure = new_figure(FRONT_INCHES[0] * len(others), FRONT_INCHES[1] + 0.8, w_pad=0.14, h_pad=0.1, wspace=0.04)
    for panel, score in panels(figure, others, (1, len(others))):
        _draw_front(panel, benchmark, points, labels, on_front, (across, score))
    figure.suptitle(f"{benchmark}: Pareto front (up and to the right is better)", fontsize=13, color=INK, weight="bold")
    names = ", ".join(map(title_of, scores))
    legend = f"filled: no other point is at least as good in all of {names}; means over seeds"
    if corners:
        legend += f"; labels: {' : '.join(corners)} in %"
    figure.supxlabel(legend, fontsize=8.5, color=PALE)
    save_png(figure, path)


def _short_label(point: Point, corners: Sequence[str]) -> str:
    """A point's name in the picture of the front; of a mixture, the shares of `corners` in per cent."""
    if corners and point.shares is not None:
        return " : ".join(f"{100 * point.shares.get(kind, 0.0):.3g}" for kind in corners)  # type: ignore[call-overload]
    return point.label.replace("alpha=", "α ")


def _draw_front(
    panel: Any,
    benchmark: str,
    points: Sequence[Point],
    labels: Sequence[str],
    on_front: Sequence[bool],
    scores: tuple[str, str],
) -> None:
    x, y = ([point.mean(f"{benchmark}/{score}") for point in points] for score in scores)
    label_all = len(points) - sum(on_front) <= MOST_LABELS
    for label, best, across, up in zip(labels, on_front, x, y, strict=True):
        colour = ON_FRONT if best else BEHIND
        panel.scatter(
            across, up, s=46, facecolor=colour if best else "white", edgecolor=colour, linewidth=1.6, zorder=3
        )
        if best or label_all:
            panel.annotate(
                label, (across, up), xytext=(6, 4), textcoords="offset points",
                fontsize=8, color=INK if best else PALE, zorder=4,
            )  # fmt: skip
    for axis, score in zip((panel.xaxis, panel.yaxis), scores, strict=True):
        axis.set_label_text(title_with_direction(score), color=PALE, fontsize=9.5)
        axis.set_inverted(is_minimised(score))
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.16, y=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["bottom", "left"]].set_color(EDGE)
    panel.tick_params(length=0, colors=PALE, labelsize=8.5)
