"""`hbtrain status`: what runs, how far, how fast, and since when nobody has heard of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from hbtrain.reporting.console import TextConsole, visible
from hbtrain.reporting.text import counted, lasting

if TYPE_CHECKING:
    from hbtrain.runs.run_states import Fared

COLOURS = {"running": "green", "finished": "dim", "stopped": "dim", "unknown": "dim", "silent": "yellow"}
"""{state: its colour}; all others are red."""
HEAD = ("run", "state", "step", "pairs/s", "left", "heard of")
MOST_ENDED = 5  # finished runs that are shown, the newest; the others are counted


def status(
    where: str = "runs",
    /,
    *,
    tracking_uri: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Show what runs, how far, how fast, and when it was last heard of: `hbtrain status /shared/runs`.

    A run is silent when a few heartbeats of its driver are missing (a minute and a half; on S3, four minutes), and lost
    when its driver is known to be dead, or was not heard of for ten minutes. The MLflow run of one that is lost is
    marked KILLED, with a tag `driver_lost`. Exit code 0 if all are running, stopped on purpose or finished, 1 if one is
    silent, lost, killed, failed or damaged.

    Parameters
    ----------
    where
        Folder or s3:// URI of a run, of a sweep, or of a storage with many.
    tracking_uri
        MLflow's address; by default that of each run, or $MLFLOW_TRACKING_URI where its own holds a password.
    json_
        Print one JSON document in place of the table.
    """
    from hbtrain.runs.run_states import mark_lost, runs_in
    from hbtrain.storage import place

    runs = runs_in(place(where))
    problems = mark_lost(runs, tracking_uri)
    if json_:
        print(json.dumps(_document(runs), ensure_ascii=True))
    else:
        _show(TextConsole(), runs)
    for problem in problems:
        TextConsole(stderr=True).print(f"note: {problem}", style="yellow", soft_wrap=True)
    if not all(run.is_well for run in runs):
        sys.exit(1)


def _document(runs: Sequence[Fared]) -> dict[str, Any]:
    listed = []
    for run in runs:
        fields = {} if run.status is None else run.status.model_dump(exclude={"state"})
        here = {"path": str(run.path), "state": run.state, "is_sweep": run.is_sweep}
        listed.append(here | {"silent_s": run.silent_s, "note": run.note} | fields)
    return {"well": all(run.is_well for run in runs), "runs": listed}


def _show(console: TextConsole, runs: Sequence[Fared]) -> None:
    """Print a line for each run, and one below it for what is to be said of it."""
    ended = [run for run in runs if run.state == "finished"]
    newest = {id(run) for run in sorted(ended, key=_last_heard)[:MOST_ENDED]}
    sweeps = {run.path for run in runs if run.is_sweep}
    shown = [run for run in runs if run.state != "finished" or run.is_sweep or id(run) in newest]
    rows: list[tuple[str, ...]] = [HEAD]
    for run in shown:
        indent = "  " if run.path.parent in sweeps else ""
        done = sum(one.path.parent == run.path for one in ended) if run.is_sweep else None
        rows.append((f"{indent}{visible(run.path.name)}", run.state, *_figures(run, done)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console.print(_line(rows[0], widths, "dim", "dim"), soft_wrap=True)
    for run, row in zip(shown, rows[1:], strict=True):
        console.print(_line(row, widths, "bold", COLOURS.get(run.state, "red")), soft_wrap=True)
        if remark := _remark(run):
            indent = "  " if row[0].startswith(" ") else ""
            console.print(Text(f"{indent}  {visible(remark)}", "dim"), soft_wrap=True)
    left_out = len(runs) - len(shown)
    bad = sum(not run.is_well for run in runs)
    running = sum(run.state == "running" for run in runs)
    more = f" ({left_out} of them not shown)" if left_out else ""
    last = Text(f"\n{running} running, {len(ended)} finished{more}, ")
    console.print(last.append(f"{bad} to look at" if bad else "nothing to look at", "red" if bad else "green"))


def _line(row: Sequence[str], widths: Sequence[int], name_style: str, state_style: str) -> Text:
    """The cells side by side: the first two are texts, the others figures."""
    line = Text(row[0].ljust(widths[0] + 2), name_style)
    line.append(row[1].ljust(widths[1]), state_style)
    for figure, width in zip(row[2:], widths[2:], strict=True):
        line.append(f"  {figure.rjust(width)}", "dim" if row is HEAD else "not bold")
    line.rstrip()
    return line


def _last_heard(run: Fared) -> float:
    return float("inf") if run.silent_s is None else run.silent_s


def _figures(run: Fared, trials: int | None) -> list[str]:
    """The cells of a run's figures: step (of a sweep `trials`, which are finished), pairs a second, time that is left,
    time since it was heard of.
    """
    status = run.status
    if status is None:
        return ["", "", "", ""]
    done = status.step if trials is None else trials
    step = f"{done:,} of {status.steps:,}" + (f" {done / status.steps:4.0%}" if status.steps else "")
    is_running = run.state == "running"
    pairs = f"{status.pairs_per_s:,.0f}" if is_running and status.pairs_per_s is not None else ""
    left = ""
    if is_running and status.steps_per_s and status.step < status.steps:
        left = lasting((status.steps - status.step) / status.steps_per_s)
    heard = "" if run.silent_s is None else f"{lasting(run.silent_s)} ago"
    return [step, pairs, left, heard]


def _remark(run: Fared) -> str:
    """What is wrong, or what a run does now, with its counts of what went wrong; empty for a finished one."""
    status = run.status
    if status is None or run.state == "finished":
        return run.note
    counts = [
        counted(number, noun)
        for number, noun in (
            (status.restarts, "restart"),
            (status.hangs, "hang"),
            (status.skipped_steps, "skipped step"),
            (status.waits, "wait"),
        )
        if number
    ]
    said = run.note or (status.doing if run.state == "running" else "")
    return "; ".join([*([said] if said else []), *counts])
