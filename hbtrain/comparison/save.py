"""A comparison on disk: Markdown, CSV, JSON, pictures and the report."""

from __future__ import annotations

import base64
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbtrain.comparison.pictures import pictures_of
from hbtrain.comparison.published import as_list
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.tables import language_tables, legend, main_tables
from hbtrain.errors import StorageError
from hbtrain.reporting.table import TREND, markdown_text
from hbtrain.reporting.table import markdown as table_markdown
from hbtrain.storage.files import put_in_place


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.md`, `.csv`, `.json`, `report.html` and PNGs into `folder`, made if it is not there.

    A file is put in place when it is finished, so that none is there by half. Returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".comparison-") as temporary:
            made = Path(temporary)
            pictures = pictures_of(comparison)
            for picture in pictures:
                picture.draw(made / picture.file)
            for name, text in (
                ("comparison.md", markdown(comparison)),
                ("comparison.csv", as_csv(comparison)),
                ("comparison.json", json.dumps(as_dict(comparison), indent=2, ensure_ascii=False) + "\n"),
                ("report.html", report(comparison, [(p.title, made / p.file) for p in pictures])),
            ):
                (made / name).write_text(text, encoding="utf-8")
            files = sorted(made.iterdir())
            for file in files:
                put_in_place(file, folder / file.name)
            return [folder / file.name for file in files]
    except OSError as error:
        raise StorageError(
            f"cannot write the comparison to {folder}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def log_comparison(comparison: Comparison, run: str, tracking_uri: str | None = None) -> None:
    """Store the files of `save_comparison` in an MLflow run. Raises TrackingError if it does not take them."""
    from hbtrain.tracking.past_runs import TrackedRuns

    server = TrackedRuns(tracking_uri)
    found = server.find(run)
    with tempfile.TemporaryDirectory(prefix="hbtrain-compare-") as temporary:
        save_comparison(comparison, Path(temporary))
        server.add_artifacts(found, Path(temporary), "comparison")


def markdown(comparison: Comparison) -> str:
    """The tables of the comparison in Markdown, and a legend."""
    tables = [*main_tables(comparison), *language_tables(comparison)]
    parts = [f"**{markdown_text(table.title)}**\n\n{table_markdown(table)}" for table in tables]
    notes = "".join(f"\n\nNote: {markdown_text(note)}." for note in comparison.notes)
    missing = [markdown_text(comparison.curves.note)] if comparison.curves.note else []
    return "\n\n".join([*parts, markdown_text(legend(comparison)), *missing]) + notes + "\n"


def report(comparison: Comparison, pictures: Sequence[tuple[str, Path]]) -> str:
    """The HTML page, with `pictures` (title, PNG file) embedded."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hbtrain.comparison", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html").render(
        comparison=comparison,
        main=main_tables(comparison),
        by_language=language_tables(comparison),
        legend=legend(comparison),
        method=_method(comparison),
        pictures=[(title, base64.b64encode(path.read_bytes()).decode("ascii")) for title, path in pictures],
        colours=comparison.colours,
        trend=TREND,
    )


def _method(comparison: Comparison) -> list[str]:
    method = comparison.method
    return [
        "The unit of all statistics is the question: asked in several languages, of several pools, it is one "
        "observation, flipped or drawn as a whole. The statistic is the macro mean as reported.",
        f"Tests: paired permutation tests, two-sided, {method.flips:,} sign flips (all, where they are fewer), seed "
        f"{method.seed}. Holm's correction in two families: every score over all languages, and every score of single "
        f"languages and of seen or unseen ones. Marks: adjusted p ≤ {method.level:g}.",
        f"Intervals: {method.confidence:.0%} percentile bootstrap, {method.resamples:,} resamples of the questions.",
        "Where a system has several runs, each question's scores are averaged over them first. A mark therefore says "
        "that these trained models would differ on other questions of the kind. What other seeds would give shows in "
        "the spread (standard deviation, n − 1); a mark is hollow unless every run of the one system is on the same "
        "side of every run of the other.",
        *([comparison.curves.note] if comparison.curves.note else []),
    ]  # fmt: skip


def as_csv(comparison: Comparison) -> str:
    """One line for each system, benchmark, setting, metric and part."""
    stream = io.StringIO()
    rows = [_flat(row) for row in as_dict(comparison)["scores"]]
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": comparison.baseline,
        "method": asdict(comparison.method),
        "notes": list(comparison.notes),
        "systems": [
            {
                "label": system.label,
                "sampling": system.sampling,
                "alpha": system.alpha,
                "trained_languages": None if system.trained_languages is None else list(system.trained_languages),
                "runs": [{"name": r.name, "given": r.given, "mlflow_run_id": r.run_id} for r in system.runs],
            }
            for system in comparison.systems
        ],
        "benchmarks": [
            {
                "name": task.name,
                "candidates_kind": task.candidates_kind,
                "metric": task.metric,
                "questions": len(task.layout.questions),
                "parts": {name: list(languages) for name, languages in task.parts.items()},
            }
            for task in comparison.tasks
        ],
        "scores": [
            {
                "system": e.system,
                **e.score._asdict(),
                "value": e.value,
                "by_run": list(e.by_run),
                "spread": e.spread,
                "low": e.low,
                "high": e.high,
                "mark": e.mark(comparison.method.level),
                "difference": None if e.difference is None else asdict(e.difference),
            }
            for e in comparison.estimates
        ],
        "published": as_list(comparison.published, comparison.tasks),
        "learning": [
            {
                "system": label,
                "benchmark": benchmark,
                "setting": setting,
                "metric": metric,
                "best": curves.best,
                "target": curves.target,
                "steps_by_run": curves.steps(label),
                "curves_by_run": [{str(step): score for step, score in curve.items()} for curve in of_runs],
            }
            for (benchmark, setting, metric), curves in comparison.curves.scores.items()
            for label, of_runs in curves.of_runs.items()
        ],
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key not in ("by_run", "difference")}
    flat["runs"] = len(row["by_run"])
    difference = row["difference"] or dict.fromkeys(("value", "low", "high", "p", "p_holm", "seeds_agree"))
    names = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    flat |= {names.get(key, key): value for key, value in difference.items()}
    return {key: "" if value is None else value for key, value in flat.items()}
