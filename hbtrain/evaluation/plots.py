"""Evaluations as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.evaluation.metrics import Floats
from hbtrain.evaluation.summary import Evaluation

CELL_INCHES = 0.55
SMALLEST_SIDE_INCHES = 2.6
DARK = 0.55
"""Share of the colour scale above which a cell is so dark that its number is white."""


def heat_map(evaluation: Evaluation, path: Path) -> None:
    """A PNG of mAP by query language and passage language, the monolingual diagonal in bold.

    The colours span the values at hand, so that differences between languages are seen; the numbers are in the cells.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(evaluation.languages)
    side = max(SMALLEST_SIDE_INCHES, CELL_INCHES * size)
    figure = Figure(figsize=(side + 2.2, side + 1.2))
    FigureCanvasAgg(figure)
    # The axes are laid out in inches, so that cells are equally large for any number of languages.
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.7 / width, 0.7 / height, side / width, side / height))
    low, high = _limits(evaluation.pair_map)
    image = axes.imshow(evaluation.pair_map, cmap="YlGnBu", vmin=low, vmax=high)
    axes.set_facecolor("#f0f0f0")  # seen where there is no value
    _draw_grid(axes, evaluation.languages)
    _write_values(axes, image, evaluation.pair_map)
    axes.set_title(f"{evaluation.benchmark} ({evaluation.candidates_kind} candidates)", fontsize=12, pad=12)
    bar = figure.colorbar(
        image, cax=figure.add_axes(((side + 0.85) / width, 0.7 / height, 0.16 / width, side / height))
    )
    bar.outline.set_visible(False)
    bar.set_label("mAP")
    figure.savefig(path, dpi=160, format="png", bbox_inches="tight", pad_inches=0.15)


def _limits(pair_map: Floats) -> tuple[float, float]:
    low, high = float(np.nanmin(pair_map)), float(np.nanmax(pair_map))
    return (low, high) if high > low else (0.0, 1.0)


def _draw_grid(axes: Any, languages: tuple[str, ...]) -> None:
    edges = np.arange(len(languages) + 1) - 0.5
    axes.set_xticks(range(len(languages)), languages)
    axes.set_yticks(range(len(languages)), languages)
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("passage language", labelpad=8)
    axes.set_ylabel("query language", labelpad=8)


def _write_values(axes: Any, image: Any, pair_map: Floats) -> None:
    for (query, passage), value in np.ndenumerate(pair_map):
        known = not np.isnan(value)
        axes.text(
            passage,
            query,
            f"{value:.2f}" if known else "–",
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold" if query == passage else "normal",
            color="#888888" if not known else "white" if image.norm(value) > DARK else "#222222",
        )
