"""The picture of a sweep over the mixtures of three kinds of batches: each score over the triangle of the mixtures.

A place in the triangle is a mixture: the nearer to a corner, the larger is the share of the corner's kind. The first
two kinds share the side at the bottom, the third kind is at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.config.batching import KINDS, Shares
from hbtrain.reporting.colours import EDGE, INK, PALE
from hbtrain.reporting.figures import DARK, grid_of, new_figure, panels, save_png
from hbtrain.reporting.metric_names import metric_title, shown
from hbtrain.sweeps.points import Point, constant_shares, pareto_front, scores_of, title_of, title_with_direction
from hbtrain.sweeps.ranges import MIXTURE
from hbtrain.sweeps.search_methods import is_minimised
from hbtrain.sweeps.space import Trial

Floats = npt.NDArray[np.float64]

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # [3, 2], where each kind alone is
OUTWARDS = np.array([[0.5, -(3**0.5) / 2], [0.5, 3**0.5 / 2], [-1.0, 0.0]])
"""[3, 2]: where the lines of equal share of a kind point, as they leave the triangle at the side with its ticks."""
TURNED = (0, -60, 60)  # degrees, of the side with a kind's ticks
TICKS, MOST_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0), 6  # where points have more shares than these, ticks are at quarters
PANEL_INCHES = (5.2, 4.3)  # (width, height) of a panel
COLOURS = "cividis"  # dark to light, also in grey; the same with any colour vision
SMALLEST, SMALLEST_WITH_TEXT, LARGEST = 0.022, 0.058, 0.088  # radii of discs, the side of the triangle being 1
ON_FRONT = "#111111"


def corners_of(points: Sequence[Point], failed: Sequence[Trial] = ()) -> tuple[str, ...]:
    """The three kinds of batches that are the corners of the picture; empty where it cannot be drawn.

    It can where mixtures that do not change during training, made of three kinds in all, are all that varies besides
    the seed. Failed trials count as well.
    """
    mixtures = [point.shares for point in points] + [constant_shares(trial) for trial in failed]
    if not points or any(not key.startswith(MIXTURE) for point in points for key in point.values):
        return ()
    if len(points) < 2 or any(shares is None for shares in mixtures):
        return ()
    kinds = tuple(kind for kind in KINDS if any(shares and shares.get(kind) for shares in mixtures))
    return kinds if len(kinds) == len(CORNERS) else ()


def triangles(
    benchmark: str, points: Sequence[Point], failed: Sequence[Trial], path: Path, front: Sequence[str]
) -> None:
    """A PNG with a triangle for each score.

    Args:
        benchmark: whose scores are drawn.
        points: with `corners_of`.
        failed: trials; those at whose mixtures nothing was finished are drawn as crosses.
        path: of the PNG.
        front: the scores whose Pareto front is marked; none if empty.
    """
    corners = corners_of(points, failed)
    scores = scores_of(benchmark, points)
    places = np.array([_place(point.shares or {}, corners) for point in points])
    missing = _missing(points, failed, corners)
    on_front = pareto_front(points, benchmark, front) if front else [False] * len(points)
    rows, columns = grid_of(len(scores), most_columns=2)
    size = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 1.0
    ticks = _ticks(np.array([*places, *missing]))
    figure = new_figure(*size, w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.04)
    for panel, score in panels(figure, scores, (rows, columns)):
        _draw_frame(panel, corners, ticks)
        _draw_scores(panel, score, [point.mean(f"{benchmark}/{score}") for point in points], places, on_front)
        for x, y in missing:
            panel.plot(x, y, "x", color=PALE, markersize=9, markeredgewidth=2.2, zorder=4)
        panel.set_title(title_with_direction(score), loc="left", fontsize=10.5, color=INK, pad=6)
    figure.suptitle(f"{benchmark}: retrieval against the mixture of batches", fontsize=13, color=INK, weight="bold")
    figure.supxlabel(_legend(points, front, bool(missing), len(set(_radii(places))) > 1), fontsize=8.5, color=PALE)
    save_png(figure, path)


def _place(shares: Shares, corners: Sequence[str]) -> Floats:
    """float64 [2]: where a mixture is in the triangle."""
    return np.array([shares.get(kind, 0.0) for kind in corners]) @ CORNERS  # type: ignore[call-overload, no-any-return]


def _missing(points: Sequence[Point], failed: Sequence[Trial], corners: Sequence[str]) -> list[Floats]:
    """Where mixtures are at which trials have failed and none was finished."""
    known = [point.shares for point in points]
    mixtures: list[Shares] = []
    for trial in failed:
        shares = constant_shares(trial)
        if shares is not None and shares not in known + mixtures:
            mixtures.append(shares)
    return [_place(shares, corners) for shares in mixtures]


def _ticks(places: Floats) -> Sequence[float]:
    """The shares of kinds that points have, if there are few; else quarters."""
    shares = np.linalg.solve(np.vstack([CORNERS.T, np.ones(3)]), np.vstack([places.T, np.ones(len(places))]))
    levels = np.unique(shares.round(6) + 0.0)
    return TICKS if len(levels) > MOST_TICKS else levels.tolist()


def _draw_frame(panel: Any, corners: Sequence[str], ticks: Sequence[float]) -> None:
    """The triangle, with lines of equal share, ticks, and the name of a kind along the side with its ticks."""
    panel.set_aspect("equal")
    panel.set_xlim(-0.17, 1.17)
    panel.set_ylim(-0.22, CORNERS[2, 1] + 0.14)
    panel.axis("off")
    panel.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color=EDGE, linewidth=1.2, zorder=1)
    for number, kind in enumerate(corners):
        # Along the side from the kind before (share 0) to this one (share 1), the third kind being absent.
        start, end, other = CORNERS[(number + 1) % 3], CORNERS[number], CORNERS[(number + 2) % 3]
        outwards = OUTWARDS[number]
        for share in ticks:
            foot = start + share * (end - start)
            across = other + share * (end - other)
            if 0 < share < 1:
                panel.plot(*np.array([foot, across]).T, color=EDGE, linewidth=0.7, zorder=1)
            tip = foot + 0.115 * outwards
            panel.plot(*np.array([foot, tip]).T, color=EDGE, linewidth=0.7, zorder=1)
            at = foot + 0.148 * outwards
            panel.text(*at, f"{share:.3g}", ha="center", va="center", fontsize=7.5, color=PALE)
        middle = (start + end) / 2 + 0.225 * outwards
        arrow = f"← {kind}" if number == 0 else f"{kind} →"
        panel.text(
            *middle, arrow, ha="center", va="center", rotation=TURNED[number], fontsize=9.5, color=INK, weight="bold"
        )


def _draw_scores(panel: Any, score: str, means: Sequence[float], places: Floats, on_front: Sequence[bool]) -> None:
    """A disc for each point, coloured by its mean score, with the score in it where there is room."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    minimised, metric = is_minimised(score), score.rpartition("/")[2]
    colours = ScalarMappable(Normalize(min(means), max(means)), colormaps[COLOURS + "_r" * minimised])
    radii = _radii(places)
    faces = colours.to_rgba(np.array(means))
    best = int(np.argmin(means) if minimised else np.argmax(means))
    for number, ((x, y), radius, mean, face) in enumerate(zip(places, radii, means, faces, strict=True)):
        has_room = radius >= SMALLEST_WITH_TEXT
        edge, width = (ON_FRONT, 2.0 if has_room else 1.3) if on_front[number] else ("white", 1.0)
        panel.add_patch(Circle((x, y), radius, facecolor=face, edgecolor=edge, linewidth=width, zorder=3))
        if has_room:
            panel.text(
                x, y, shown(mean, metric), ha="center", va="center", zorder=5,
                fontsize=8 if radius > 0.08 else 7, weight="bold" if number == best else "normal",
                color="white" if sum(face[:3]) < 3 * DARK else INK,
            )  # fmt: skip
    has_room = radii[best] >= SMALLEST_WITH_TEXT
    x, y = places[best] + radii[best] * CORNERS[2] * (-1, 1)  # where no tick is, at the corners either
    panel.plot(x, y, "*", color=ON_FRONT, markeredgecolor="white", markersize=15 if has_room else 12, zorder=6)
    if not has_room:
        panel.text(
            x, y + 0.055, shown(means[best], metric), ha="center", va="center", fontsize=9, weight="bold", color=INK,
            zorder=7, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
    bar = panel.figure.colorbar(colours, ax=panel, shrink=0.62, aspect=22, pad=0.02)
    bar.set_label(metric_title(metric), fontsize=9, color=PALE)
    bar.ax.tick_params(length=0, labelsize=8, colors=PALE)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_inverted(minimised)


def _radii(places: Floats) -> list[float]:
    """A radius for each disc, so that it keeps clear of its neighbours unless they are at almost the same place."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.clip(0.47 * distances.min(axis=1), SMALLEST, LARGEST).round(3).tolist()  # type: ignore[no-any-return]


def _legend(points: Sequence[Point], front: Sequence[str], any_missing: bool, sizes_differ: bool) -> str:
    seeds = sorted({len(point.runs) for point in points})
    of = "one seed" if seeds == [1] else f"mean of {' to '.join(map(str, {seeds[0], seeds[-1]}))} seeds"
    parts = [
        f"disc: {of}, lighter is better{', its size says nothing' * sizes_differ}",
        "star: best",
        *["cross: failed"] * any_missing,
    ]
    if front:
        parts.append(f"\ndark ring: no other point is at least as good in all of {', '.join(map(title_of, front))}")
    return "; ".join(parts).replace("; \n", "\n")
