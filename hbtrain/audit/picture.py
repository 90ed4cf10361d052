"""The picture of an audit: pairs of languages, languages, uses by source and language, kinds over the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.audit.audit import Audit
from hbtrain.audit.tables import fraction, number
from hbtrain.batching.availability import Floats
from hbtrain.errors import StorageError
from hbtrain.reporting.colours import EDGE, GRID, INK, PALE, SAMPLING, SWITCHED
from hbtrain.reporting.figures import draw_map, new_figure, without_frame
from hbtrain.reporting.metric_names import SETTINGS

KINDS = {kind: (title, SAMPLING[title]) for kind, title in SETTINGS.items()} | {"switched": ("switched", SWITCHED)}
"""{kind: (title, colour)}; a kind has the colour of the sampling that consists of this kind only."""

CELL, BARS, BETWEEN = 0.46, 3.6, 1.05
"""Inches: a cell of a map, the width of the right-hand panels, the space between the upper and the lower ones."""
MOST_NUMBERS = 24  # languages of a map whose cells have numbers in them
LEGEND_POINTS, LEGEND_LINE = 130, 14  # distances in points from one kind's name to the next, two on a line


def draw(audit: Audit, path: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        StorageError: `path` cannot be written.
    """
    counts = audit.counts
    cell = CELL if len(counts.languages) <= MOST_NUMBERS else CELL / 2
    width = max(4.0, cell * len(counts.languages))
    heights = max(2.6, cell * len(counts.languages)), max(1.4, CELL * len(counts.sources))
    left, gap, top, bottom = 0.6 + 0.085 * max(map(len, counts.sources)), 0.9, 0.95, 0.75
    size = left + width + gap + BARS + 0.3, top + sum(heights) + BETWEEN + bottom
    figure = new_figure(*size)

    def panel(column: int, row: int) -> Any:
        """Axes laid out in inches, so that cells are as large for any number of languages."""
        x, w = (left, width) if column == 0 else (left + width + gap, BARS)
        y, h = (bottom + heights[1] + BETWEEN, heights[0]) if row == 0 else (bottom, heights[1])
        return figure.add_axes((x / size[0], y / size[1], w / size[0], h / size[1]))

    _pairs(panel(0, 0), audit)
    _languages(panel(1, 0), audit)
    _uses(panel(0, 1), audit)
    _kinds(panel(1, 1), audit)
    title = f"{audit.config.name}: {counts.steps:,} steps of {counts.batch_size:,} pairs"
    figure.text(0.3 / size[0], 1 - 0.38 / size[1], title, fontsize=14, fontweight="bold", color=INK)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise StorageError(f"--picture {path} cannot be written: {error.strerror or error}") from error


def _pairs(axes: Any, audit: Audit) -> None:
    counts = audit.counts
    shares = 100 * counts.all_pairs.sum(axis=0) / counts.total_pairs
    shares[shares == 0] = np.nan
    _map(
        axes, shares, counts.languages, counts.languages, lambda share: f"{share:.1f}" if share >= 1 else f"{share:.2f}"
    )
    axes.set_xlabel("passage in", color=INK)
    axes.set_ylabel("query in", color=INK)
    _title(axes, "Pairs of languages, % of all pairs")


def _languages(axes: Any, audit: Audit) -> None:
    counts = audit.counts
    places, start = np.arange(len(counts.languages)), np.zeros(len(counts.languages))
    for kind, pairs in counts.pairs.items():
        both = pairs.sum(axis=0)
        share = 100 * (both.sum(axis=0) + both.sum(axis=1)) / (2 * counts.total_pairs)
        axes.barh(places, share, left=start, height=0.66, color=KINDS[kind][1], label=KINDS[kind][0], linewidth=0)
        start = start + share
    for place, end, uses in zip(places, start, counts.language_passes, strict=True):
        text = f"{end:.1f} %  ×{number(uses)}" if not np.isnan(uses) else ""
        axes.text(end + 0.02 * start.max(), place, text, va="center", fontsize=9, color=INK)
    axes.set_yticks(places, counts.languages, color=INK)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * start.max())
    axes.set_xticks([])
    without_frame(axes)
    axes.axvline(0, color=EDGE, linewidth=1)
    _title(axes, "Share of all texts, × uses of a text")


def _uses(axes: Any, audit: Audit) -> None:
    counts = audit.counts
    _map(axes, counts.passes, counts.sources, counts.languages, number)
    _title(axes, "Uses of a query or passage, by source")


def _kinds(axes: Any, audit: Audit) -> None:
    counts = audit.counts
    starts = counts.part_starts
    low = np.zeros(len(starts) - 1)
    for kind, share in counts.kinds_by_part.items():
        high = low + share
        axes.stairs(high, starts, baseline=low, fill=True, color=KINDS[kind][1], linewidth=0)
        low = high
    for i, (kind, batches) in enumerate(counts.kinds.items()):
        line, column = divmod(i, 2)
        text = f"■ {KINDS[kind][0]} {fraction(batches / counts.steps)}"
        place = {
            "xycoords": "axes fraction",
            "xytext": (column * LEGEND_POINTS, -24 - line * LEGEND_LINE),
            "textcoords": "offset points",
        }
        axes.annotate(text, (0, 0), color=KINDS[kind][1], fontsize=9.5, va="top", annotation_clip=False, **place)
    axes.set_xlim(0, counts.steps)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(length=0, colors=PALE, labelsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[:].set_visible(False)
    _title(axes, "Kinds of batches over the steps")


def _map(
    axes: Any, values: Floats, rows: tuple[str, ...], columns: tuple[str, ...], text_of: Callable[[float], str]
) -> None:
    known = values[~np.isnan(values)]
    high = float(known.max()) if known.size and known.max() > 0 else 1.0
    shown = text_of if len(columns) <= MOST_NUMBERS else None
    draw_map(axes, values, (rows, columns), shown, fontsize=8.5, cmap="YlGnBu", vmin=0, vmax=high, aspect="auto")


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, color=INK, pad=8)
