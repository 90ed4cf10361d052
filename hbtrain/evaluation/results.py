"""Evaluations on disk: `metrics.json`, `scores.csv`, `cells.csv`, `language_share.csv`,
`language_pairs.csv`, `per_query.parquet`, `about.json`, heat maps."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.errors import DataError, StorageError
from hbtrain.evaluation.geometry import PAIR_METRICS
from hbtrain.evaluation.metrics import metrics
from hbtrain.evaluation.out_of_domain import domain_metrics, domain_scores
from hbtrain.evaluation.rankers import Side
from hbtrain.evaluation.summary import POOL_METRICS, SETTINGS, Evaluation
from hbtrain.reporting.figures import draw_map, new_figure
from hbtrain.retrieval.ranks import TIE_RULE
from hbtrain.storage.files import make_folder, whole

CELL_INCHES = 0.55
LARGEST_SIDE_INCHES = 26.0
"""Of a heat map: with more than 47 languages cells are smaller, and have no numbers; those are in cells.csv."""
SMALLEST_SIDE_INCHES = 2.6


def save_evaluation(
    evaluations: Sequence[Evaluation],
    output_dir: Path,
    model: str | None = None,
    *,
    prompts: Mapping[Side, str] | None = None,
    in_domain: str | None = None,
    average_with_initial: float = 0.0,
) -> None:
    """Write the results of one model on one or more benchmarks into `output_dir`, made if it is not there.

    `metrics.json` is flat, {key: number}; `about.json` says what was evaluated on what. Each file is replaced whole
    or not at all. A heat map is drawn where there are cross-lingual scores and monolingual ones.

    Args:
        evaluations: of different benchmarks.
        output_dir: the folder.
        model: name or path of the model.
        prompts: {side: what was put before its texts}.
        in_domain: the benchmark, or the domain of one, with which the others are compared.
        average_with_initial: the share of the weights before training in the model's, told where it is not 0.

    Raises:
        DataError: there is no evaluation, two have one benchmark name, or `in_domain` is not among them.
        StorageError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [e.benchmark for e in evaluations]
    if not names or len(set(names)) < len(names):
        raise DataError(f"evaluations of benchmarks {names} cannot share {output_dir}: one or more, of different names")
    scores = {key: value for e in evaluations for key, value in e.metrics.items()}
    scores |= domain_metrics(domain_scores(evaluations, in_domain))
    about = _about(evaluations) | {"model": model, "prompts": prompts and dict(prompts), "in_domain": in_domain}
    if average_with_initial:
        about["average_with_initial"] = average_with_initial
    table = pa.concat_tables([e.per_query for e in evaluations])
    try:
        make_folder(output_dir)
        for e in evaluations:
            if {"mono", "cross"} <= {cell.setting for cell in e.cells}:
                _replace(output_dir / f"heatmap-{e.benchmark}.png", partial(heat_map, e))
        _replace(output_dir / "per_query.parquet", lambda path: pq.write_table(table, path, compression="zstd"))
        _replace(output_dir / "scores.csv", lambda path: _write_csv(path, evaluations))
        _replace(output_dir / "cells.csv", lambda path: _write_cells(path, evaluations))
        _replace(output_dir / "language_share.csv", lambda path: _write_shares(path, evaluations))
        if any(e.pairs for e in evaluations):
            _replace(output_dir / "language_pairs.csv", lambda path: _write_pairs(path, evaluations))
        _replace(output_dir / "about.json", lambda path: _write_json(path, about))
        # Last: when the new metrics are there, the other files are new as well.
        _replace(output_dir / "metrics.json", lambda path: _write_json(path, scores))
    except OSError as error:
        raise StorageError(
            f"cannot write results to {output_dir}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def _about(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    trained = evaluations[0].trained_languages
    return {
        "tie_rule": TIE_RULE,
        "similarity": evaluations[0].similarity,
        "precision": evaluations[0].precision,
        "model_notes": list(dict.fromkeys(note for e in evaluations for note in e.model_notes)),
        "trained_languages": None if trained is None else list(trained),
        "benchmarks": {
            e.benchmark: {
                "candidates_kind": e.candidates_kind,
                "languages": list(e.languages),
                "queries": e.query_counts,
                "candidates": e.candidate_counts,
                "queries_without_answer": e.left_out,
                **({"repeated_documents": e.repeated} if e.repeated else {}),
                "relevant_never_found": e.never_found,
                "own_documents_left_out": e.own_left_out,
                "ties": {setting: ties._asdict() for setting, ties in e.ties.items()},
                "notes": list(e.notes),
                "parallel_questions": e.parallel,
                "language_groups": {name: list(members) for name, members in e.groups.items()},
                **({"data": dict(e.data)} if e.data else {}),
                **e.search,
            }
            for e in evaluations
        },
    }


def _write_csv(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """One row per benchmark, setting and query language or group (`all`: the macro mean), one column per metric."""
    names = [*metrics(), *POOL_METRICS, *PAIR_METRICS]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "setting", "query_language", *names])
        for e in evaluations:
            for setting in SETTINGS:
                for language in ("all", *e.groups, *e.languages):
                    suffix = "" if language == "all" else f"/{language}"
                    values = [e.metrics.get(f"{e.benchmark}/{setting}/{name}{suffix}") for name in names]
                    if any(value is not None for value in values):
                        cells = ["" if value is None else f"{value:.6f}" for value in values]
                        writer.writerow([e.benchmark, setting, language, *cells])


def _write_cells(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """One row per benchmark, setting, query language and passage language, one column per metric."""
    names = [*metrics(), *POOL_METRICS]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "setting", "query_language", "passage_language", "queries", *names])
        for e in evaluations:
            for cell in e.cells:
                scores = [f"{cell.means[name]:.6f}" if name in cell.means else "" for name in names]
                place = [e.benchmark, cell.setting, cell.query_language, cell.passage_language]
                writer.writerow([*place, cell.queries, *scores])


def _write_shares(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """One row per query language and language of the pool: its share among the first ten candidates in `multi`."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "query_language", "language", "share_in_first_ten", "share_in_pool"])
        for e in evaluations:
            candidates = sum(e.candidate_counts.values())
            for asked, shares in e.first_languages.items():
                for language, share in shares.items():
                    in_pool = e.candidate_counts[language] / candidates
                    writer.writerow([e.benchmark, asked, language, f"{share:.6f}", f"{in_pool:.6f}"])


def _write_pairs(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """One row per side and two languages, each pair once: how the vectors of their parallel texts lie to each other."""
    names = ("alignment", "uniformity", "cka")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "side", "language", "other", "texts", *names])
        for e in evaluations:
            for side, found in e.pairs.items():
                for x, y in combinations_with_replacement(range(len(found.languages)), 2):
                    values = [float(getattr(found, name)[x, y]) for name in names]
                    numbers = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
                    place = [e.benchmark, side, found.languages[x], found.languages[y]]
                    writer.writerow([*place, int(found.texts[x, y]), *numbers])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    with whole(path) as unfinished:
        write(unfinished)


def heat_map(evaluation: Evaluation, path: Path) -> None:
    """A PNG of mAP by query language and passage language, the monolingual diagonal in bold.

    The colours span the values at hand, so that differences between languages are seen; the numbers are in the cells.

    Raises:
        OSError: `path` cannot be written.
    """
    count = len(evaluation.languages)
    side = min(max(SMALLEST_SIDE_INCHES, CELL_INCHES * count), LARGEST_SIDE_INCHES)
    text_of = (lambda value: f"{value:.2f}") if CELL_INCHES * count <= LARGEST_SIDE_INCHES else None
    width, height = side + 2.2, side + 1.2
    figure = new_figure(width, height)
    # The axes are laid out in inches, so that cells are equally large for any number of languages.
    axes = figure.add_axes((0.7 / width, 0.7 / height, side / width, side / height))
    names, values = (evaluation.languages, evaluation.languages), evaluation.pair_map
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    low, high = (low, high) if high > low else (0.0, 1.0)
    image = draw_map(axes, values, names, text_of, bold_diagonal=True, cmap="YlGnBu", vmin=low, vmax=high)
    if text_of is None:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("passage language", labelpad=8)
    axes.set_ylabel("query language", labelpad=8)
    axes.set_title(f"{evaluation.benchmark} ({evaluation.candidates_kind} candidates)", fontsize=12, pad=12)
    beside = figure.add_axes(((side + 0.85) / width, 0.7 / height, 0.16 / width, side / height))
    bar = figure.colorbar(image, cax=beside)
    bar.outline.set_visible(False)
    bar.set_label("mAP")
    figure.savefig(path, dpi=160, format="png", bbox_inches="tight", pad_inches=0.15)
