"""The pictures of a sweep: each score against a number that varies, such as alpha, the share of monolingual batches,
and the Pareto front; those of mixtures are in `triangle.py`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hbtrain.config.batching import KINDS
from hbtrain.reporting.colours import EDGE, GRID, INK, OTHERS, PALE, SAMPLING
from hbtrain.reporting.figures import grid_of, new_figure, panels, save_png
from hbtrain.reporting.metric_names import shown
from hbtrain.sweeps.points import Point, pareto_front, scores_of, spread, title_of, title_with_direction
from hbtrain.sweeps.ranges import ALPHA, MIXTURE
from hbtrain.sweeps.search_methods import is_minimised

COLOURS = {
    "mono/map": "#3b6fb6",
    "cross/map": "#c8553d",
    "multi/map": "#2f8f6b",
    "multi/rank_distance": "#7a5ba6",
    "mono/ndcg@10": "#3b6fb6",
    "cross/ndcg@10": "#c8553d",
    "multi/ndcg@10": "#2f8f6b",
}
LINES = tuple(zip(dict.fromkeys((*SAMPLING.values(), *OTHERS)), "os^Dv<>P", strict=False))
"""(colour, marker) of the curves where there are several, the most that are drawn."""
ON_FRONT, BEHIND = SAMPLING["hybrid"], "#9a9a9a"
LONG = 20  # characters of a label
MOST_LABELS = 12  # if more points than these are not on the front, only those on it have labels
CURVE_INCHES, FRONT_INCHES = (4.4, 2.9), (4.6, 3.9)  # (width, height) of a panel


@dataclass(frozen=True)
class Axis:
    """What scores are drawn against."""

    key: str  # of the values of points; those of this key are numbers
    symbol: str  # what the picture calls the number
    label: str  # what stands below the axis
    title: str  # what the picture is of
    ends: Mapping[float, str] = field(default_factory=dict)  # {value: what is there without any mixing}


SHARE = Axis(ALPHA, "α", "α, share of monolingual batches", "retrieval against the ratio of batches")


def is_curve(points: Sequence[Point], axis: Axis = SHARE) -> bool:
    """Whether there is more than one value of `axis.key`, a number, for every combination of the other values, and few
    of these."""
    if not all(isinstance(point.values.get(axis.key), int | float) for point in points):
        return False
    curves = _curves(points, axis)
    return 0 < len(curves) <= len(LINES) and all(len(curve) > 1 for curve in curves.values())


def _curves(points: Sequence[Point], axis: Axis) -> dict[str, list[Point]]:
    """{what varies besides the axis, such as `size=small`: its points in order}; "" where nothing else varies."""
    curves: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: float(point.values[axis.key])):
        others = {key: value for key, value in point.values.items() if key != axis.key}
        curves.setdefault(Point(others, point.runs).label, []).append(point)
    return dict(sorted(curves.items(), key=lambda named: points.index(named[1][0])))


def score_curves(benchmark: str, points: Sequence[Point], path: Path, axis: Axis = SHARE) -> None:
    """A PNG with a panel for each score: mean over seeds, a band of one standard deviation, a dot for each seed.

    There is a line for each combination of what varies besides the axis, such as the size of the batch. Squares mark
    the ends that the axis names, a dotted line the better of them.
    """
    curves = _curves(points, axis)
    scores = scores_of(benchmark, points)
    rows, columns = grid_of(len(scores), most_columns=2)
    size = CURVE_INCHES[0] * columns, CURVE_INCHES[1] * rows + 0.9
    figure = new_figure(*size, w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    for panel, score in panels(figure, scores, (rows, columns), sharex=True):
        for (label, curve), (colour, marker) in zip(curves.items(), LINES, strict=False):
            if len(curves) == 1:
                best = _draw_curve(panel, score, benchmark, curve, axis, COLOURS[score])
                _name_best(panel, score, best, axis, COLOURS[score])
                _mark_ends(panel, score, [(p.values[axis.key], p.mean(f"{benchmark}/{score}")) for p in curve], axis)
            else:
                _draw_curve(panel, score, benchmark, curve, axis, colour, label=label, marker=marker, markersize=4.5)
        _finish_panel(panel, score)
    if len(curves) > 1:
        figure.axes[0].legend(frameon=False, fontsize=8.5, labelcolor=INK)
    for panel in figure.axes[-columns:]:
        panel.set_xlabel(axis.label, color=PALE, labelpad=8)
    figure.suptitle(f"{benchmark}: {axis.title}", fontsize=13, color=INK, fontweight="bold")
    figure.supxlabel(_legend({len(point.runs) for point in points}, axis), fontsize=8.5, color=PALE)
    save_png(figure, path)


def _legend(seeds: set[int], axis: Axis) -> str:
    if axis.ends:
        ends = "; ".join(f"{value:g} is {name}" for value, name in sorted(axis.ends.items()))
        return f"ring: best value; squares: the ends; dotted: the better of them\n{ends}"
    if seeds == {1}:
        return "one seed; ring: best value"
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"line: mean of {count} seeds; band: ± one standard deviation; dots: seeds; ring: best mean"


class Best(NamedTuple):
    """The best point of a curve."""

    place: float  # on the axis
    mean: float
    edge: float  # of the band and of the dots of the seeds, on the side of better scores
    side: str  # on which a text beside it stays within the panel: `left` says that it begins there


def _draw_curve(
    panel: Any, score: str, benchmark: str, points: Sequence[Point], axis: Axis, colour: str, **line: Any
) -> Best:
    """Draw the points of one curve, with a ring around the best."""
    minimised = is_minimised(score)
    values = [point.of(f"{benchmark}/{score}") for point in points]
    places = [float(point.values[axis.key]) for point in points]
    means = np.array([statistics.mean(of_seeds) for of_seeds in values])
    widths = np.array([spread(of_seeds) if len(of_seeds) > 1 else 0.0 for of_seeds in values])
    low, high = means - widths, means + widths
    panel.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
    panel.plot(places, means, color=colour, linewidth=2, solid_capstyle="round", **line)
    for place, of_seeds in zip(places, values, strict=True):
        panel.scatter([place] * len(of_seeds), of_seeds, s=11, color=colour, alpha=0.55, linewidth=0, zorder=3)
    best = int(means.argmin() if minimised else means.argmax())
    panel.scatter(places[best], means[best], s=58, facecolor="white", edgecolor=colour, linewidth=2, zorder=4)
    edge = min(low[best], *values[best]) if minimised else max(high[best], *values[best])
    side = "left" if best == 0 else "right" if best == len(means) - 1 else "center"
    return Best(places[best], float(means[best]), edge, side)


def _mark_ends(panel: Any, score: str, means: Sequence[tuple[float, float]], axis: Axis) -> None:
    ends = [(place, mean) for place, mean in means if place in axis.ends]
    if not ends:
        return
    panel.scatter(*zip(*ends, strict=True), s=34, marker="s", facecolor=INK, edgecolor="white", linewidth=0.8, zorder=5)
    better = min if is_minimised(score) else max
    panel.axhline(better(mean for _, mean in ends), color=PALE, linewidth=1, linestyle=":", zorder=1)


def _name_best(panel: Any, score: str, best: Best, axis: Axis, colour: str) -> None:
    minimised = is_minimised(score)
    panel.annotate(
        f"{shown(best.mean, score.rpartition('/')[2])} at {axis.symbol} = {best.place:g}",
        (best.place, best.edge),
        xytext=(0, -9 if minimised else 9),
        textcoords="offset points",
        ha=best.side,
        va="top" if minimised else "bottom",
        fontsize=9,
        color=colour,
        fontweight="bold",
    )


def _finish_panel(panel: Any, score: str) -> None:
    panel.set_title(title_with_direction(score), loc="left", fontsize=10.5, color=INK, pad=8)
    panel.margins(x=0.04, y=0.22)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(EDGE)
    panel.tick_params(length=0, colors=PALE, labelsize=9)
    if is_minimised(score):
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def front_picture(benchmark: str, points: Sequence[Point], path: Path, scores: Sequence[str]) -> None:
    """A PNG with a panel for the first score against each of the others: means over seeds, better is up and right."""
    across, *others = scores
    labels, how_to_read = _short_labels(points)
    on_front = pareto_front(points, benchmark, scores)
    figure = new_figure(FRONT_INCHES[0] * len(others), FRONT_INCHES[1] + 0.8, w_pad=0.14, h_pad=0.1, wspace=0.04)
    for panel, score in panels(figure, others, (1, len(others))):
        _draw_front(panel, benchmark, points, labels, on_front, (across, score))
    figure.suptitle(f"{benchmark}: Pareto front (up and to the right is better)", fontsize=13, color=INK, weight="bold")
    names = ", ".join(map(title_of, scores))
    legend = f"filled: no other point is at least as good in all of {names}; means over seeds{how_to_read}"
    figure.supxlabel(legend, fontsize=8.5, color=PALE)
    save_png(figure, path)


def _short_labels(points: Sequence[Point]) -> tuple[list[str], str]:
    """The names of points in the picture of the front, and how to read them if they are shares of kinds of batches."""
    keys = {key for point in points for key in point.values}
    if keys == {ALPHA}:
        alphas = [point.values[ALPHA] for point in points]
        given = [[x[step] for step in sorted(x, key=int)] if isinstance(x, dict) else [x] for x in alphas]
        return ["α " + _changes([f"{alpha:g}" for alpha in of_point]) for of_point in given], ""
    if not all(key.startswith(MIXTURE) for key in keys):
        return [point.label for point in points], ""
    shares = [list(point.kind_points.values()) for point in points]
    kinds = [kind for kind in KINDS if any(one.get(kind) for of_point in shares for one in of_point)]
    labels = [
        _changes([" : ".join(f"{100 * one.get(kind, 0.0):.3g}" for kind in kinds) for one in of_point])
        for of_point in shares
    ]
    return labels, f"; labels: {' : '.join(kinds)} in %"


def _changes(values: Sequence[str]) -> str:
    """What does not change, or the first and the last value of a schedule."""
    return values[0] if len(set(values)) == 1 else f"{values[0]} → {values[-1]}"


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
    middle = (min(x) + max(x)) / 2
    for label, best, across, up in zip(labels, on_front, x, y, strict=True):
        colour = ON_FRONT if best else BEHIND
        panel.scatter(
            across, up, s=46, facecolor=colour if best else "white", edgecolor=colour, linewidth=1.6, zorder=3
        )
        if best or label_all:
            leftwards = len(label) > LONG and across >= middle  # else the panel would shrink to make room
            panel.annotate(
                label, (across, up), xytext=(-6 if leftwards else 6, 4), textcoords="offset points",
                ha="right" if leftwards else "left", fontsize=8, color=INK if best else PALE, zorder=4,
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
