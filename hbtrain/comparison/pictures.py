"""A comparison as pictures: learning curves, bars by setting, rank distance and shares in the top 10 by language,
differences by pair of languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from hbtrain.comparison.curves import NEAR, ScoreCurves
from hbtrain.comparison.estimates import Estimate
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.tables import language_note, shown_language
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.colours import EDGE, GRID, INK, PALE
from hbtrain.reporting.figures import draw_map, grid_of, new_figure, panels, save_png, without_frame
from hbtrain.reporting.metric_names import (
    ALL,
    IN_RANKS,
    LOWER_IS_BETTER,
    RANK_DISTANCE,
    metric_title,
    score_title,
    shown,
    sign,
)

ROW_INCHES = 0.34
PADS = {"w_pad": 0.1, "h_pad": 0.1, "wspace": 0.04}  # between the panels of a picture
MARKERS = "osD^vPX<>ph"  # of the lines of a picture, in turn, for whom colours do not tell apart
MOST_MARKERS = 12  # of a line
CURVE_INCHES = (4.5, 3.0)  # (width, height) of a panel of learning curves
DISTANCE_INCHES = 7.4  # width of the picture of rank distances
LEGEND_LETTERS, TITLE_LETTERS = 12.5, 8.0  # of a legend, and of the title of a picture, in an inch
PANEL_LETTERS = 30  # of a line of the title of a panel
MOST_MAPS = 12  # how many systems get a map of differences; further ones get none


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn."""

    file: str
    title: str  # what it shows; also the text for readers who cannot see it
    draw: Callable[[Path], None]


def pictures_of(comparison: Comparison) -> list[Picture]:
    found = []

    def add(file: str, title: str, draw: Callable[..., None], *more: str) -> None:
        found.append(Picture(f"{file}.png", title, partial(draw, comparison, task, *more)))

    for task in comparison.tasks:
        name = task.name
        add(f"settings-{name}", f"{name}: scores by setting", bars)
        if comparison.get(comparison.baseline, name, "multi", RANK_DISTANCE) and len(task.languages) > 1:
            add(f"rank-distance-{name}", f"{name}: rank distance by query language", rank_distances)
        if all(len(shares) > 1 for shares in task.top10_shares.values()):
            title = f"{name}: each language's share in the top 10 against its share in the pool"
            add(f"top10-share-{name}", title, shares)
        if len(task.languages) < 2 or np.isnan(task.pair_means[comparison.baseline]).all():
            continue
        what = f"{name}: {metric_title(task.metric)} by query and passage language"
        others = [s.label for s in comparison.systems if s.label != comparison.baseline]
        for number, label in enumerate(others[:MOST_MAPS], 1):
            title = f"{what}, {label} less {comparison.baseline}"
            add(f"difference-{name}-{number}", title, difference_map, label)
    return [*learning_pictures(comparison), *found]


def learning_pictures(comparison: Comparison) -> list[Picture]:
    """A picture of the learning curves on each benchmark that has any."""
    return [
        Picture(
            f"learning-curves-{task.name}.png",
            f"{task.name}: scores by step of training",
            partial(learning_curves, comparison, task),
        )
        for task in comparison.tasks
        if comparison.curves.of_task(task)
    ]


def learning_curves(comparison: Comparison, task: Task, path: Path) -> None:
    """A panel for each score: a line for each system, the mean over its seeds, in a band of one standard deviation."""
    scores = comparison.curves.of_task(task)
    labels = [label for label in comparison.colours if any(label in curves.of_runs for curves in scores.values())]
    styles = {label: (comparison.colours[label], marker) for label, marker in zip(labels, cycle(MARKERS), strict=False)}
    rows, columns = grid_of(len(scores), most_columns=2)
    width = CURVE_INCHES[0] * columns
    across = max(1, min(len(labels), int(width * LEGEND_LETTERS // (max(map(len, labels)) + 7))))
    legend_rows = -(-len(labels) // across)
    height = CURVE_INCHES[1] * rows + 0.95 + 0.2 * legend_rows
    figure = new_figure(width, height, **PADS | {"hspace": 0.06})
    for axes, ((setting, metric), curves) in panels(figure, list(scores.items()), (rows, columns), sharex=True):
        for label in filter(curves.of_runs.__contains__, labels):
            _learning_curve(axes, curves, label, *styles[label])
        axes.margins(x=0.03, y=0.08)
        _mark_target(axes, curves, styles)
        lower = ", lower is better" if metric in LOWER_IS_BETTER else ""
        axes.set_title(score_title(metric, setting) + lower, loc="left", fontsize=10.5, color=INK, pad=6)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(EDGE)
        axes.tick_params(length=0, colors=PALE, labelsize=9, labelbottom=True)
        if metric in IN_RANKS:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("training steps", color=PALE, fontsize=9.5)
    several = max(len(runs) for curves in scores.values() for runs in curves.of_runs.values()) > 1
    band = "line: mean over seeds; band: ± one standard deviation\n" if several else ""
    near = f"ring: where a line first has {NEAR:.0%} of the best score (dotted)"
    note = f"{band}{near}\nneither is drawn where all lines have it throughout"
    # The empty lines below the title are the legend's: the layout makes room for one of the two.
    _add_texts(figure, f"{task.name}: learning curves" + "\n" * legend_rows, note)
    figure.legend(
        [_marked_line(*style) for style in styles.values()], labels, loc="upper left", ncols=across, frameon=False,
        bbox_to_anchor=(0.012, 1 - 0.32 / height), fontsize=9.5, handlelength=2.2, columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip
    save_png(figure, path)


def _learning_curve(axes: Any, curves: ScoreCurves, label: str, colour: str, marker: str) -> None:
    steps, means, spreads = (np.array(values) for values in zip(*curves.of_systems[label], strict=True))
    axes.fill_between(steps, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        steps, means, color=colour, linewidth=1.8, marker=marker, markersize=4.5, zorder=2,
        markevery=-(-len(steps) // MOST_MARKERS), markeredgecolor="white", markeredgewidth=0.6,
    )  # fmt: skip


def _mark_target(axes: Any, curves: ScoreCurves, styles: Mapping[str, tuple[str, str]]) -> None:
    """The score near the best, and where each line first has it; nothing where every line always has it."""
    way = sign(curves.metric)
    if all(way * measured.mean >= way * curves.target for line in curves.of_systems.values() for measured in line):
        return
    axes.axhline(curves.target, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for label, line in curves.of_systems.items():
        near = next((measured for measured in line if way * measured.mean >= way * curves.target), None)
        if near is not None:
            colour, _ = styles[label]
            axes.scatter(near.step, near.mean, s=62, facecolor="none", edgecolor=colour, linewidth=1.6, zorder=4)


def bars(comparison: Comparison, task: Task, path: Path) -> None:
    """A panel for each setting and one for rank distance; a bar, its interval and its runs for each system."""
    scores = [column for column in task.columns if comparison.get(comparison.baseline, task.name, *column)]
    labels = list(comparison.colours)
    rows, columns = grid_of(len(scores), most_columns=2)
    height = (ROW_INCHES * len(labels) + 0.75) * rows
    figure = new_figure(0.8 + 3.1 * columns + 0.08 * max(map(len, labels)), height + 0.9, **PADS)
    for axes, (setting, metric) in panels(figure, scores, (rows, columns), sharey=True):
        found = [comparison.get(label, task.name, setting, metric) for label in labels]
        limit = max((max(e.high, *e.by_run) for e in found if e is not None), default=1.0)
        for place, (label, e) in enumerate(zip(labels, found, strict=True)):
            if e is not None:
                _bar(axes, place, e, comparison.colours[label], limit, comparison.method.level)
        lower = ", lower is better" if metric == RANK_DISTANCE else ""
        axes.set_title(score_title(metric, setting) + lower, loc="left", fontsize=10.5, color=INK, pad=5)
        _style_bars(axes, labels, limit * 1.42, fontsize=9.5)
        axes.axvline(0, color=EDGE, linewidth=1)
    _add_texts(figure, f"{task.name}: retrieval by setting", _bars_note(comparison))
    save_png(figure, path)


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


def _style_bars(axes: Any, names: Sequence[str], width: float, fontsize: float) -> None:
    axes.set_xlim(0, width)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names, fontsize=fontsize, color=INK)
    axes.set_xticks([])
    without_frame(axes)


def _bars_note(comparison: Comparison) -> str:
    several = max(len(system.runs) for system in comparison.systems) > 1
    dots = "; dots: seeds" if several else ""
    marks = f"▲ better, ▼ worse than {comparison.baseline} (Holm-adjusted p ≤ {comparison.method.level:g})"
    hollow = "; hollow: seeds overlap" if several else ""
    return f"line: {comparison.method.confidence:.0%} interval over questions{dots}\n{marks}{hollow}"


def rank_distances(comparison: Comparison, task: Task, path: Path) -> None:
    """A line for each query language, those trained on first; a dot with its interval for each system."""
    colours = comparison.colours
    few = len(colours) <= 5
    gap = 0.6  # between parts
    places: dict[str, float] = {}
    for number, part in enumerate(task.split or (ALL,)):
        for language in task.parts[part]:
            places[language] = len(places) + number * gap
    across = max(1, min(3, len(colours), int(DISTANCE_INCHES * LEGEND_LETTERS // (max(map(len, colours)) + 5))))
    height = (ROW_INCHES if few else 1.7 * ROW_INCHES) * len(places) + 1.9 + 0.18 * (len(colours) // across)
    figure = new_figure(DISTANCE_INCHES, height, **PADS)
    axes = figure.subplots()
    step = min(0.09, 0.75 / len(colours))
    for s, (label, colour) in enumerate(colours.items()):
        shift = (s - (len(colours) - 1) / 2) * step
        for language, place in places.items():
            e = comparison.get(label, task.name, "multi", RANK_DISTANCE, language)
            if e is not None:
                axes.plot([e.low, e.high], [place + shift] * 2, color=colour, linewidth=1.4, alpha=0.7)
                axes.scatter(e.value, place + shift, s=30 if few else 14, color=colour, linewidth=0, zorder=3)
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
    axes.legend(
        [_dot(colour) for colour in colours.values()], list(colours), loc="lower left", bbox_to_anchor=(-0.02, 1.0),
        ncols=across, frameon=False, fontsize=9.5, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    confidence = f"line: {comparison.method.confidence:.0%} interval over questions"
    _add_texts(figure, f"{task.name}: rank distance by query language", f"{confidence}\n{language_note(task)}")
    save_png(figure, path)


def shares(comparison: Comparison, task: Task, path: Path) -> None:
    """A panel for each system: how much of the top 10 is in a language (bar), and how much of the pool is (line)."""
    colours, of_systems = comparison.colours, task.top10_shares
    rows, columns = grid_of(len(colours), most_columns=3)
    titles = {label: fill(label, PANEL_LETTERS, break_on_hyphens=False) for label in colours}
    lines = max(title.count("\n") for title in titles.values())
    figure = new_figure(1.0 + 2.7 * columns, (0.26 * len(task.languages) + 0.5 + 0.17 * lines) * rows + 1.2, **PADS)
    languages = [x for x in task.languages if all(x in of_systems[label] for label in colours)]
    names = [shown_language(task, x) for x in languages]
    top = max(max(of_systems[label][x]) for label in colours for x in languages)
    for axes, (label, colour) in panels(figure, list(colours.items()), (rows, columns), sharex=True, sharey=True):
        for place, language in enumerate(languages):
            share, pool = of_systems[label][language]
            axes.barh(place, share, height=0.66, color=colour, linewidth=0)
            axes.plot([pool, pool], [place - 0.42, place + 0.42], color=INK, linewidth=1.8)
            axes.annotate(f"{share:.0%}", (max(share, pool) + top * 0.03, place), va="center", fontsize=8.5, color=INK)
        axes.set_title(titles[label], loc="left", fontsize=10, color=INK)
        _style_bars(axes, names, top * 1.25, fontsize=9)
    note = "bar: share of the top 10; upright line: share of the pool\n" + language_note(task)
    _add_texts(figure, f"{task.name}: languages in the top 10 of all queries", note)
    save_png(figure, path)


def difference_map(comparison: Comparison, task: Task, system: str, path: Path) -> None:
    """Cells by query and passage language: the system's score less the baseline's, in points (times 100)."""
    difference = 100 * (task.pair_means[system] - task.pair_means[comparison.baseline])
    side = max(2.8, 0.55 * len(task.languages))
    figure = new_figure(side + 1.6, side + 1.7, **PADS)
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
    note = f"{task.name}: difference in {metric_title(task.metric)} × 100; monolingual in bold\n{language_note(task)}"
    title = fill(f"{system} less {comparison.baseline}", int((side + 1.4) * TITLE_LETTERS), break_on_hyphens=False)
    _add_texts(figure, title, note)
    save_png(figure, path)


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}"
    return "0" if float(text) == 0 else ("+" if value > 0 else "−") + text


def _add_texts(figure: Any, title: str, note: str) -> None:
    figure.suptitle(title, fontsize=12.5, color=INK, fontweight="bold", x=0.02, ha="left")
    figure.supxlabel(note.strip(), fontsize=8.5, color=PALE, x=0.02, ha="left")


def _marked_line(colour: str, marker: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=1.8, marker=marker, markersize=5, markeredgecolor="white")


def _dot(colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker="o", markersize=6, linestyle="", color=colour)
