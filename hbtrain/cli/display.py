"""Output in the terminal: progress of a run and of other commands, and a run's results with what to do next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from hbtrain.reporting.console import TextConsole, visible
from hbtrain.reporting.metric_names import RANK_DISTANCE, score_title, shown
from hbtrain.reporting.table import facts
from hbtrain.reporting.text import byte_size, counted, lasting

if TYPE_CHECKING:
    from hbtrain.config import Config
    from hbtrain.events import Event
    from hbtrain.runs.outcome import Outcome
    from hbtrain.storage import Place
    from hbtrain.training.verify import Agreement

LINE_EVERY_S = 5.0
"""Seconds between two lines of progress where the output is no terminal."""


class RunConsole(TextConsole):
    """A console whose output may fail during a run, as in `hbtrain train ... | head` or on a full disk.

    It then prints nothing more, and the run goes on: its results are in storage and in MLflow.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Go on without output; Rich's own method ends the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for other writers


class RunDisplay:
    """An observer that shows a run's progress: a bar in a terminal, else a line with the time every `LINE_EVERY_S`."""

    def __init__(self, console: TextConsole, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._started = self._last_line = time.monotonic()
        self._last_step = 0  # of the last line
        self._first: tuple[float, int] | None = None
        self._figures: dict[str, float] = {}
        self._bar: TaskID | None = None
        self._progress = Progress(
            TextColumn("  "),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def phase(self, text: str) -> None:
        """Print the phase with the seconds since the start."""
        self._end_bar()
        since_s = time.monotonic() - self._started
        self._console.print(Text.assemble((f"{since_s:5.0f} s", "dim"), f"  {visible(text)}"), soft_wrap=True)

    def event(self, event: Event) -> None:
        """Print the event's note, and move the bar or print a line."""
        self._figures |= event.metrics
        for text in (*scores_lines(event.metrics), *([event.note] if event.note else [])):
            self._console.print(f"{self._clock(event)} step {event.step}: {text}", soft_wrap=True)
        if not event.metrics:
            return
        if not self._console.is_terminal:
            self._line(event)
            return
        if self._bar is None:
            self._progress.start()
            self._bar = self._progress.add_task("", total=self._steps, figures="")
        self._progress.update(self._bar, completed=event.step, figures=describe(self._figures))

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._progress.stop()
            self._bar = None

    def _clock(self, event: Event) -> str:
        """The time of day of an event, in a log; in a terminal, whose reader has a clock, as much room."""
        return " " * 8 if self._console.is_terminal else time.strftime("%H:%M:%S", time.localtime(event.time_s))

    def _line(self, event: Event) -> None:
        now, step = time.monotonic(), event.step
        self._first = self._first or (now, step)
        if step == self._last_step or (now - self._last_line < LINE_EVERY_S and step < self._steps):
            return
        self._last_line, self._last_step = now, step
        left = ""
        if step > self._first[1] and step < self._steps:
            seconds = (now - self._first[0]) / (step - self._first[1]) * (self._steps - step)
            left = f"  {seconds:.0f} s left"
        self._console.print(f"{self._clock(event)} step {step}/{self._steps}  {describe(self._figures)}{left}")


def describe(figures: dict[str, float]) -> str:
    """Loss by kind of batch, validation loss and throughput in one line."""
    from hbtrain.config.batching import KINDS

    words = [f"{kind} {figures[f'train/loss_{kind}']:.3f}" for kind in KINDS if f"train/loss_{kind}" in figures]
    text = f"loss {' '.join(words)}" if words else ""
    if "validation/loss" in figures:
        text += f"  validation {figures['validation/loss']:.3f}"
    if "train/pairs_per_s" in figures:
        text += f"  {figures['train/pairs_per_s']:,.0f} pairs/s"
    return text


def scores_lines(metrics: Mapping[str, float]) -> list[str]:
    """A line for each benchmark that was evaluated during training: `demo  mAP monolingual 0.512  ...`."""
    lines: dict[str, list[str]] = {}
    for key, score in metrics.items():
        if not key.startswith("eval/"):
            continue
        benchmark, setting, metric = key.removeprefix("eval/").rsplit("/", 2)
        if metric in ("map", RANK_DISTANCE):
            lines.setdefault(benchmark, []).append(f"{score_title(metric, setting)} {shown(score, metric)}")
    return ["  ".join([benchmark, *scores]) for benchmark, scores in lines.items()]


def show_outcome(console: TextConsole, outcome: Outcome) -> None:
    """Print the scores before and after training, the model's path, and commands to try next."""
    from hbtrain.config import without_passwords
    from hbtrain.evaluation.out_of_domain import domain_scores
    from hbtrain.evaluation.tables import before_after_table, domain_table, evaluation_table

    before = {evaluation.benchmark: evaluation for evaluation in outcome.before}
    for evaluation in outcome.after:
        first = before.get(evaluation.benchmark)
        table = evaluation_table(evaluation) if first is None else before_after_table(first, evaluation)
        console.print()
        for note in evaluation.notes:
            console.print(f"note: {note}", soft_wrap=True)
        console.print(table)
    if outcome.in_domain is not None:
        console.print()
        console.print(domain_table(domain_scores(outcome.after, outcome.in_domain), outcome.in_domain))
    model = shlex.quote(_short(outcome.folder.model))
    console.print(f"\nmodel    {model}\nresults  {_short(outcome.folder.results)}\n", soft_wrap=True)
    console.print("next", style="bold")
    for command in (
        f'{_program("hbtrain")} search {model} "¿Dónde se encuentra Machu Picchu?"',
        f"{_program('hbtrain')} evaluate {model} --benchmark demo --output results",
        f"{_program('mlflow')} ui --backend-store-uri {shlex.quote(without_passwords(outcome.tracking_uri))}",
    ):
        console.print(f"  {command}", soft_wrap=True)


def show_agreement(console: TextConsole, config: Config, agreement: Agreement) -> None:
    """Print what was compared, how far the gradients agree, and the verdict."""
    from hbtrain.training.deepspeed_config import zero_stage

    zero = zero_stage(config)
    budget, parts = config.training.chunk_tokens, config.training.chunks
    chunks = f"{budget} tokens a chunk" if budget else counted(parts, "chunk")
    allowed = f"{'' if agreement.holds else 'not '}ratio and cosine within {agreement.tolerance:g} of 1"
    table = facts(
        [
            ("layout", f"{config.resources.max_workers} workers, ZeRO {zero}, {chunks}, {config.encoder.precision}"),
            ("norm ratio", f"{agreement.norm_ratio:.7f}"),
            ("cosine", f"{agreement.cosine:.7f}"),
            ("largest difference", f"{agreement.largest_difference:.1e} of the largest component"),
            ("verdict", Text.assemble(("right", "green") if agreement.holds else ("wrong", "red"), f": {allowed}")),
        ]
    )
    console.print()
    console.print(table)


def _program(name: str) -> str:
    """The command for a program of this environment: its name where the shell finds it, else its path."""
    return name if shutil.which(name) else shlex.quote(_short(Path(sys.executable).parent / name))


def _short(path: Place) -> str:
    """A path relative to the current folder, if it is inside; a URI as it is."""
    if not isinstance(path, Path):
        return str(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class ProgressBars:
    """Shows a progress bar for each task of a command."""

    def __init__(self, console: TextConsole) -> None:
        what = TextColumn("{task.description}", markup=False)
        columns = what, BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, what: str, done: int, of: int) -> None:
        """Show that the task `what` has done `done` of `of` items (0: not known)."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=of or None)
        self._progress.update(self._tasks[what], completed=done, total=of or None)


class TransferDisplay:
    """Shows how many bytes of a transfer are done: a bar in a terminal, else a line every `LINE_EVERY_S`."""

    def __init__(self, console: TextConsole) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  "),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self._bar: TaskID | None = None
        self._first: tuple[float, int] | None = None  # time and bytes when the first were told
        self._last_line = time.monotonic()

    def __enter__(self) -> TransferDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, done: int, of: int) -> None:
        """Show that `done` of `of` bytes are done; may be called in any thread, but not in two at once."""
        if self._console.is_terminal:
            if self._bar is None:
                self._progress.start()
                self._bar = self._progress.add_task("", total=of or None)
            self._progress.update(self._bar, completed=done)
            return
        now = time.monotonic()
        self._first = self._first or (now, done)
        if now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        since, begun = self._first
        rate = (done - begun) / (now - since) if now > since else 0.0
        speed = f"  {byte_size(rate)}/s" if rate else ""
        left = f"  {lasting((of - done) / rate)} left" if rate > 0 and of > done else ""
        self._console.print(f"{byte_size(done)} of {byte_size(of)}{speed}{left}")
