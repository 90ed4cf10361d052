"""Figures that others have published, to stand beside a comparison's where benchmark, questions, setting and metric are
the same.

`published.json` has for each benchmark what is asked of what (`candidates_kind`, and how many `queries` in each
language), for each source where the figures stand and how they were `checked`, and the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from statistics import fmean
from typing import Any, Literal

from hbtrain.comparison.estimates import Score
from hbtrain.comparison.tasks import Task

PAPER = "paper"  # the source that `--paper` shows
Choice = Literal["paper", "all"] | None
"""Which figures tables show beside their own: those of arXiv 2408.10536, all of them, or none."""


@dataclass(frozen=True)
class PublishedRow:
    """The figures of one system."""

    label: str
    source: str  # key of one of the sources
    scores: Mapping[str, float | Mapping[str, float]]
    """{`<benchmark>/<setting>/<metric>`: the mean over all languages, or {language: score}}"""
    languages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """{benchmark: those of the mean}, where they are not all of the benchmark's"""

    def value(self, score: Score, languages: Sequence[str]) -> float | None:
        """The mean over the languages, or None if they are others than those of a mean, or some have no figure."""
        found = self.scores.get(f"{score.benchmark}/{score.setting}/{score.metric}")
        if isinstance(found, Mapping):
            values = [found.get(language) for language in languages]
            known = [value for value in values if value is not None]
            # of one language the figure itself, as printed
            return None if len(known) < len(values) or not known else known[0] if len(known) == 1 else fmean(known)
        own = self.languages.get(score.benchmark, _table()["benchmarks"][score.benchmark]["queries"]) if found else ()
        return found if set(own) == set(languages) else None


@cache
def published_rows(choice: Choice = "all") -> tuple[PublishedRow, ...]:
    """The rows of a choice, in the order of the file."""
    rows = (PublishedRow(**row) for row in _table()["rows"])
    return tuple(row for row in rows if choice == "all" or (choice == "paper" and row.source == PAPER))


def figure(row: PublishedRow, task: Task, score: Score) -> float | None:
    """The published figure that may stand beside a score of the task; None: there is none on the same questions."""
    languages = task.parts.get(score.part, ())
    return None if unlike(task, languages) else row.value(score, languages)


def unlike(task: Task, languages: Sequence[str]) -> str | None:
    """Why published figures in these languages of a task are on other questions or candidates; None: they are not."""
    known = _table()["benchmarks"].get(task.name)
    if known is None:
        return "there are none"
    wanted = known["candidates_kind"]
    if task.candidates_kind != wanted:
        return f"they are on {wanted} candidates, these runs rank {task.candidates_kind}"
    for language in languages:
        there, here = known["queries"].get(language), task.queries.get(language)
        if there != here or there is None:
            asked = ["no" if count is None else f"{count:,}" for count in (there, here)]
            return f"in {language} they are on {asked[0]} queries, these runs on {asked[1]}"
    return None


def shown_rows(choice: Choice, tasks: Mapping[str, Task], scores: Sequence[Score]) -> list[PublishedRow]:
    """The rows that have a figure beside one of the scores."""
    rows = published_rows(choice) if choice else ()
    return [row for row in rows if any(figure(row, tasks[s.benchmark], s) is not None for s in scores)]


def note_of(choice: Choice, tasks: Mapping[str, Task], scores: Sequence[Score]) -> str:
    """Where the figures beside the scores were published, and why there are none for a task; empty without a choice."""
    if not choice:
        return ""
    rows = shown_rows(choice, tasks, scores)
    sources = dict.fromkeys(row.source for row in rows)
    notes = [f"In italics, beside and not compared: {_table()['sources'][source]['title']}." for source in sources]
    for task in tasks.values():
        own = [score for score in scores if score.benchmark == task.name]
        if own and not any(figure(row, task, score) is not None for row in rows for score in own):
            languages = [x for score in own for x in task.parts.get(score.part, ())]
            notes.append(f"No published figures stand beside {task.name}: {unlike(task, languages) or _others(task)}.")
    return " ".join(dict.fromkeys(notes))


def _others(task: Task) -> str:
    begin = f"{task.name}/"
    keys = (key for row in published_rows() for key in row.scores if key.startswith(begin))
    found = dict.fromkeys(key.removeprefix(begin).replace("/", " ") for key in keys)
    return f"there are {', '.join(found)} in {' '.join(_table()['benchmarks'][task.name]['queries'])}"


def as_list(choice: Choice, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The figures of all parts of the tasks, with where they were published and how they were checked."""
    return [
        {
            "system": row.label,
            "benchmark": task.name,
            "setting": setting,
            "metric": metric,
            "part": part,
            "value": value,
        }
        | _table()["sources"][row.source]
        for row in (published_rows(choice) if choice else ())
        for task in tasks
        for setting, metric in task.columns
        for part in task.parts
        if (value := figure(row, task, Score(task.name, setting, metric, part))) is not None
    ]


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("hbtrain") / "comparison" / "published.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
