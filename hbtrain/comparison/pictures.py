"""A comparison as pictures: bars by setting, rank distance by language, shares in the top 10, differences by pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.comparison.compare import Comparison
from hbtrain.comparison.estimates import Estimate
from hbtrain.comparison.tables import language_note, shown_language
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.colours import EDGE, GRID, INK, PALE, colours_of
from hbtrain.reporting.figures import draw_map, new_figure
from hbtrain.reporting.metric_names import ALL, RANK_DISTANCE, metric_title, score_title, shown

DPI = 160
ROW_INCHES = 0.34
MOST_MAPS = 12
"""How many systems get a map of differences; further ones get none."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn."""

    file: str  # its name
    title: str  # what it shows; also the text for readers who cannot see it
    draw: Callable[[Path], None]  # writes the PNG


def pictures_of(comparison: Comparison) -> list[Picture]:
    """The pictures that the comparison has the numbers for."""
    found = []
    for task in comparison.tasks:
        name = task.name
        found.append(Picture(f"settings-{name}.png", f"{name}: scores by setting", partial(bars, comparison, task)))
        if comparison.get(comparison.baseline, name, "multi", RANK_DISTANCE) and len(task.languages) > 1:
            found.append(
                Picture(
                    f"rank-distance-{name}.png",
                    f"{name}: rank distance by query language",
                    partial(rank_distances, comparison, task),
                )
            )
        if all(len(shares) > 1 for shares in task.top10_shares.values()):
            found.append(
                Picture(
                    f"top10-share-{name}.png",
                    f"{name}: each language's share in the top 10 against its share in the pool",
                    partial(shares, comparison, task),
                )
            )
        found += _maps(comparison, task)
    return found


def _maps(comparison: Comparison, task: Task) -> list[Picture]:
    others = [s.label for s in comparison.systems if s.label != comparison.baseline][:MOST_MAPS]
    if len(task.languages) < 2 or np.isnan(task.pair_means[comparison.baseline]).all():
        return []
    what = f"{task.name}: {metric_title(task.metric)} by query and passage language"
    return [
        Picture(
            f"difference-{task.name}-{number}.png",
            f"{what}, {label} less {comparison.baseline}",
            partial(difference_map, comparison, task, label),
        )
        for number, label in enumerate(others, 1)
    ]


def bars(comparison: Comparison, task: Task, path: Path) -> None:
    """A panel for each setting and one for rank distance; a bar, its interval and its runs for each system."""
    panels = [(setting, task.metric) for setting in task.settings]
    if task.metric != RANK_DISTANCE and comparison.get(comparison.baseline, task.name, "multi", RANK_DISTANCE):
        panels.append(("multi", RANK_DISTANCE))
    labels = [system.label for system in comparison.systems]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = (ROW_INCHES * len(labels) + 0.75) * rows
    figure = _figure(0.8 + 3.1 * columns + 0.08 * max(map(len, labels)), height + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    colours = colours_of(comparison.systems)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (setting, metric) in zip(grid.flat, panels, strict=False):
        found = [comparison.get(label, task.name, setting, metric) for label in labels]
        limit = max((max(e.high, *e.by_run) for e in found if e is not None), default=1.0)
        for place, (label, e) in enumerate(zip(labels, found, strict=True)):
            if e is not None:
                _bar(axes, place, e, colours[label], limit, comparison.method.level)
        lower = ", lower is better" if metric == RANK_DISTANCE else ""
        axes.set_title(score_title(metric, setting) + lower, loc="left", fontsize=10.5, color=INK, pad=5)
        axes.set_xlim(0, limit * 1.42)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), labels, fontsize=9.5, color=INK)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.axvline(0, color=EDGE, linewidth=1)
        axes.tick_params(length=0)
    _add_texts(figure, f"{task.name}: retrieval by setting", _bars_note(comparison))
    _save(figure, path)


def _bar(axes: Any, place: int, e: Estimate, colour: str, limit: float, level: float) -> None:
    axes.barh(place, e.value, height=0.62, color=colour, linewidth=0)
    axes.plot([e.low, e.high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
    if len(e.by_run) > 1:
        axes.scatter(e.by_run, [place] * len(e.by_run), s=7, color="white", edgecolor=INK, linewidth=0.5, zorder=3)
    axes.annotate(
        f"{shown(e.value, e.score.metric)} {e.mark(level)}".rstrip(),
        (max(e.high, *e.by_run) + limit * 0.03, place),
        va="center",
        fontsize=9.5,
        color=INK,
    )


def _bars_note(comparison: Comparison) -> str:
    several = max(len(system.runs) for system in comparison.systems) > 1
    dots = "; dots: seeds" if several else ""
    marks = f"▲ better, ▼ worse than {comparison.baseline} (Holm-adjusted p ≤ {comparison.method.level:g})"
    hollow = "; hollow: seeds overlap" if several else ""
    return f"line: {comparison.method.confidence:.0%} interval over questions{dots}\n{marks}{hollow}"


def rank_distances(comparison: Comparison, task: Task, path: Path) -> None:
    """A line for each query language, those trained on first; a dot with its interval for each system."""
    languages = [x for part in task.split or (ALL,) for x in task.parts[part]]
    labels = [system.label for system in comparison.systems]
    colours = colours_of(comparison.systems)
    few = len(labels) <= 5
    figure = _figure(7.4, (ROW_INCHES if few else 1.7 * ROW_INCHES) * len(languages) + 1.9 + 0.18 * (len(labels) // 3))
    axes = figure.subplots()
    gap = 0.6  # between parts
    places, place = {}, 0.0
    for number, part in enumerate(task.split or (ALL,)):
        for language in task.parts[part]:
            places[language] = place + number * gap
            place += 1
    step = min(0.09, 0.75 / len(labels))
    for s, label in enumerate(labels):
        shift = (s - (len(labels) - 1) / 2) * step
        for language in languages:
            e = comparison.get(label, task.name, "multi", RANK_DISTANCE, language)
            if e is not None:
                axes.plot(
                    [e.low, e.high], [places[language] + shift] * 2, color=colours[label], linewidth=1.4, alpha=0.7
                )
                axes.scatter(
                    e.value, places[language] + shift, s=30 if few else 14, color=colours[label], linewidth=0, zorder=3
                )
    axes.set_yticks(list(places.values()), [shown_language(task, x) for x in places], fontsize=10, color=INK)
    axes.set_ylim(max(places.values()) + 0.7, -0.7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(
        "rank distance in the pool of all languages (lower is less language bias)", color=PALE, fontsize=9.5
    )
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=PALE)
    handles = [_dot(colours[label]) for label in labels]
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(3, len(labels)), frameon=False,
        fontsize=9.5, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    note = language_note(task)
    confidence = f"line: {comparison.method.confidence:.0%} interval over questions"
    _add_texts(figure, f"{task.name}: rank distance by query language", f"{confidence}\n{note}".strip())
    _save(figure, path)


def shares(comparison: Comparison, task: Task, path: Path) -> None:
    """A panel for each system: how much of the top 10 is in a language (bar), and how much of the pool is (line)."""
    labels = [system.label for system in comparison.systems]
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)
    colours = colours_of(comparison.systems)
    figure = _figure(1.0 + 2.7 * columns, (0.26 * len(task.languages) + 0.5) * rows + 1.2)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    languages = [x for x in task.languages if all(x in task.top10_shares[label] for label in labels)]
    top = max(max(task.top10_shares[label][x]) for label in labels for x in languages)
    for axes, label in zip(panels.flat, labels, strict=False):
        for place, language in enumerate(languages):
            share, pool = task.top10_shares[label][language]
            axes.barh(place, share, height=0.66, color=colours[label], linewidth=0)
            axes.plot([pool, pool], [place - 0.42, place + 0.42], color=INK, linewidth=1.8)
            axes.annotate(f"{share:.0%}", (max(share, pool) + top * 0.03, place), va="center", fontsize=8.5, color=INK)
        axes.set_title(label, loc="left", fontsize=10, color=INK)
        axes.set_yticks(range(len(languages)), [shown_language(task, x) for x in languages], fontsize=9, color=INK)
        axes.set_ylim(len(languages) - 0.4, -0.6)
        axes.set_xlim(0, top * 1.25)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    for axes in panels.flat[len(labels) :]:
        axes.set_visible(False)
    note = "bar: share of the top 10; upright line: share of the pool\n" + language_note(task)
    _add_texts(figure, f"{task.name}: languages in the top 10 of all queries", note.strip())
    _save(figure, path)


def difference_map(comparison: Comparison, task: Task, system: str, path: Path) -> None:
    """Cells by query and passage language: the system's score less the baseline's, in points (times 100)."""
    difference = 100 * (task.pair_means[system] - task.pair_means[comparison.baseline])
    size = len(task.languages)
    side = max(2.8, 0.55 * size)
    figure = _figure(side + 1.6, side + 1.7)
    axes = figure.subplots()
    most = float(np.nanmax(np.abs(difference))) or 1.0
    names = [shown_language(task, x) for x in task.languages]
    image = draw_map(
        axes, difference, (names, names), _signed, bold_diagonal=True, cmap="PuOr_r", vmin=-most, vmax=most
    )
    axes.set_xlabel("passage language", labelpad=8, color=PALE)
    axes.set_ylabel("query language", labelpad=8, color=PALE)
    bar = figure.colorbar(image, ax=axes, shrink=0.82, aspect=26, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=PALE)
    title = f"{system} less {comparison.baseline}"
    note = f"{task.name}: difference in {metric_title(task.metric)} × 100; monolingual in bold\n{language_note(task)}"
    _add_texts(figure, title, note.strip())
    _save(figure, path)


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}"
    return "0" if float(text) == 0 else ("+" if value > 0 else "−") + text


def _figure(width: float, height: float) -> Any:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return new_figure(width, height, ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.04))


def _add_texts(figure: Any, title: str, note: str) -> None:
    figure.suptitle(title, fontsize=12.5, color=INK, fontweight="bold", x=0.02, ha="left")
    figure.supxlabel(note, fontsize=8.5, color=PALE, x=0.02, ha="left")


def _dot(colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker="o", markersize=6, linestyle="", color=colour)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI, format="png", facecolor="white")
