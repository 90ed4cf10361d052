"""Figures of matplotlib, and heat maps with numbers in their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hbtrain.reporting.colours import INK, NOTHING

Item = TypeVar("Item")

DARK = 0.56  # a cell whose colour channels have a lower mean than this gets a white number


def new_figure(width: float, height: float, **pads: Any) -> Any:
    """A figure of matplotlib that needs no screen, sizes in inches; with `pads`, of matplotlib's constrained layout."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    matplotlib.rcParams["text.parse_math"] = False  # names with dollar signs are no formulas
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**pads) if pads else None)
    FigureCanvasAgg(figure)
    return figure


def grid_of(panels: int, most_columns: int) -> tuple[int, int]:
    """How many (rows, columns) so many panels are laid out in."""
    columns = min(most_columns, panels)
    return -(-panels // columns), columns


def panels(figure: Any, items: Sequence[Item], grid: tuple[int, int], **shared: bool) -> Iterator[tuple[Any, Item]]:
    """(axes, item) for each item, in a grid of (rows, columns); axes that are left over are hidden."""
    for axes, item in zip_longest(figure.subplots(*grid, squeeze=False, **shared).flat, items):
        if item is None:
            axes.set_visible(False)
        else:
            yield axes, item


def save_png(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=160, format="png", facecolor="white")


def draw_map(
    axes: Any,
    values: npt.NDArray[np.float64],
    names: tuple[Sequence[str], Sequence[str]],
    text_of: Callable[[float], str] | None,
    *,
    bold_diagonal: bool = False,
    fontsize: float = 9.5,
    **scale: Any,
) -> Any:
    """Draw a heat map and return its image, for a colour bar.

    Args:
        axes: to draw on.
        values: [rows, columns], NaN where there is none.
        names: of the rows and of the columns.
        text_of: gives the text in a cell from its value; None: cells have no text.
        bold_diagonal: whether the numbers from the top left to the bottom right are in bold.
        fontsize: of the texts in cells, in points.
        scale: cmap, vmin, vmax and other options of matplotlib's imshow.
    """
    image = axes.imshow(values, **scale)
    axes.set_facecolor("#f0f0f0")  # seen where there is no value
    rows, columns = names
    axes.set_yticks(range(len(rows)), rows, color=INK)
    axes.set_xticks(range(len(columns)), columns, color=INK)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    without_frame(axes)
    for (row, column), value in np.ndenumerate(values) if text_of is not None else ():
        known = not np.isnan(value)
        dark = known and sum(image.cmap(image.norm(value))[:3]) < 3 * DARK
        axes.text(
            column,
            row,
            text_of(float(value)) if known and text_of is not None else "–",
            ha="center",
            va="center",
            fontsize=fontsize,
            fontweight="bold" if bold_diagonal and row == column else "normal",
            color="white" if dark else INK if known else NOTHING,
        )
    return image


def without_frame(axes: Any) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
